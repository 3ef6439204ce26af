"""Which test images show one content: from the labels to the answer files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.cli import parser
from cliqa_bench.results.nodes import read_answers, read_json


@pytest.mark.slow
def test_answers_say_which_images_show_one_content(miniatures: Path, undrawn: None, tmp_path: Path) -> None:
    words = ["run", "--strategy", "naive", "--orders", "bid,csiq", "--data", str(miniatures)]
    words += ["--out", str(tmp_path), "--set", "training.epochs=1", "--set", "training.warmup_epochs=1"]
    assert parser.main(words) == 0
    found = find_datasets(miniatures, ["bid", "csiq"])
    bid, csiq = ({rating.key: rating for rating in found[name].ratings()} for name in ("bid", "csiq"))
    seen = set()
    for path in (tmp_path / "answers").glob("*/answers.npz"):
        arrays = read_answers(path)
        test = read_json(path.parent / "spec.json")["test"][0]
        shown, keys = arrays["contents"].tolist(), arrays["keys"].tolist()
        seen.add(test)
        if test == "bid":
            assert shown == [list(bid).index(key) for key in keys]
            continue
        groups = [csiq[key].group for key in keys]
        assert len(set(groups)) < len(groups)
        every = list(dict.fromkeys(rating.group for rating in csiq.values()))
        assert shown == [every.index(group) for group in groups]
    assert seen == {"bid", "csiq"}
