"""A model in one file: the bits of its run, the same bytes each time, and one line for anything else."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from test_loaded_model import RUNS, commanded
from test_score_files import picture, pictures

import cliqa_bench
from cliqa_bench.backbones.scnn import SCNN
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.cli.parser import main
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import UserError
from cliqa_bench.execution import model_file
from cliqa_bench.execution.learned import Learned, ModelFacts, UsualParts
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.execution.model_file import LearnedFile, write_model
from cliqa_bench.models.finished import RunNetworks
from cliqa_bench.models.quality import QualityModel

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a run of release 0.1.0."""
    to = tmp_path_factory.mktemp("file") / "sub" / "model.safetensors"
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(to)]) == 0
    return to


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["cliqa_bench"])
    return header


def written(to: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any], signed: bool = True) -> Path:
    """Writes a file by hand, with the hash that belongs to it."""
    header = {name: what for name, what in header.items() if name != "sha256"}
    if signed:
        header["sha256"] = model_file._digest(save(tensors), header)
    to.write_bytes(save(tensors, {"cliqa_bench": json.dumps(header)}))
    return to


# -- what comes back -----------------------------------------------------------------------------------------


def test_its_scores_are_those_of_the_run_to_the_bit(file: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "mine", 4)
    rows = commanded(tmp_path / "run.csv", tmp_path / "mine", "--runs", RUNS, "--run", "tsn")
    assert commanded(tmp_path / "file.csv", tmp_path / "mine", "--model", file) == rows
    assert commanded(tmp_path / "folder.csv", tmp_path / "mine", "--model", file.parent) == rows
    for source in (file, file.parent, str(file)):
        model = cliqa_bench.load(source, device="cpu")
        found = model.score(tmp_path / "mine")
        assert [float(row["score"]) for row in rows] == found.scores.tolist()
    assert repr(model) == f"<model {file}: tsn, scnn, live, bid>"


def test_written_again_it_has_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    assert main(["export", str(file), "--to", str(again)]) == 0
    assert again.read_bytes() == file.read_bytes()
    write_model(open_learned(RUNS, "tsn"), again)
    assert again.read_bytes() == file.read_bytes()


def test_its_header_says_what_it_is(file: Path) -> None:
    header = header_of(file.read_bytes())
    assert header["format"] == 1 and header["version"] == cliqa_bench.__version__
    steps = header["preprocessing"]
    assert (steps["shorter_side"], steps["most_pixels"]) == (192, 3 * 768**2)
    assert steps["mean"] == [0.485, 0.456, 0.406] and steps["std"] == [0.229, 0.224, 0.225]
    facts = header["facts"]
    assert facts["sequence"] == ["live", "bid"] and facts["heads"] == [["0", 0], ["1", 0]]
    assert {test: round(srcc, 2) for test, srcc in facts["srcc"].items()} == {"live": 0.70, "bid": 0.74}
    tensors = load(file.read_bytes())
    parts = {name.partition(".")[0] for name in tensors}
    # S-CNN is the gate's network, too
    assert parts == {"train", "backbone", "centroids", "answers", "reading"}
    assert tensors["centroids.1.3"].shape == (4, 64) and "train.1.heads.0.weight" in tensors


class InMemory(Learned):
    """Two heads that share a network which has learned, with a gate of another network.

    Args:
        readout: "gate" or "last".
    """

    def __init__(self, readout: str) -> None:
        made = open_learned(RUNS, "tsn").facts
        self.facts: ModelFacts = replace(
            made, readout=readout, own_features=False, heads=[("naive", 0), ("naive", 1)]
        )
        self.parts, self.name = UsualParts(False), "run naive"
        self.networks = RunNetworks(SCNN, None, PRESETS["quick"])
        self.net = self.networks.untrained(self.parts)
        torch.manual_seed(0)
        for _ in range(2):
            self.net.add_task()
        for tensor in self.net.parameters():
            tensor.data += 0.01 * torch.randn_like(tensor)
        self.other = SCNN.build("random", 7)

    def state(self, node: str) -> dict[str, torch.Tensor]:
        return self.net.own_state()

    def remembered(self, node: str) -> dict[str, torch.Tensor]:
        return {}

    def model(self, node: str) -> QualityModel:
        return self.net.eval()

    def centroids(self) -> list[list[torch.Tensor]]:
        rng = torch.Generator().manual_seed(3)
        return [[torch.rand(5, size, generator=rng) for size in SCNN.stage_sizes] for _ in range(2)]

    def gate_net(self, device: torch.device) -> FeatureNet:
        return self.other.eval()


@pytest.mark.parametrize("readout", ["gate", "last"])
def test_heads_on_one_network_and_a_gate_on_another(tmp_path: Path, readout: str) -> None:
    made, to = InMemory(readout), tmp_path / "m.safetensors"
    write_model(made, to)
    found = {name.partition(".")[0] for name in load(to.read_bytes())}
    assert found == ({"train", "backbone", "gate", "centroids"} if readout == "gate" else {"train"})
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    cpu = torch.device("cpu")
    with torch.inference_mode():
        ours, read = (learned.scorer(cpu)(images) for learned in (made, LearnedFile(to)))
    assert ours.scores.tolist() == read.scores.tolist() and ours.heads.tolist() == read.heads.tolist()
    assert ours.weights.tolist() == read.weights.tolist()
    assert (ours.weights[:, 0] > 0).all() if readout == "gate" else (ours.weights[:, 1] == 1).all()


# -- what is none --------------------------------------------------------------------------------------------


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "is not a safetensors file"),
    "half of its header": (lambda d: cut(d, 2000), "is not a safetensors file"),
    "half-written": (lambda d: cut(d, len(d) // 2), "is not a safetensors file"),
    "without its last byte": (lambda d: cut(d, len(d) - 1), "is not a safetensors file"),
    "with more": (lambda d: d + b"x", "is not a safetensors file"),
    "a weight": (lambda d: flipped(d, len(d) - 5), "is damaged .*; copy it again"),
    "tau": (lambda d: d.replace(b'\\"tau\\": 32.0', b'\\"tau\\": 33.0'), "is damaged .*; copy it again"),
    "a pickle": (lambda d: pickle.dumps({"a": 1}), "is a pickle, which could run any program"),
    "a picture": (lambda d: b"\x89PNG\r\n\x1a\n" + bytes(99), "is not a safetensors file"),
    "weights alone": (lambda d: save({"a": torch.zeros(3)}), "is a safetensors file, but not a model; give"),
    "another's": (lambda d: save({"a": torch.zeros(3)}, {"format": "pt"}), "but not a model"),
    "no JSON": (lambda d: save({"a": torch.zeros(3)}, {"cliqa_bench": "{"}), "has a damaged header"),
    "a list": (lambda d: save({"a": torch.zeros(3)}, {"cliqa_bench": "[]"}), "has a damaged header"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_one_line(
    file: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = BROKEN[name]
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(spoil(file.read_bytes()))
    assert bad.read_bytes() != file.read_bytes()
    with pytest.raises(UserError, match=message):
        cliqa_bench.load(bad, device="cpu")
    picture(tmp_path / "a.png")
    assert main(["score", str(tmp_path / "a.png"), "--model", str(bad)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"cliqa-bench: error: {bad} ") and "\n" not in error


FACTS: dict[str, tuple[dict[str, Any], str]] = {
    "a later format": (
        {"format": 2, "version": "9.1"},
        "was written by cliqa_bench 9.1, in a format that this",
    ),
    "no facts": ({"facts": None}, "has facts that do not fit"),
    "an unknown fact": ({"facts": {"mood": "good"}}, r"has facts that do not fit \(TypeError"),
    "a wrong type": ({"facts": {"tau": "32"}}, "has facts that do not fit .tau"),
    "another readout": ({"facts": {"readout": "best"}}, "an unknown readout"),
    "no such head": ({"facts": {"heads": [["0", 0], ["2", 0]]}}, "a head without a training"),
    "no such column": ({"facts": {"heads": [["0", 0], ["1", -1]]}}, "a head's column out of range"),
    "three heads": ({"facts": {"heads": [["0", 0]] * 3}}, "neither one head nor one a dataset"),
    "a stage more": ({"facts": {"stages": [3, 5]}}, "a gate without centroids"),
    "tau": ({"facts": {"tau": -1.0}}, "tau out of range"),
    "a protocol": ({"facts": {"training": {"resize": "x"}}}, r"training\.resize must be"),
    "another backbone": ({"facts": {"backbone": "resnet18"}}, "holds weights of another network"),
    "shared features": ({"facts": {"own_features": False}}, "are of another network .*; write it again"),
    "a file": ({"facts": {"backbone": "EVIL"}}, "its backbone EVIL is not part of this package"),
    "a hub": ({"facts": {"backbone": "timm:hf-hub:a/b"}}, "its backbone timm:hf-hub:a/b is not part of this"),
    "a strategy": (
        {"facts": {"strategy": "EVIL", "usual_parts": False}},
        "its strategy EVIL is not part of this",
    ),
    "Avalanche's": (
        {"facts": {"strategy": "avalanche:GEM", "usual_parts": False}},
        "its strategy avalanche:GEM is not part of this",
    ),
}


SLOW = {"another backbone": pytest.mark.slow}  # builds it


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in FACTS])
def test_what_does_not_fit_is_one_line_and_nothing_is_run(file: Path, tmp_path: Path, name: str) -> None:
    evil, ran = tmp_path / "evil.py", tmp_path / "ran"
    evil.write_text(f"from pathlib import Path\nPath({str(ran)!r}).write_text('x')\n")
    changes, message = FACTS[name]
    header = header_of(file.read_bytes())
    facts = changes.get("facts", {})
    if facts is not None:
        facts = {k: str(evil) if v == "EVIL" else v for k, v in facts.items()}
        changes = changes | {"facts": header["facts"] | facts}
    bad = written(tmp_path / "bad.safetensors", load(file.read_bytes()), header | changes)
    with pytest.raises(UserError, match=message.replace("EVIL", str(evil))) as caught:
        cliqa_bench.load(bad, device="cpu")
    assert "\n" not in str(caught.value) and not ran.exists()


def test_tensors_of_another_network_are_one_line(file: Path, tmp_path: Path) -> None:
    """With the right hash: it was made like this on purpose."""
    tensors, header = load(file.read_bytes()), header_of(file.read_bytes())
    for name, message in (
        ("train.0.heads.0.weight", "are of another network"),
        ("backbone", "another network"),
    ):
        changed = {n: torch.zeros(2, 2) if n.startswith(name) else t for n, t in tensors.items()}
        with pytest.raises(UserError, match=message):
            cliqa_bench.load(written(tmp_path / "bad.safetensors", changed, header), device="cpu")
    good = written(tmp_path / "good.safetensors", tensors, header)
    assert cliqa_bench.load(good, device="cpu").tasks == ["live", "bid"]
    with pytest.raises(UserError, match="is damaged"):
        cliqa_bench.load(written(tmp_path / "bad.safetensors", tensors, header, signed=False), device="cpu")


def test_a_header_of_any_length_ends_in_one_line(tmp_path: Path) -> None:
    for length in (0, 1, 2**40, 2**63):
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
        with pytest.raises(UserError, match="is not a safetensors file"):
            LearnedFile(bad)


def test_a_strategy_of_one_s_own_has_a_file_if_its_parts_are_the_usual_ones(
    file: Path, tmp_path: Path
) -> None:
    learned = LearnedFile(file)
    learned.facts = replace(learned.facts, strategy="./mine.py")
    write_model(learned, tmp_path / "m.safetensors")
    assert LearnedFile(tmp_path / "m.safetensors").facts.strategy == "./mine.py"
    learned.facts = replace(learned.facts, usual_parts=False)
    with pytest.raises(
        UserError,
        match=r"^model .* cannot be written as one file: its strategy ./mine.py is not part of this",
    ):
        write_model(learned, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "RUNS"], "export needs --to: model.safetensors, model.onnx, model.pt2, or a folder"),
        (
            ["export", "RUNS", "--to", "m.pth"],
            "--to m.pth must end in .safetensors, .onnx or .pt2, or name a folder",
        ),
        (["export", "gone", "--to", "m.safetensors"], "no file or folder gone; give a folder of results"),
        (["export", "FILE", "--run", "tsn", "--to", "m.safetensors"], "holds one model, and no run tsn"),
        (["export", "RUNS", "--run", "naive", "--to", "m.safetensors"], "state.safetensors: No such file"),
        (
            ["score", "a.png", "--model", "FILE", "--runs", "RUNS"],
            "score takes either --model FILE, or --runs DIR",
        ),
        (
            ["score", "a.png", "--model", "gone"],
            "cannot read gone: No such file or directory; give a file that",
        ),
        (
            ["score", "a.png", "--model", "RUNS"],
            "Is a directory; give a file that cliqa-bench export has written",
        ),
    ],
)
def test_misuse_of_export_is_one_line(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    assert main([{"RUNS": str(RUNS), "FILE": str(file)}.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cliqa-bench: error: ") and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_a_table_begun_with_one_file_is_not_resumed_with_another(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    words = ["score", str(tmp_path / "a.png"), "--device", "cpu", "--to", str(tmp_path / "x.csv")]
    assert main([*words, "--model", str(file)]) == 0
    assert main([*words, "--model", str(file)]) == 0
    tensors, header = load(file.read_bytes()), header_of(file.read_bytes())
    tensors["train.0.heads.0.weight"] += 0.1
    other = written(tmp_path / "other.safetensors", tensors, header)
    assert main([*words, "--model", str(other)]) == 2
    assert "x.csv was begun with model " in capsys.readouterr().err
