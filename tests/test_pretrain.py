"""Pre-training: it learns, goes on where it was killed, and changes only what it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cliqa_bench import pretrain, registry
from cliqa_bench.pretrain_config import SCNN, PretrainConfig
from cliqa_bench.seeds import seed_for

TINY = PretrainConfig(pictures=4, size=32, steps=6, batch=8)
CPU = torch.device("cpu")
scnn = registry.load("backbones", "scnn")


@pytest.fixture(autouse=True)
def few_workers(monkeypatch):
    monkeypatch.setattr(pretrain, "WORKERS", 0)


def test_a_batch_depends_on_its_number_and_the_seed(monkeypatch):
    pictures = pretrain._pictures(TINY, "train", 4)
    first, again, other = (
        pretrain._DistortedBatches(replace(TINY, seed=seed), pictures, "train")[3] for seed in (0, 0, 1)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (8, 3, 32, 32)
    assert first[1][0] == first[1][1], "two crops of one distorted picture have one label"


def test_killed_and_called_again_it_ends_with_the_same_bits(monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 2)
    straight, resumed = (scnn.build("random", 1) for _ in range(2))
    pretrain.train(scnn, straight, TINY, CPU)
    step = pretrain._step
    calls: list[int] = []

    def killed(*args):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*args)

    monkeypatch.setattr(pretrain, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(scnn, resumed, TINY, CPU)
    monkeypatch.setattr(pretrain, "_step", step)
    resumed = scnn.build("random", 1)
    pretrain.train(scnn, resumed, TINY, CPU)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in straight.state_dict().items())


def test_the_weights_file_says_how_it_was_made(tmp_path):
    path = tmp_path / "scnn.safetensors"
    accuracy = pretrain.pretrain(path, CPU, TINY, "the command")
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["command"] == "the command"
    assert f'"accuracy":{round(accuracy, 4)}' in facts["made_by"]
    assert '"classes":39' in facts["made_by"]
    net = scnn.build(str(path))
    assert all(torch.equal(v, load_file(path)[k]) for k, v in net.state_dict().items())


def test_distortion_aware_normalisation_changes_normalisation_only_and_is_made_once(monkeypatch):
    config = replace(TINY, norms_only=True)
    before, net, again = (scnn.build("random", 1) for _ in range(3))
    pretrain.distortion_aware(scnn, net, "random", CPU, config)
    norms = pretrain._norm_names(net)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]) != (name in norms), name
    monkeypatch.setattr(pretrain, "train", None)  # nothing may ask for it
    pretrain.distortion_aware(scnn, again, "random", CPU, config)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())


def test_the_rate_warms_up_and_ends_near_zero():
    rates = np.array([pretrain._rate(SCNN, step) for step in range(SCNN.steps)])
    assert rates.argmax() < 0.06 * SCNN.steps
    assert rates.max() <= SCNN.lr
    assert rates[-1] < 1e-3 * SCNN.lr


def test_the_shipped_weights_tell_distortions_apart():
    with safe_open(scnn.weights_file(None), "pt") as file:
        facts = file.metadata()
    assert facts["command"].startswith("python -m cliqa_bench pretrain")
    assert seed_for("scnn", 0) != seed_for("scnn", 1)
    net = scnn.build(None).eval()
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())
