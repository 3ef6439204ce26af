"""`weights convert`: archives of torch's become safetensors, and nothing in them is ever run."""

from __future__ import annotations

import importlib.util
import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.models import archives

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Small(nn.Module):
    """Has what a module can have: parts within parts, a transposed tensor, a part of one, plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.seq = nn.Sequential(nn.LayerNorm(3), nn.Conv2d(1, 2, 3))
        self.counts: Tensor
        self.register_buffer("counts", torch.arange(5))
        self.logit_scale = nn.Parameter(torch.tensor(3.5).half())
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
        self.row = nn.Parameter(torch.arange(12.0).reshape(4, 3)[2])
        self.number = 7
        self.numbers = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seq[0](self.lin(x)) * self.logit_scale + self.row + self.turned.sum()
        return y + self.number + self.numbers[0] + self.counts.sum()


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def scripted(path: Path) -> dict[str, Tensor]:
    model = small(1)
    torch.jit.save(torch.jit.script(model), path)
    return model.state_dict()


def traced(path: Path) -> dict[str, Tensor]:
    model = small(2)
    torch.jit.save(torch.jit.trace(model, torch.randn(2, 4)), path)
    used = ("lin", "seq", "counts", "logit_scale", "turned", "row")
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(used)}


def bare(path: Path) -> dict[str, Tensor]:
    state = small(3).state_dict()
    torch.save(state, path)
    return state


def of_a_training(path: Path) -> dict[str, Tensor]:
    model = small(4)
    model(torch.randn(2, 4)).sum().backward()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimiser.step()
    results = {"srcc": np.float64(0.93), "all": np.arange(3.0), "epochs": [1, 2], "best": None}
    saved = {"epoch": 3, "model_state_dict": model.state_dict(), "all_results": results}
    torch.save({**saved, "optimizer_state_dict": optimiser.state_dict()}, path)
    return model.state_dict()


def of_several_gpus(path: Path) -> dict[str, Tensor]:
    state = small(5).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return state


@pytest.mark.parametrize("make", [scripted, traced, bare, of_a_training, of_several_gpus])
def test_tensors_come_through_bit_for_bit(
    make: Callable[[Path], dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "weights.pt"
    expected = make(path)
    if make is of_a_training and not hasattr(torch.serialization, "safe_globals"):
        pytest.skip("PyTorch before 2.5 reads no numbers of numpy's")
    monkeypatch.setattr(torch.jit, "load", None)
    assert main(["weights", "convert", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{path.with_suffix('.safetensors')}: {len(expected)} tensors" in said
    found = load_file(path.with_suffix(".safetensors"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert main(["weights", "convert", str(path)]) == 2
    assert "already exists; give another output file: weights convert" in capsys.readouterr().err
    assert main(["weights", "convert", str(path), str(tmp_path / "other.safetensors")]) == 0
    assert (tmp_path / "other.safetensors").read_bytes() == path.with_suffix(".safetensors").read_bytes()


def test_the_code_of_an_archive_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    expected = scripted(path)
    rewritten(path, lambda name, content: b"raise SystemExit" if "/code/" in name else content)
    found = archives.read_archive(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_tensor_may_be_a_part_of_its_storage(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    model = nn.Module()
    for name, part in (("turned", whole[4:16].view(3, 4).T), ("end", whole[20:]), ("one", whole[7])):
        model.register_buffer(name, part)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    for name in ("script", "state"):
        assert main(["weights", "convert", str(tmp_path / f"{name}.pt")]) == 0
        found = load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Writes an archive again with other content."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, change(name, data))


# -- what is refused -----------------------------------------------------------------------------------------


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def evil_state(path: Path, mark: Path) -> None:
    torch.save({"a": torch.ones(2), "b": Evil(mark)}, path)


def evil_script(path: Path, mark: Path) -> None:
    scripted(path)
    evil = pickle.dumps({"a": Evil(mark)}, 2)
    rewritten(path, lambda name, content: evil if name.endswith("/data.pkl") else content)


def evil_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(mark)))


def old_pickle(path: Path, mark: Path) -> None:
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def whole_module(path: Path, mark: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def tar(path: Path, mark: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def no_tensors(path: Path, mark: Path) -> None:
    torch.save({"epoch": 3, "best": [0.5]}, path)


def other_zip(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


def short_storage(path: Path, mark: Path) -> None:
    scripted(path)
    rewritten(path, lambda name, content: content[:-4] if name.endswith("/data/3") else content)


def beyond_its_storage(path: Path, mark: Path) -> None:
    scripted(path)
    shape = b"K\x03K\x04\x86"  # (3, 4), the linear layer's

    def larger(name: str, content: bytes) -> bytes:
        if not name.endswith("/data.pkl"):
            return content
        before = b"(K\x03K\x04t"
        assert shape in content or before in content
        return content.replace(shape, b"K\x09K\x04\x86").replace(before, b"(K\x09K\x04t")

    rewritten(path, larger)


def big_endian(path: Path, mark: Path) -> None:
    scripted(path)
    rewritten(path, lambda name, content: b"big" if name.endswith("/byteorder") else content)


def text(path: Path, mark: Path) -> None:
    path.write_text("<html>404</html>")


def that_grows(path: Path, mark: Path) -> None:
    torch.save({"weight": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def nothing(path: Path, mark: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (evil_state, "does not hold tensors and plain values alone: "),
        (evil_script, r"does not hold tensors and plain values alone: it asks for "),
        (evil_pickle, "is not an archive written by torch 1.6 or later"),
        (old_pickle, "is not an archive written by torch 1.6 or later"),
        (whole_module, "does not hold tensors and plain values alone: "),
        (tar, "is not an archive written by torch 1.6 or later"),
        (no_tensors, "holds no weights"),
        (other_zip, "does not hold tensors and plain values alone: "),
        (short_storage, "storage 3 has [0-9]* bytes"),
        (beyond_its_storage, "does not hold tensors and plain values alone: "),
        (big_endian, "its numbers are big-endian"),
        (text, "is not an archive written by torch 1.6 or later"),
        (that_grows, r"has [0-9,]+ bytes and would unpack to [0-9,]+; torch writes no such archive"),
        (nothing, "no such file"),
    ],
)
def test_what_is_refused_is_refused_in_one_line_and_not_run(
    make: Callable[[Path, Path], None], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, mark = tmp_path / "weights.pt", tmp_path / "mark"
    make(path, mark)
    assert main(["weights", "convert", str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert str(path) in said
    assert re.search(reason, said)
    assert not mark.exists()
    assert [file.name for file in tmp_path.iterdir()] == ([] if make is nothing else ["weights.pt"])


# -- from OpenAI's archive to features -----------------------------------------------------------------------


def test_weights_come_before_tensors_that_lie_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "beside.pt"
    torch.save(
        {"epoch": torch.tensor(3), "state_dict": {"module.w": torch.ones(2), "b": torch.zeros(1)}}, path
    )
    assert archives.read_archive(path).keys() == {"module.w", "b"}, (
        "a prefix that not all have is a name's own"
    )


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.eye(3).to_sparse(), "w is not a plain tensor of numbers"),
        (torch.ones(2, dtype=torch.complex128), "w is not a plain tensor of numbers"),
        (torch.ones(1).expand(1000), "w claims 1,000 numbers, which are not in the file"),
    ],
)
def test_a_tensor_that_is_no_plain_one_is_named(tensor: Tensor, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    torch.save({"w": tensor}, path)
    with pytest.raises(UserError, match=reason):
        archives.convert(path, tmp_path / "odd.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="the extra [clip] is not installed")
def test_a_converted_clip_is_that_clip(tmp_path: Path) -> None:
    from test_clip import Tiny, as_clip_wants, open_clip_model, pictures

    from cliqa_bench.models.text_head import TextHead

    theirs: Any = open_clip_model(Tiny.sizes)
    images, tokens = as_clip_wants(pictures(2, 224, 224)), torch.tensor([[49406, 320, 49407] + [0] * 74])
    torch.jit.save(torch.jit.trace(theirs, (images, tokens)), tmp_path / "clip.pt")
    assert main(["weights", "convert", str(tmp_path / "clip.pt")]) == 0
    net: Any = Tiny.build(str(tmp_path / "clip.safetensors")).eval()
    head, plain = TextHead(16), TextHead(16)
    head.begin(net)
    torch.save(theirs.state_dict(), tmp_path / "state.pt")
    assert main(["weights", "convert", str(tmp_path / "state.pt")]) == 0
    plain.begin(Tiny.build(str(tmp_path / "state.safetensors")))
    with torch.no_grad():
        assert torch.equal(net.towered(images).final, theirs.visual(images))
        assert torch.equal(head.text_features(), plain.text_features())
