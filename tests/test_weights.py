"""Files of weights: what is not a safetensors file is refused in one line, and a pickle is never run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import recorded_runs
import torch
from safetensors.torch import save
from torch import nn

from cliqa_bench.backbones.scnn import SCNN
from cliqa_bench.backbones.staged import StagedNet
from cliqa_bench.errors import UserError
from cliqa_bench.models.quality import QualityModel, load_tasks
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.results.nodes import read_verified
from cliqa_bench.results.weights import node_weights, parse_weights

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def test_no_length_of_a_header_is_taken_for_a_pickle() -> None:
    lengths = set()
    for n in range(1500):
        data = save({"a": torch.ones(1)}, {"padding": "x" * n})
        lengths.add(int.from_bytes(data[:8], "little"))
        assert parse_weights(data, Path("w"), "").keys() == {"a"}
    assert {640, 896, 1152, 1408} <= lengths, "which begin like pickles of protocols 2 to 5"


def lying(**changes: object) -> bytes:
    """Returns a safetensors file whose header says something else of the tensor `a`."""
    data = save(STATE)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["a"] |= changes
    text = json.dumps(header).encode()
    return bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_in_disguise_is_refused_unread(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps(Evil(mark), protocol)
    with pytest.raises(UserError, match=r"w\.safetensors is a pickle.*it was not read"):
        parse_weights(data, tmp_path / "w.safetensors", "download it again")
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is a pickle"):
        SCNN.build(str(path))
    assert not mark.exists()


def test_torchs_own_archive_with_a_program_in_it_is_refused_unrun(tmp_path: Path) -> None:
    from cliqa_bench.backbones.resnet18 import ResNet18

    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    torch.save({"conv1.weight": Evil(mark)}, path)
    for backbone in (SCNN, ResNet18):
        with pytest.raises(UserError, match=r"w\.pth"):
            backbone.build(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        bytes(8),
        save(STATE)[:-1],
        save(STATE) + b"x",
        (1 << 40).to_bytes(8, "little") + save(STATE)[8:],
        lying(shape=[3, 3]),
        lying(shape=[1 << 60, 1 << 60]),
        lying(data_offsets=[0, 1 << 40]),
        lying(dtype="F99"),
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
    ],
    ids=str,
)
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^w is not a safetensors file \(.*\); download it again$"):
        parse_weights(data, Path("w"), "download it again")


def test_weights_come_back_as_they_went() -> None:
    found = parse_weights(save(STATE), Path("w"), "")
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_weights_of_bytes_are_in_the_order_of_their_names() -> None:
    """In the order of a hash table, which differs between processes, SI's penalty had other last bits."""
    data = save({f"w{number}": torch.zeros(1) for number in range(40)})
    found = list(parse_weights(data, Path("w"), ""))
    assert found == sorted(found) and len(found) == 40


def test_weights_of_another_network_or_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(STATE))
    with pytest.raises(UserError, match="does not hold S-CNN"):
        SCNN.build(str(path))
    state = SCNN.build("random").state_dict()
    next(iter(state.values()))[0] = torch.nan
    path.write_bytes(save(state))
    with pytest.raises(UserError, match="hold NaN or infinity"):
        SCNN.build(str(path))


def test_a_node_of_another_network_and_a_swapped_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(save(STATE))
    with pytest.raises(UserError, match=r"cannot read .*done\.json"):
        node_weights(tmp_path)
    recorded_runs.sign(tmp_path)
    assert node_weights(tmp_path).keys() == STATE.keys()
    assert read_verified(tmp_path, "state.safetensors") == save(STATE)
    stage = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model = QualityModel(StagedNet(nn.Identity(), [stage]), 4, view=TaskNorms())
    with pytest.raises(UserError, match="are of another network"):
        load_tasks(model, node_weights(tmp_path), tmp_path)
    (tmp_path / "state.safetensors").write_bytes(save({"a": STATE["a"]}))
    with pytest.raises(UserError, match="is not the file that was written"):
        node_weights(tmp_path)
