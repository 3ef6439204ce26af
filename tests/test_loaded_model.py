"""`cliqa_bench.load`: the numbers of the command line from Python, for whatever holds a picture."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_score_files import picture, pictures, truncated

import cliqa_bench
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.execution import loaded_model
from cliqa_bench.execution.given_picture import GivenPicture, given_pictures, read_given
from cliqa_bench.execution.loaded_model import LoadedModel
from cliqa_bench.results.readouts import gate_weights

pytestmark = pytest.mark.usefixtures("one_thread")
RUNS = Path(__file__).parent / "run_0_1_0" / "runs"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """Returns a run of release 0.1.0: two heads on S-CNN, and their gate."""
    return cliqa_bench.load(RUNS, run="tsn", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns pictures of three shapes and several kinds."""
    folder = tmp_path_factory.mktemp("pictures") / "mine"
    pictures(folder, 6)
    picture(folder / "large.jpg", 7, (300, 200))  # is shrunk
    Image.fromarray(np.full((16, 24), 99, np.uint8)).save(folder / "gray.png")
    Image.new("RGBA", (24, 16), (10, 200, 30, 128)).save(folder / "half.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(folder / "turned.jpg", 8, exif=turned)
    return folder


def commanded(to: Path, *words: object) -> list[dict[str, str]]:
    assert main(["score", *map(str, words), "--device", "cpu", "--to", str(to)]) == 0
    with to.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_text(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Returns a frame as the command writes it."""
    rows = [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
    return [
        {k: v if isinstance(v, str) else "" if math.isnan(v) else repr(v) for k, v in row.items()}
        for row in rows
    ]


# -- the same numbers ----------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_command_to_the_bit(
    model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    rows = commanded(tmp_path / "x.csv", folder, "--runs", RUNS, "--run", "tsn")
    found = model.score(folder)
    assert as_text(found.frame()) == rows
    assert len(found) == len(rows) == 10
    assert [float(row["score"]) for row in rows] == found.scores.tolist()
    for k, task in enumerate(("live", "bid")):
        assert [float(row[f"weight:{task}"]) for row in rows] == found.weights[:, k].tolist()
        assert [float(row[f"head:{task}"]) for row in rows] == found.heads[:, k].tolist()
    assert found.tasks == model.tasks == ["live", "bid"]
    assert found.notes[found.images.index(str(folder / "large.jpg"))] == []
    files = [Path(row["image"]) for row in rows]
    assert model.score(files).scores.tolist() == found.scores.tolist()


def test_windows_are_those_of_the_command(
    model: LoadedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture meets the same others in its batch."""
    from cliqa_bench.execution import score_files

    seen: list[tuple[int, ...]] = []
    real = model._scorer

    def watched(images: torch.Tensor) -> Any:
        seen.append(tuple(images.shape))
        return real(images)

    for module in (score_files, loaded_model):
        monkeypatch.setattr(module, "WINDOW", 4)
    monkeypatch.setattr(model._scoring, "_scorer", watched)
    model.score(folder)
    here, seen = seen, []
    monkeypatch.setattr(score_files, "load_scorer", lambda *args: Watch(watched))
    commanded(tmp_path / "x.csv", folder, "--runs", RUNS, "--run", "tsn")
    assert here == seen and len(here) > 3


class Watch:
    """A model in the place of that of a run.

    Args:
        call: What it does.
    """

    tasks = 2

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self, images: torch.Tensor) -> Any:
        return self.call(images)


def test_weights_are_those_of_the_distances(model: LoadedModel, folder: Path) -> None:
    found = model.score(folder)
    assert found.distances is not None and found.distances.shape == (10, 2, 2)
    expected = gate_weights(found.distances, model.facts.tau)
    np.testing.assert_allclose(found.weights, expected, rtol=0, atol=1e-12)  # 2e-16 seen
    np.testing.assert_allclose(found.scores, (expected * found.heads).sum(axis=1), rtol=0, atol=1e-12)
    assert np.ptp(found.weights[:, 0]) > 1e-6


# -- what holds a picture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["000.png", "large.jpg", "gray.png", "half.png", "turned.jpg"])
def test_a_picture_has_one_score_whatever_holds_it(model: LoadedModel, folder: Path, name: str) -> None:
    path = folder / name
    expected = model.score(path).score
    with Image.open(path) as image:
        assert model.score(image).score == expected
        if name == "turned.jpg":
            return  # pixels alone do not say so
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        pixels = np.asarray(white.convert("RGB"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    holders: list[Any] = [pixels, tensor / 255]
    if name != "large.jpg":  # each takes as long as ten others
        holders += [str(path), pixels[:, ::-1][:, ::-1], pixels / 255, (pixels / 255).astype(np.float32)]
        holders += [tensor, (tensor.double() / 255).requires_grad_(), (tensor / 255).half()]
    if name == "gray.png":
        holders += [
            pixels[:, :, 0],
            pixels[:, :, :1],
            tensor[:1],
            tensor[0],
            Image.fromarray(pixels[:, :, 0]),
        ]
    for holder in holders:
        assert model.score(holder).score == expected


def test_several_of_one_size_are_a_list_of_them(model: LoadedModel) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    expected = model.score(list(batch))
    assert expected.images == ["[0]", "[1]", "[2]"] and len({*expected.scores}) == 3
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for several in (batch, tensor, [batch[0], batch[1:]], (tensor[:1], tensor[1:])):
        found = model.score(several)
        assert (found.images, found.scores.tolist()) == (expected.images, expected.scores.tolist())
    one = model.score(Image.fromarray(batch[0]))
    image = Image.fromarray(batch[0])
    assert {*model.score([image] * 3).scores} <= {*one.scores, *model.score([batch[0]] * 3).scores}


def test_floating_point_numbers_become_the_nearest_of_256() -> None:
    values = np.linspace(0, 1, 16 * 16).reshape(16, 16)
    values[0, :3] = [0.4999 / 255, 0.5001 / 255, 254.51 / 255]
    pixels = read_given(GivenPicture("[0]", values), 0, 64).pixels
    assert pixels is not None and pixels.flags.c_contiguous
    expected = [[math.floor(255 * x + 0.5) for x in row] for row in values.tolist()]
    assert pixels[:, :, 1].tolist() == expected and (pixels == pixels[:, :, :1]).all()
    assert pixels[0, :3, 0].tolist() == [0, 1, 255]


def floats(least: float, most: float) -> NDArray[np.float64]:
    return np.linspace(least, most, 16 * 16 * 3).reshape(16, 16, 3)


SPOILT = floats(0, 1)
SPOILT[3, 3, 1] = np.nan
WRONG: dict[str, tuple[Any, str]] = {
    "0 to 255": (floats(0, 255), r"image \[0\] has floating-point pixels from 0 to 255, .* 1; divide"),
    "normalised": (floats(-2, 2), r"from -2 to 2, expected 0 to 1; .*undo a normalisation"),
    "nan": (SPOILT, r"from nan to nan, expected 0 to 1"),
    "int64": (np.zeros((16, 16, 3), np.int64), r"pixels of type int64, of unknown range; give"),
    "uint16": (np.zeros((16, 16), np.uint16), r"pixels of type uint16"),
    "bool": (np.zeros((16, 16), bool), r"pixels of type bool"),
    "first": (np.zeros((3, 16, 16), np.uint8), r"array of shape \(3, 16, 16\), .*reorder"),
    "last": (torch.zeros(16, 16, 3), r"tensor of shape \(16, 16, 3\), expected \(3, H, W\), .*reorder"),
    "four": (np.zeros((16, 16, 4), np.uint8), r"shape \(16, 16, 4\), .*drop the alpha channel"),
    "axes": (np.zeros(16, np.uint8), r"shape \(16,\), expected"),
    "small": (np.zeros((7, 16, 3), np.uint8), r"image \[0\] has 16 x 7 pixels, expected 8 a side or more"),
    "huge": (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (8001, 8000, 3)), r"8000 x 8001 .*64 megapixels"),
    "float image": (Image.new("F", (16, 16)), r"image \[0\] has floating-point pixels of unknown range"),
    "empty path": ("", r"no images in \."),
    "bytes": (b"abc", r"cannot score \[0\], of type bytes: give a path"),
    "None": ([None], r"cannot score \[0\], of type NoneType"),
    "nested": ([[np.zeros((16, 16, 3), np.uint8)]], r"cannot score \[0\], of type list"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_could_be_read_in_two_ways_is_refused_in_one_line(
    model: LoadedModel, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        model.score(given)
    assert "\n" not in str(caught.value)


def test_a_folder_stands_for_its_pictures_anywhere(folder: Path) -> None:
    found = given_pictures([folder / "000.png", folder, Image.new("L", (9, 9))])
    assert [p.name for p in found[:3]] == ["000.png", "000.png", "001.png"] and len(found) == 12
    assert found[-1].name == "[11]"
    assert given_pictures([]) == []


# -- bad pictures --------------------------------------------------------------------------------------------


def test_a_bad_picture_stops_it_or_is_kept_with_its_reason(model: LoadedModel, tmp_path: Path) -> None:
    good = pictures(tmp_path / "mine", 2)
    bad = truncated(tmp_path / "mine" / "000a.png")
    with pytest.raises(UserError, match=r'000a\.png is damaged .*\(errors="keep" scores the others\)$'):
        model.score(tmp_path / "mine")
    found = model.score([good[0], bad, tmp_path / "gone.png", good[1]], errors="keep")
    assert [bool(error) for error in found.errors] == [False, True, True, False]
    assert np.isnan(found.scores).tolist() == [False, True, True, False]
    assert found.distances is not None
    for array in (found.heads, found.weights, found.distances):
        assert np.isnan(array[1:3]).all() and np.isfinite(array[[0, 3]]).all()
    assert found.scores[[0, 3]].tolist() == [model.score(path).score for path in good]
    frame = found.frame()
    assert frame["error"].tolist() == found.errors and frame["score"].isna().tolist() == [
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(UserError, match="errors must be 'raise' or 'keep', not 'ignore'"):
        model.score(good, errors="ignore")  # type: ignore[arg-type]


def test_of_nothing_there_is_an_empty_table(model: LoadedModel) -> None:
    found = model.score([])
    assert len(found) == 0 and found.heads.shape == (0, 2) and found.frame().shape == (0, 10)
    for several in (found, model.score([np.zeros((16, 16), np.uint8)] * 2)):
        with pytest.raises(UserError, match=f"there are {len(several)} pictures, not one; use .scores"):
            several.score  # noqa: B018


# -- loading -------------------------------------------------------------------------------------------------


def test_it_says_what_it_is(model: LoadedModel) -> None:
    assert repr(model) == "<run tsn-live-bid-seed0-7e1637f672c4: tsn, scnn, live, bid>"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (None, {"run": "tsn"}, r"^the model in the box holds no run tsn; give load\(\) a folder of results"),
        ("gone", {}, r"^no file or folder gone; give a folder of results, a model file"),
        (".", {}, r"^no runs in \.;"),
        (RUNS, {"run": "x"}, r"--run x matches no run of"),
        (RUNS, {"tolerance": 1}, "tolerance must be at least 0 and below 1, not 1"),
        (RUNS, {"precision": "fp8"}, "unknown precision 'fp8'"),
        (RUNS, {"device": "gpu"}, "unknown device 'gpu'"),
        (RUNS, {"run": "tsn", "aspects": True}, "has no texts to compare pictures with"),
        (RUNS, {"run": "naive", "device": "cpu"}, r"cannot read .*state\.safetensors"),
    ],
)
def test_misuse_is_one_line(
    source: Any, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        cliqa_bench.load(source, **options)
    assert "\n" not in str(caught.value)


def test_importing_the_package_stays_cheap() -> None:
    code = (
        "import sys, cliqa_bench; assert 'load' in dir(cliqa_bench); "
        "print([n for n in ('torch', 'numpy', 'pandas', 'PIL', 'jsonargparse') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    with pytest.raises(AttributeError, match="module 'cliqa_bench' has no attribute 'lode'"):
        cliqa_bench.lode  # noqa: B018
