"""Images, weights, results, bundles and configurations for the fuzzer, and what accepted ones must keep."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import recorded_runs as recorded
from fuzz_labels import Case, Format, wrong_ratings
from fuzz_mutations import BYTES, JSON, TEXT, ZIP, Mutation
from PIL import Image

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.pixels.decode import decode
from cliqa_bench.results.nodes import read_answers, read_verified, write_answers

MEGAPIXELS = 1.0


# -- images --------------------------------------------------------------------------------------------------


def image(kind: str, suffix: str, mode: str = "RGB", **options: Any) -> Format:
    """Makes the format of an image file.

    Accepted pictures are (H, W, 3) uint8 of at most a megapixel. A picture of which only the end is missing
    has the pixels that it had, and a PNG, which has checksums, always has.
    """

    def make(folder: Path) -> Case:
        path = folder / f"picture{suffix}"
        gradient = np.add.outer(np.arange(40), 3 * np.arange(56))[:, :, None] + np.array([0, 40, 80])
        noise = np.random.default_rng(5).integers(0, 40, gradient.shape)
        picture = Image.fromarray((gradient + noise).astype(np.uint8))
        if mode == "I;16":  # Pillow before 10.3 has no direct way from RGB
            picture = picture.convert("L")
        picture.convert(mode).save(path, kind, **options)
        original, pixels = path.read_bytes(), decode(path)

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, np.ndarray)
            if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
                return f"it is {found.dtype} {found.shape}"
            if not 64 <= found.shape[0] * found.shape[1] <= MEGAPIXELS * 1e6:
                return f"it has {found.shape} pixels"
            cut = original.startswith(now)
            if (kind == "PNG" or cut) and not np.array_equal(found, pixels):
                return f"pixels are others, {'its end is missing' if cut else 'and it has checksums'}"
            return ""

        return Case(path, lambda: decode(path, MEGAPIXELS), wrong)

    return Format(make, BYTES)


# -- weights and answers -------------------------------------------------------------------------------------


def weights(hashed: bool) -> Format:
    """Makes the format of weights: alone, or in a node whose `done.json` has their hash."""

    def make(folder: Path) -> Case:
        import torch
        from safetensors.torch import save

        from cliqa_bench.results.weights import node_weights, parse_weights

        state = {
            "stages.0.weight": torch.randn(4, 3, 3, 3),
            "heads.0.weight": torch.ones(1, 8),
            "n": torch.arange(3),
        }
        path = folder / "state.safetensors"
        path.write_bytes(save(state, {"made_by": "fuzz"}))
        recorded.sign(folder)
        original = path.read_bytes()

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, dict)
            held = sum(tensor.nbytes for tensor in found.values())
            if held > len(now):
                return f"{held} bytes came out of {len(now)}"
            if hashed and now != original:
                return "it is another file than was hashed"
            return ""

        def read() -> object:
            return (
                node_weights(folder)
                if hashed
                else parse_weights(path.read_bytes(), path, "download it again")
            )

        return Case(path, read, wrong)

    return Format(make, BYTES)


def answers(hashed: bool) -> Format:
    """Makes the format of an answer file: alone, or in a node whose `done.json` has its hash."""

    def make(folder: Path) -> Case:
        rng = np.random.default_rng(2)
        path = folder / "answers.npz"
        keys = np.array([f"images/{i}.png" for i in range(30)])
        scores, distances = (rng.normal(size=(30, k)).astype(np.float32) for k in (2, 4))
        write_answers(path, keys, rng.normal(size=30), scores, distances)
        recorded.sign(folder)
        original = path.read_bytes()

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, dict)
            if hashed:
                return "" if now == original else "it is another file than was hashed"
            n = len(set(found["keys"].tolist()))
            if any(len(array) != n for array in found.values()):
                return "lengths differ, or an image is named twice"
            if found["mos"].dtype != np.float64 or not np.isfinite(found["mos"]).all():
                return "a MOS is not a finite float64"
            kinds = {k: (a.dtype.kind, a.ndim) for k, a in found.items() if k in ("scores", "distances")}
            return "" if kinds and set(kinds.values()) == {("f", 2)} else f"columns are {kinds}"

        def read() -> object:
            if hashed:
                read_verified(folder, path.name)
            return read_answers(path)

        return Case(path, read, wrong)

    return Format(make, ZIP)


# -- runs and bundles ----------------------------------------------------------------------------------------


def run_file(pattern: str, mutations: Sequence[Mutation]) -> Format:
    """Makes the format of a file of an output folder, read by `verify`, which computes the report again.

    Where `verify` is content, the file means what it meant: for JSON, it says the same.
    """

    def make(folder: Path) -> Case:
        from cliqa_bench.reports.audit.verify import Verified, verify
        from cliqa_bench.reports.report import write_report

        out = folder / "runs"
        recorded.record_tsn(out, sequence=["live", "bid"], order="live,bid", images=8)
        write_report(out, ("csv",), figures=False)
        path = sorted(out.glob(pattern))[0]
        original = path.read_bytes()

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, Verified)
            if not found.ok or now == original:
                return ""
            if path.suffix == ".json" and _same_json(path.name, original, now):
                return ""
            if path.suffix == ".csv" and _rows(now) == _rows(original):
                return ""
            return "verify is content with a changed file"

        return Case(path, lambda: verify(out), wrong)

    return Format(make, mutations)


def _rows(table: bytes) -> list[list[str]]:
    """Rows of a CSV file, whatever their order (each says what it is about), numbers to ten digits."""
    rows = csv.reader(table.decode("utf-8-sig").splitlines())
    return sorted(
        [f"{float(x) + 0:.9g}" if re.fullmatch(r"-?\d+(\.\d+)?", x) else x for x in row] for row in rows
    )


def _same_json(name: str, was: bytes, now: bytes) -> bool:
    """Whether JSON says the same; facts of a computation (versions, times) are not verified."""
    one, other = json.loads(was), json.loads(now)
    if name == "done.json":
        one, other = ({k: body[k] for k in ("id", "files")} for body in (one, other))
    elif "facts" in one:
        one, other = ({k: v for k, v in body.items() if k != "facts"} for body in (one, other))
    return bool(one == other)


def bundle() -> Format:
    """Makes the format of a bundle; one that verifies holds what it held, and nothing lands elsewhere."""

    def make(folder: Path) -> Case:
        from cliqa_bench.reports.audit.bundle import pack
        from cliqa_bench.reports.audit.verify import Verified, verify
        from cliqa_bench.reports.report import write_report

        out, path = folder / "runs", folder / "bundle.zip"
        record = recorded.record_tsn(out, sequence=["live", "bid"], order="live,bid", images=8)
        write_report(out, ("csv",), figures=False)
        pack(out, path)
        expected = verify(path)
        shutil.rmtree(out)
        assert record.sequence

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, Verified)
            if {p.name for p in folder.iterdir()} != {"bundle.zip"}:
                return "something was written beside the bundle"
            if found.ok and (found.runs, found.cells, found.plain) != (
                expected.runs,
                expected.cells,
                expected.plain,
            ):
                return "verify is content with a bundle that holds less or more"
            return ""

        return Case(path, lambda: verify(path), wrong)

    return Format(make, ZIP)


# -- configurations ------------------------------------------------------------------------------------------

YAML = """\
strategy: [tsn, lwf]
orders: [I, 'bid,live']
test_on: tid2013
backbone: scnn
seeds: [0, 1]
split: 2
preset: quick
device: cpu
jobs: 2
threads: 1
training: {epochs: 3, lr: 0.01, decay_epochs: [2], pairs: batch}
params:
  tsn: {tau: 8, stages: [4]}
set:
  - lwf.reg_weight=2
"""


def config() -> Format:
    """Makes the format of a configuration; an accepted one is complete, and says itself again."""

    def make(folder: Path) -> Case:
        import yaml

        from cliqa_bench.cli.parser import parse
        from cliqa_bench.config import RunConfig
        from cliqa_bench.settings.resolve import config_dict, resolve

        path = folder / "run.yaml"
        path.write_text(YAML, encoding="utf-8")

        def read() -> object:
            return resolve(parse(["run", "--config", str(path)])[1].as_dict())

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, RunConfig)
            numbers = [v for v in dataclasses.asdict(found.training).values() if isinstance(v, int)]
            if any(abs(n) >= 2**31 for n in numbers):
                return "a number of the training is beyond all use"
            path.write_text(yaml.safe_dump(config_dict(found)), encoding="utf-8")
            return "" if read() == found else "read again from config.yaml it is another"

        return Case(path, read, wrong)

    return Format(make, TEXT)


def description() -> Format:
    """Makes the format of `generated.json`; ratings that are accepted are those of the label file."""

    def make(folder: Path) -> Case:
        root = folder / layouts.FOLDERS["live"]
        layouts.write_live(root)
        cls = suites.dataset_class("live")
        truth = cls(root).ratings()

        def read() -> object:
            dataset = cls(root)
            ratings = dataset.ratings()
            dataset.verify_files(ratings)
            return ratings

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, list)
            return wrong_ratings("live", truth, found, {rating.key for rating in truth})

        return Case(root / "generated.json", read, wrong)

    return Format(make, JSON)


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


FORMATS: dict[str, Format] = {
    "jpg": image("JPEG", ".jpg", quality=90),
    "jpg-exif": image("JPEG", ".JPG", exif=_exif(), progressive=True),
    "jpg-cmyk": image("JPEG", ".jpeg", "CMYK"),
    "png": image("PNG", ".png"),
    "png-palette": image("PNG", ".png", "P"),
    "png-16-bit": image("PNG", ".png", "I;16"),
    "bmp": image("BMP", ".bmp"),
    "bmp-palette": image("BMP", ".BMP", "P"),
    "tif": image("TIFF", ".tif"),
    "tif-lzw": image("TIFF", ".tiff", compression="tiff_lzw"),
    "webp": image("WEBP", ".webp", lossless=True),
    "jp2": image("JPEG2000", ".jp2"),
    "safetensors": weights(hashed=False),
    "node-weights": weights(hashed=True),
    "answers-npz": answers(hashed=False),
    "node-answers": answers(hashed=True),
    "run-record": run_file("runs/*.json", JSON),
    "done-json": run_file("answers/*/done.json", JSON),
    "spec-json": run_file("answers/*/spec.json", JSON),
    "run-answers": run_file("answers/*/answers.npz", ZIP),
    "results-csv": run_file("report/results.csv", TEXT),
    "bundle": bundle(),
    "yaml": config(),
    "generated-json": description(),
}
