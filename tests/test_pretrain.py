"""Pre-training: it learns, resumes where it was killed, and changes only what it should."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import recorded_pictures
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cliqa_bench.benchmarks.generated.distortions import PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.extensions import registry
from cliqa_bench.models import pretraining
from cliqa_bench.models.pretraining_config import PICTURES, SCNN, PretrainConfig, distortion_bn_file

TINY = PretrainConfig(pictures=4, size=32, steps=6, batch=8)
CPU = torch.device("cpu")
scnn = registry.load("backbones", "scnn")


@pytest.fixture(autouse=True)
def few_workers(monkeypatch):
    monkeypatch.setattr(pretraining, "WORKERS", 0)


def test_other_pictures_need_another_version():
    advice = "raise PICTURES in pretraining_config.py, and run tests/recorded_pictures.py"
    # numpy 1.26 with scipy 1.11 and Pillow 10.1 differ by 0.001; other processors and versions not at all
    recorded_pictures.assert_alike(recorded_pictures.FILE, PICTURES, recorded_pictures.look(), 0.003, advice)


@pytest.mark.parametrize("name", [field.name for field in fields(PretrainConfig)])
def test_each_setting_has_a_file_of_its_own(name):
    value = getattr(TINY, name)
    changed: Any = {name: "bf16" if name == "precision" else value + 1}
    other = replace(TINY, **changed)
    assert distortion_bn_file("scnn", "random", other) != distortion_bn_file("scnn", "random", TINY)


def test_a_batch_depends_on_its_number_and_the_seed(monkeypatch):
    pictures = pretraining._pictures(TINY, "train", 4)
    first, again, other = (
        pretraining._DistortedBatches(replace(TINY, seed=seed), pictures, "train")[3] for seed in (0, 0, 1)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (8, 3, 32, 32)
    assert torch.equal(first[1][::2], first[1][1::2]), "two crops of one distorted picture have one label"
    assert not any(torch.equal(one, two) for one, two in zip(first[0][::2], first[0][1::2], strict=True))
    later = pretraining._DistortedBatches(replace(TINY, seed=0), pictures, "train")[4]
    assert not torch.equal(first[0], later[0]) and not torch.equal(first[1], later[1])


def test_what_others_make_is_what_is_made_here(monkeypatch):
    alone = pretraining._pictures(TINY, "train", 5)
    assert np.array_equal(pretraining._pictures(TINY, "train", 5, workers=3), alone)
    monkeypatch.setattr(pretraining, "WORKERS", 3)
    data = pretraining._DistortedBatches(TINY, alone, "train")
    with pretraining._loaded(TINY, "train", 5, range(2, 6), CPU) as made:
        for step, (images, labels) in zip(range(2, 6), made, strict=True):
            wanted, of = data[step]
            assert torch.equal(images, wanted)
            assert torch.equal(labels, of)


def test_a_gpu_has_all_cores_make_its_pictures(monkeypatch):
    monkeypatch.undo()
    for cores, wanted in ((1, 2), (2, 2), (7, 7), (64, pretraining.MOST_WORKERS)):
        monkeypatch.setattr(pretraining, "cores", lambda cores=cores: cores)
        assert pretraining._workers(torch.device("cuda:1")) == wanted
        assert pretraining._workers(CPU) == pretraining.WORKERS == 2


def test_killed_and_called_again_it_ends_with_the_same_bits(monkeypatch):
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    straight, resumed = (scnn.build("random", 1) for _ in range(2))
    pretraining.train(scnn, straight, "w", TINY, CPU)
    pretraining.forget(scnn, "w", TINY)
    step = pretraining._step
    calls: list[int] = []

    def killed(*args):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*args)

    monkeypatch.setattr(pretraining, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretraining.train(scnn, resumed, "w", TINY, CPU)
    monkeypatch.setattr(pretraining, "_step", step)
    resumed = scnn.build("random", 1)
    pretraining.train(scnn, resumed, "w", TINY, CPU)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in straight.state_dict().items())


def test_the_accuracy_is_that_on_pictures_never_seen(monkeypatch):
    """Of a network that knows the labels of two mini-batches and errs on the others."""
    config = replace(TINY, steps=5)
    seen: list[torch.Tensor] = []
    batches: list[torch.Tensor] = []

    class Knows(torch.nn.Module):
        def forward(self, images):
            assert not self.training and not torch.is_grad_enabled()
            seen.append(images)
            labels = batches[len(seen) - 1]
            return torch.nn.functional.one_hot(labels if len(seen) <= 2 else (labels + 1) % 39, 39).float()

    learned = pretraining._pictures(config, "train", config.pictures)
    unseen = pretraining._pictures(config, "test", 1)
    assert not any(np.array_equal(picture, unseen[0]) for picture in learned)
    data = pretraining._DistortedBatches(config, unseen, "test")
    batches += [data[step][1] for step in range(5)]
    assert pretraining._accuracy(Knows(), config, CPU) == pytest.approx(2 / 5)
    assert all(torch.equal(images, to_float(data[step][0])) for step, images in enumerate(seen))


def test_a_training_depends_on_every_seed_it_has(monkeypatch):
    started = []

    def noting(whole, *args):
        started.append(whole.classifier.tail[0].weight.detach().clone())
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "_step", noting)
    for seed in (0, 0, 1):
        with pytest.raises(KeyboardInterrupt):
            pretraining.train(scnn, scnn.build("random", 1), "of the seeds", replace(TINY, seed=seed), CPU)
    assert torch.equal(started[0], started[1]) and not torch.equal(started[0], started[2])


def test_the_classifier_reads_features_before_they_get_unit_length():
    net = scnn.build("random", 1).eval()
    whole = pretraining._Whole(net, 128).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = torch.nn.Sequential(*net.stages)(images).mean(dim=(2, 3))
        assert (pooled.norm(dim=1) - 1).abs().min() > 0.1
        torch.testing.assert_close(whole(images), whole.classifier(pooled), atol=1e-6, rtol=1e-5)


def test_the_weights_file_says_how_it_was_made(tmp_path):
    path = tmp_path / "scnn.safetensors"
    accuracy = pretraining.pretrain(scnn, path, CPU, TINY, "the command")
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
    pretraining.distortion_aware(scnn, net, "random", CPU, config)
    norms = pretraining._norm_names(net)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]) != (name in norms), name
    monkeypatch.setattr(pretraining, "train", None)  # nothing may ask for it
    lock = distortion_bn_file("scnn", scnn.weights_id("random"), config).with_suffix(".lock")
    lock.touch()  # of one who was killed after the last step
    pretraining.distortion_aware(scnn, again, "random", CPU, config)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    assert not lock.exists()


def test_the_rate_warms_up_and_ends_near_zero():
    rates = np.array([pretraining.annealed(SCNN.lr, step, SCNN.steps) for step in range(SCNN.steps)])
    assert rates.argmax() < 0.06 * SCNN.steps
    assert rates.max() <= SCNN.lr
    assert rates[-1] < 1e-3 * SCNN.lr
    # 3000 steps: the first 150 rise, and the cosine is half way down at 1500
    assert rates[[0, 74, 1500]] == pytest.approx(
        [2e-3 / 150, 1e-3 * 0.5 * (1 + np.cos(np.pi * 74 / 3000)), 1e-3], rel=1e-9
    )


def test_a_killed_training_of_other_weights_is_not_gone_on_from(monkeypatch, tmp_path):
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    config = replace(TINY, norms_only=True)
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"{seed}.safetensors")
        save_file(scnn.build("random", seed).state_dict(), paths[-1])
    step = pretraining._step
    calls: list[int] = []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(pretraining, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretraining.distortion_aware(scnn, scnn.build(str(paths[0])), str(paths[0]), CPU, config)
    net = scnn.build(str(paths[1]))
    pretraining.distortion_aware(scnn, net, str(paths[1]), CPU, config)
    convolution = scnn.build(str(paths[1])).stages[0][0]
    assert torch.equal(net.stages[0][0].weight, convolution.weight)
    assert len(calls) == 3 + config.steps, "it began anew"


def pooled(net, name, count=16):
    rng = np.random.default_rng(3)
    pictures = (distort(reference(seed, (128, 96)), name, 3, rng) for seed in range(900, 900 + count))
    images = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return net(to_float(images)).final.numpy()


def test_the_shipped_weights_tell_distortions_apart():
    with safe_open(scnn.weights_file(None), "pt") as file:
        facts = file.metadata()
    assert facts["command"].startswith("python -m cliqa_bench pretrain")
    net = scnn.build(None).eval()
    types = [n for n, level in PRETRAIN_CLASSES if level == 3]
    features = np.stack([pooled(net, name) for name in types])
    # the nearest mean of the first half's features names the type of the second half's
    means = features[:, :8].mean(1)
    distance = np.linalg.norm(features[:, 8:, None] - means, axis=-1)
    right = (distance.argmin(-1) == np.arange(len(types))[:, None]).mean()
    assert right > 0.7, f"{right:.2f} right of {len(types)} types; chance is {1 / len(types):.2f}"
