"""Which test images show one content: from the labels to the answer files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.cli import parser
from cliqa_bench.results.nodes import read_answers, read_json


def test_answers_say_which_images_show_one_content(miniatures: Path, undrawn: None, tmp_path: Path) -> None:
    words = ["run", "--strategy", "naive", "--orders", "bid,csiq", "--data", str(miniatures)]
    words += ["--out", str(tmp_path), "--set", "training.epochs=1", "--set", "training.warmup_epochs=1"]
    assert parser.main(words) == 0
    (csiq,) = find_datasets(miniatures, ["csiq"]).values()
    ratings = {rating.key: rating for rating in csiq.ratings()}
    seen = set()
    for path in (tmp_path / "answers").glob("*/answers.npz"):
        arrays = read_answers(path)
        test = read_json(path.parent / "spec.json")["test"][0]
        shown, keys = arrays["contents"].tolist(), arrays["keys"].tolist()
        seen.add(test)
        if test == "bid":
            assert len(set(shown)) == len(keys)
            continue
        groups = [ratings[key].group for key in keys]
        assert len(set(groups)) < len(groups)
        same = np.equal.outer(shown, shown)
        np.testing.assert_array_equal(same, np.array([[a == b for b in groups] for a in groups]))
    assert seen == {"bid", "csiq"}
