"""Tiny recorded runs for the tests of the reports, and the command that renews what they expect.

Run `PYTHONPATH=. python tests/recorded_runs.py` in the checkout's root to write `tests/golden_report/`,
`tests/golden_tables/` and `tests/golden_published/` anew; look at the difference before you commit it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cliqa_bench.results.nodes import Node, file_digest, read_json, write_answers, write_json
from cliqa_bench.results.records import RunRecord, Step, write_record
from cliqa_bench.seeds import rng_for

GOLDEN = Path(__file__).parent / "golden_report"
GOLDEN_TABLES = Path(__file__).parent / "golden_tables"
GOLDEN_PUBLISHED = Path(__file__).parent / "golden_published"
NOT_RECORDED = {"croissant.json"}
"""It hashes `results.csv`, whose last digits depend on versions; see `tests/test_croissant.py`."""
GOLDEN_NAMES = [
    f"table_{number}"
    for number in ("VII", "VIII", "IX", "X", "XI", "XII", "XIII", "similarity", "overhead", "time")
]
TITLES = {"live": "LIVE", "csiq": "CSIQ", "bid": "BID", "clive": "CLIVE"}
ORDERS = {"I": ["live", "csiq", "bid", "clive"], "V": ["clive", "bid", "csiq", "live"]}
IMAGES = 12
TSN_ROWS = {
    "gate": "TSN-IQA",
    "oracle": "TSN-IQA-O",
    "gate-hard": "TSN-IQA (hard)",
    "last": "TSN-IQA (last head)",
}


OF_QUANTILES = 6e-13
"""How much numbers may differ that are made of quantiles of Student's t; 2.1e-13 seen, with scipy 1.11."""
LAST_DIGITS = 1.3e-14
"""Relative tolerance of unrounded numbers: three times the largest difference seen (4.3e-15, numpy 1.26)."""

_UNROUNDED = re.compile(r"-?\d+\.\d{9,}(?:e-\d+)?")


def assert_recorded(made: str, file: Path) -> None:
    """Compares a text with a recorded one: to the last letter, but for the last digits of unrounded numbers.

    Other versions of numpy and scipy sum in another order.
    """
    expected = file.read_text(encoding="utf-8")
    assert _UNROUNDED.sub("x", made) == _UNROUNDED.sub("x", expected), (
        "renew it as tests/recorded_runs.py says"
    )
    ours, theirs = ([float(n) for n in _UNROUNDED.findall(text)] for text in (made, expected))
    rtol = OF_QUANTILES if file.stem in ("table_intervals", "table_power") else LAST_DIGITS
    np.testing.assert_allclose(ours, theirs, rtol=rtol, err_msg=file.name)


def sign(folder: Path) -> None:
    """Writes into a node's `done.json` the hashes of its files as they are now, after a test wrote them."""
    done = read_json(folder / "done.json") if (folder / "done.json").is_file() else {}
    files = {path.name: file_digest(path) for path in folder.iterdir() if path.name != "done.json"}
    write_json(folder / "done.json", {**done, "id": folder.name, "files": files})


def _answer(
    out: Path, slug: str, spec: Mapping[str, object], test: str, skill: float | None, images: int
) -> str:
    """Writes the answers of one head (skill: how much of the truth it sees) or of one gate (None)."""
    node = Node(out, "answers", f"{slug}-on-{test}", {"of": slug, "test": [test, f"print-of-{test}"]})
    if not node.done:
        rng = rng_for("recorded", slug, str(sorted(spec.items())), test)
        mos = rng_for("mos", test).uniform(0, 100, images)
        keys = np.array([f"{test}/{i:03d}.png" for i in range(images)])
        contents = np.arange(images) // (2 if test in ("live", "csiq") else 1)
        with node.building({}) as folder:
            path = folder / "answers.npz"
            if skill is None:
                more = 0.0 if spec["dataset"] == test else 0.05
                far = rng.uniform(0.3, 0.4, (images, 4)) + more
                write_answers(path, keys, mos, distances=far.astype(np.float32), contents=contents)
            else:
                told = skill * (mos - 50) / 30 + (1 - skill) * rng.normal(size=images)
                write_answers(path, keys, mos, scores=told[:, None].astype(np.float32), contents=contents)
    return node.id


def record_tsn(
    out: Path,
    order: str = "I",
    sequence: list[str] | None = None,
    seed: int = 0,
    images: int = IMAGES,
    generated: bool | list[str] = True,
    **facts: object,
) -> RunRecord:
    """Records a run of several heads with gates; orders share their nodes."""
    sequence = sequence or ORDERS[order]
    answers: dict[str, dict[str, str]] = {}
    gates: dict[str, str] = {}
    for name in sequence:
        gates[name] = f"gate-{name}"
        spec = {"dataset": name}
        answers[gates[name]] = {t: _answer(out, gates[name], spec, t, None, images) for t in sequence}
        head = f"train-{name}-{seed}"
        skill = {t: 0.8 if t == name else 0.45 for t in sequence}
        answers[head] = {t: _answer(out, head, {**spec, "seed": seed}, t, skill[t], images) for t in sequence}
    heads = [(f"train-{name}-{seed}", 0) for name in sequence]
    return _record(
        out, "tsn", TSN_ROWS, order, sequence, seed, generated, facts, answers, gates,
        [Step(name, heads[: t + 1]) for t, name in enumerate(sequence)],
    )  # fmt: skip


def record_single(
    out: Path,
    strategy: str = "sl",
    order: str = "I",
    seed: int = 0,
    generated: bool = True,
    sequence: list[str] | None = None,
    **facts: object,
) -> RunRecord:
    """Records separate learning ("sl": one head a step) or joint learning ("jl": one step)."""
    joint = "-".join(["all", *(sequence or [])])
    sequence = sequence or ORDERS[order]
    steps = sequence if strategy == "sl" else [joint]
    answers = {}
    for name in steps:
        head = f"{strategy}-{name}-{seed}"
        skill = {t: 0.75 if t == name or strategy == "jl" else 0.3 for t in sequence}
        spec: dict[str, object] = {"dataset": name, "seed": seed}
        answers[head] = {t: _answer(out, head, spec, t, skill[t], IMAGES) for t in sequence}
    made = [
        Step(name if name != joint else sequence[-1], [(f"{strategy}-{name}-{seed}", 0)]) for name in steps
    ]
    rows = {"last": strategy.upper()}
    return _record(out, strategy, rows, order, sequence, seed, generated, facts, answers, {}, made)


def _record(
    out: Path,
    strategy: str,
    rows: dict[str, str],
    order: str,
    sequence: list[str],
    seed: int,
    generated: bool | list[str],
    facts: dict[str, object],
    answers: dict[str, dict[str, str]],
    gates: dict[str, str],
    steps: list[Step],
) -> RunRecord:
    record = RunRecord(
        strategy=strategy,
        variant="",
        rows=rows,
        backbone="S-CNN",
        seed=seed,
        order=order,
        sequence=sequence,
        tests=sequence,
        titles={name: TITLES[name] for name in sequence},
        steps=steps,
        gates=gates,
        answers=answers,
        tau=32.0,
        stages=[3, 4],
        generated=bool(generated),
        facts={
            "preset": "quick",
            "split": "1",
            "fingerprints": {name: f"print-of-{name}" for name in sequence},
            "asked": "2024-01-01T00:00:00+00:00",
            **({"generated": generated} if isinstance(generated, list) else {}),
            **facts,
        },
    )
    write_record(out, record)
    return record


def record_golden(out: Path) -> None:
    """Records what the golden report is made of: three strategies, two orders, two seeds of one of them."""
    for order in ORDERS:
        for seed in (0, 1):
            record_tsn(out, order, seed=seed)
        record_single(out, "sl", order)
        record_single(out, "sl", order, seed=1)
    record_single(out, "jl")


def main() -> None:
    """Writes what the tests of the reports expect."""
    import recorded_tables

    from cliqa_bench.reports.formats import TABLE_FORMATS
    from cliqa_bench.reports.report import write_published, write_report

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "runs"
        record_golden(out)
        result = write_report(out, TABLE_FORMATS, figures=False)
        _keep([path for path in result.files if path.name not in NOT_RECORDED], GOLDEN, out)
        (GOLDEN / "summary.txt").write_text(result.summary.replace(str(out), "runs") + "\n", encoding="utf-8")
        sys.stdout.write(result.summary + "\n")
        _keep(write_published(out).files, GOLDEN_PUBLISHED, out)
        out = Path(name) / "tables"
        recorded_tables.record_all(out)
        files = write_report(out, TABLE_FORMATS, figures=False).files
        _keep([path for path in files if path.stem in GOLDEN_NAMES], GOLDEN_TABLES, out)


def _keep(files: Sequence[Path], folder: Path, out: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in files:
        text = path.read_text(encoding="utf-8").replace(str(out), "runs")
        (folder / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
