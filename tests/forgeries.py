"""Forges bundles: changes what a run says, and then every hash, name and number that would give it away.

`PYTHONPATH=. python tests/forgeries.py RUNS FOLDER` packs the runs into a folder, honestly and forged.
`verify` finds an edited cell; a leaderboard, which compares bundles, finds other test sets under an old
fingerprint; the rest is found by `prove`, which trains again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recorded_runs import sign

from cliqa_bench.reports.audit.bundle import pack
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.nodes import digest, read_answers, read_json, write_arrays, write_json
from cliqa_bench.results.records import RunRecord, read_record, read_records, write_record

Forgery = Callable[[Path], None]


def move_an_answer(out: Path) -> None:
    """Moves a score of every trained model by .01."""
    for path in _answer_files(out, "scores"):
        arrays = read_answers(path)
        arrays["scores"][0] += 0.01
        write_arrays(path, arrays, compress=True)
        sign(path.parent)


def swap_a_test_set(out: Path) -> None:
    """Gives the images of a test set the opinion scores of others."""
    test = read_records(out)[0].tests[0]
    for name in ("scores", "distances"):
        for path in _answer_files(out, name):
            if read_json(path.parent / "spec.json")["test"][0] == test:
                arrays = read_answers(path)
                arrays["mos"] = arrays["mos"][::-1].copy()
                write_arrays(path, arrays, compress=True)
                sign(path.parent)


def claim_other_settings(out: Path) -> None:
    """Says that everything was trained at half the rate that it was trained at."""
    new: dict[str, str] = {}
    for folder in sorted((out / "train").glob("[!.]*")):
        spec = read_json(folder / "spec.json")
        spec["training"]["lr"] /= 2
        write_json(folder / "spec.json", spec)
        sign(folder)
        new[folder.name] = _renamed(folder, folder.name.rpartition("-")[0], spec)
    for folder in sorted((out / "answers").glob("[!.]*")):
        spec = read_json(folder / "spec.json")
        if (of := spec["of"]) in new:
            spec["of"] = new[of]
            write_json(folder / "spec.json", spec)
            sign(folder)
            slug = folder.name.rpartition("-")[0].replace(of, new[of])
            new[folder.name] = _renamed(folder, slug, spec)
    for path in sorted((out / "runs").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        for old, name in new.items():
            text = text.replace(f'"{old}"', f'"{name}"')
        path.write_text(text, encoding="utf-8")
        body = read_json(path)
        body["facts"]["config"]["training"]["lr"] /= 2
        write_json(path, body)
        record: RunRecord = read_record(path)
        path.unlink()
        write_record(out, record)


def edit_a_cell(out: Path) -> None:
    """Makes a number of the report better, and nothing else."""
    path = out / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = next(i for i, line in enumerate(lines) if ",mSRCC," in line)
    before, value, after = lines[row].rpartition(",mSRCC,")
    number, _, rest = after.partition(",")
    lines[row] = f"{before}{value}{float(number) + 0.01},{rest}"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


FORGERIES: dict[str, Forgery] = {
    "moved": move_an_answer,
    "swapped": swap_a_test_set,
    "settings": claim_other_settings,
    "cell": edit_a_cell,
}


def _answer_files(out: Path, name: str) -> list[Path]:
    files = sorted((out / "answers").glob("[!.]*/answers.npz"))
    return [path for path in files if name in read_answers(path)]


def _renamed(folder: Path, slug: str, spec: object) -> str:
    """Gives a node the name that its changed spec asks for; its `done.json` follows."""
    name = f"{slug}-{digest(spec)}"
    to = folder.rename(folder.with_name(name))
    done = read_json(to / "done.json")
    write_json(to / "done.json", {**done, "id": name})
    return name


def forge(runs: Path, how: str, bundle: Path) -> None:
    """Packs a forged copy of runs; its report is written from what was changed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        shutil.copytree(runs, out)
        forgery = FORGERIES[how]
        if how != "cell":
            forgery(out)
        write_report(out, formats=["csv"], figures=False)
        if how == "cell":
            forgery(out)
        pack(out, bundle)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="a finished run")
    parser.add_argument("to", type=Path, help="where the bundles go")
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    pack(args.runs, args.to / "honest.zip")
    for how in FORGERIES:
        forge(args.runs, how, args.to / f"{how}.zip")
        print(args.to / f"{how}.zip")


if __name__ == "__main__":
    main()
