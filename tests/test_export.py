"""Models for other programs: the graph is what we compute, and ONNX Runtime agrees; folders for hubs load."""

from __future__ import annotations

import builtins
import importlib.util
import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from exported_speed import compare, generated
from PIL import Image
from test_addons import blocks_of
from test_loaded_model import RUNS
from test_score_files import picture, pictures

import cliqa_bench
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.execution import export_int8, export_model, hub_folder
from cliqa_bench.execution.learned import Learned
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.metrics import srcc
from cliqa_bench.models.exported import WholeModel
from cliqa_bench.models.gated import GatedScorer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HAS_ONNX = all(importlib.util.find_spec(name) for name in export_model.EXTRA)
HAS_HUB = importlib.util.find_spec("huggingface_hub") is not None
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra [onnx] is not installed")
exports = pytest.mark.skipif(
    torch.__version__ < "2.5", reason="PyTorch 2.4 cannot export networks with autocast"
)
needs_hub = pytest.mark.skipif(not HAS_HUB, reason="the extra [hub] is not installed")


@pytest.fixture(scope="module")
def scorer() -> GatedScorer:
    """Returns two heads on S-CNN, and their gate."""
    return open_learned(RUNS, "tsn").scorer(CPU)


def pixels_of(n: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height).integers(0, 256, (n, height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 8, 8), (2, 33, 70), (1, 96, 64)])
def test_the_graph_is_what_we_compute(scorer: GatedScorer, size: tuple[int, int, int]) -> None:
    whole, pixels = WholeModel(scorer), torch.from_numpy(pixels_of(*size))
    with torch.inference_mode():
        ours, found = scorer(to_float(pixels.permute(0, 3, 1, 2))), whole(pixels)
    assert whole.outputs == ["score", "weights", "heads", "distances"]
    expected = (ours.scores, ours.weights, ours.heads, ours.distances)
    for name, one, other in zip(whole.outputs, found, expected, strict=True):
        assert one.dtype == torch.float32
        # largest differences seen: 3e-8, 1.3e-7, 3e-8, 1.3e-7
        assert other is not None
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=1e-6, err_msg=name)


def test_without_a_gate_the_newest_head_is_the_score(scorer: GatedScorer) -> None:
    single = GatedScorer(scorer.heads, None)
    whole, pixels = WholeModel(single), torch.from_numpy(pixels_of(2, 40, 48))
    with torch.inference_mode():
        ours, (score, weights, heads) = single(to_float(pixels.permute(0, 3, 1, 2))), whole(pixels)
    assert whole.outputs == ["score", "weights", "heads"]
    np.testing.assert_allclose(score.numpy(), ours.scores, rtol=0, atol=1e-6)
    assert weights.tolist() == [[0, 1], [0, 1]] and heads.shape == (2, 2)


def test_a_file_with_other_scores_is_refused(scorer: GatedScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_model, "SIZES", ((16, 24), (24, 16)))
    learned = cast("Learned", SimpleNamespace(name="run x"))

    def off(by: float) -> export_model.Runner:
        def run(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
            with torch.inference_mode():
                return scorer(to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))).scores + by

        return run

    assert export_model._checked(learned, scorer, off(5e-5)) == pytest.approx(5e-5, rel=1e-6)
    for by in (2e-4, -2e-4, float("nan")):
        with pytest.raises(
            UserError, match=r"run x, exported, scores a picture of 16 x 24 pixels .* off; it was"
        ):
            export_model._checked(learned, scorer, off(by))


def test_what_is_looked_at_in_windows_is_refused(scorer: GatedScorer) -> None:
    learned = cast("Learned", SimpleNamespace(name="run x"))
    windowed = SimpleNamespace(heads=[SimpleNamespace(windows=object())])
    with pytest.raises(
        UserError, match=r"run x looks at a picture in windows, .* use --to model\.safetensors"
    ):
        export_model._program(learned, cast("GatedScorer", windowed))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "huggingface_hub"])
def test_a_missing_extra_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    def find_spec(name: str) -> Any:
        return None if name == missing else builtins.object()

    for module in (export_model, hub_folder):
        monkeypatch.setattr(module, "find_spec", find_spec)
    to = tmp_path / ("hub" if missing == "huggingface_hub" else "m.onnx")
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to)]) == 2
    extra = "hub" if missing == "huggingface_hub" else "onnx"
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f'needs {missing}: pip install "cliqa_bench[{extra}]"' in error and not to.exists()


# -- folders for hubs ----------------------------------------------------------------------------------------


@needs_hub
def test_a_folder_has_weights_configuration_and_card_and_loads(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    to = tmp_path / "hub"
    for _ in range(2):  # what is a model's may be written again
        assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to)]) == 0
    assert sorted(path.name for path in to.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((to / "config.json").read_text())
    assert config["facts"]["sequence"] == ["live", "bid"] and config["preprocessing"]["shorter_side"] == 192
    card = ModelCard.load(to / "README.md")
    assert card.data.library_name == "cliqa_bench" and "continual-learning" in card.data.tags
    told = {
        result.dataset_type: (result.metric_name, result.metric_value) for result in card.data.eval_results
    }
    assert {test: ("SRCC", round(srcc, 4)) for test, srcc in config["facts"]["srcc"].items()} == told
    assert len(told) == 2 and "| LIVE | 0.702 |" in card.text
    assert (
        "learned LIVE, BID.\nThe heads' scores are weighted by K-means gating (temperature 32)." in card.text
    )
    assert "not comparable with published ones" in card.text
    assert repr(cliqa_bench.load(to, device="cpu")).startswith(
        f"<model {to / 'model.safetensors'}: tsn, scnn"
    )


@needs_hub
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("photos", "holds something other than a model"),
        ("file", "is a file; give --to a folder"),
    ):
        assert main(["export", str(RUNS), "--run", "tsn", "--to", str(tmp_path / name)]) == 2
        assert f"{tmp_path / name} {message}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.txt"]


# -- docs/python.md ------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes what the page speaks of, in the current folder: runs, photos and a photo."""
    shutil.copytree(RUNS, tmp_path / "runs")
    for path in (tmp_path / "runs" / "runs").glob("naive-*"):  # its weights are not kept
        path.unlink()
    pictures(tmp_path / "photos", 24)
    picture(tmp_path / "photo.jpg", 5, (96, 80))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_of(document: str) -> list[list[str]]:
    """Returns the commands in the code blocks of a document, without `cliqa-bench`."""
    lines = [line for block in blocks_of(document, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_page_says_what_works(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = blocks_of("python.md", "python")
    exec(first, {})
    assert "001.png" in capsys.readouterr().out
    export, score, *_, to_folder = commands_of("python.md")
    assert (export[0], score[0], to_folder[-1]) == ("export", "score", "my-model")
    for words in (export, score, *([to_folder] if HAS_HUB else [])):
        assert main(words) == 0
    capsys.readouterr()
    exec(second, {})
    assert capsys.readouterr().out.startswith("['live', 'bid'] {'bid': 0.7")
    assert not HAS_HUB or (page / "my-model" / "README.md").is_file()


@pytest.mark.slow
@exports
@needs_onnx
def test_the_page_s_exports_work(page: Path) -> None:
    *_, third = blocks_of("python.md", "python")
    for words in commands_of("python.md")[2:5]:
        assert words[0] == "export" and main(words) == 0
    found: dict[str, Any] = {}
    exec(third, found)
    ours = cliqa_bench.load("runs", device="cpu").score("photo.jpg")
    np.testing.assert_allclose(found["score"], ours.scores, rtol=0, atol=1e-6)
    assert ours.distances is not None
    np.testing.assert_allclose(found["distances"], ours.distances, rtol=0, atol=1e-6)
    assert (page / "model.pt2").is_file() and (page / "small.onnx").is_file()


# -- whole exports -------------------------------------------------------------------------------------------


@pytest.mark.slow
@exports
@needs_onnx
def test_onnx_runtime_gives_the_same_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    to = tmp_path / "m.onnx"
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to)]) == 0
    assert "on pictures of 5 sizes, scores differ from ours by " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    compared = compare(open_learned(RUNS, "tsn"), export_model.runner_of_onnx(to), 20, 96)
    assert compared.sizes >= 5 and compared.largest < 1e-6  # 6e-8 seen
    proto = onnx.load(to)
    (given,) = proto.graph.input
    axes = given.type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["n", "height", "width", 3]
    assert [out.name for out in proto.graph.output] == ["score", "weights", "heads", "distances"]
    props = {prop.key: json.loads(prop.value) for prop in proto.metadata_props}
    assert props["facts"]["sequence"] == ["live", "bid"] and "bilinear" in props["preprocessing"]["resize"]


@pytest.mark.slow
@exports
def test_an_exported_program_gives_the_same_scores(tmp_path: Path) -> None:
    to = tmp_path / "m.pt2"
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to)]) == 0
    compared = compare(open_learned(RUNS, "tsn"), export_model.runner_of_program(to), 20, 96)
    assert compared.sizes >= 5 and compared.largest < 1e-6


# -- in 8 bits -----------------------------------------------------------------------------------------------


def eight_bits_of(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(number):
        Image.fromarray(generated(i, 64 + 8 * (i % 5))).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.slow
@exports
@needs_onnx
def test_convolutions_in_8_bits_score_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    folder, to = eight_bits_of(tmp_path, 40), tmp_path / "model.onnx"
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to), "--int8", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "on 20 pictures of" in said and "SRCC with our scores" in said

    made = onnx.load(to)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") >= kinds.count("Conv") == 3 * 9  # two heads and the gate
    facts = {entry.key: json.loads(entry.value) for entry in made.metadata_props}
    assert facts["precision"] == "int8" and facts["facts"]["strategy"] == "tsn"

    learned, run = open_learned(RUNS, "tsn"), export_model.runner_of_onnx(to)
    scorer = learned.scorer(CPU)
    pictures = [generated(number, 80)[None] for number in range(100, 140)]
    with torch.inference_mode():
        ours = [scorer(to_float(torch.from_numpy(p).permute(0, 3, 1, 2))).scores[0] for p in pictures]
    theirs = [run(p)[0] for p in pictures]
    assert 0 < np.abs(np.subtract(ours, theirs)).max() < 0.1
    assert srcc(ours, theirs) > 0.9


@pytest.mark.parametrize(
    ("to", "number", "said"),
    [
        ("model.pt2", 0, "--int8 goes with --to model.onnx, not "),
        ("model.onnx", 3, "has 3 pictures that can be read; at least 20 are needed"),
    ],
)
def test_what_cannot_be_in_8_bits_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, number: int, said: str
) -> None:
    folder = eight_bits_of(tmp_path, number)
    words = ["export", str(RUNS), "--run", "tsn", "--to", str(tmp_path / to), "--int8", str(folder)]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / to).exists()


def test_ranges_come_from_half_of_the_pictures_and_the_others_are_compared() -> None:
    def ours(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.array([pixels.mean()], np.float32)

    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 30, 20)]
    same = export_int8._compared(ours, lambda pixels: ours(pixels) + np.float32(0.5), pictures)
    assert same == (3, 1.0, 0.5)
    assert export_int8._compared(ours, lambda pixels: -ours(pixels), pictures) == (3, -1.0, 60.0)
