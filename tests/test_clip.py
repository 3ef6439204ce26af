"""CLIP's towers: the backbone clip_b32, and LIQE's scores from them, on a tiny CLIP of the same kind."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from cliqa_bench.aspects import COARSE
from cliqa_bench.backbones import clip_b32
from cliqa_bench.backbones.clip_b32 import ClipB32
from cliqa_bench.benchmarks.aspect_labels import Aspects
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.benchmarks.pixels.windows import Windows
from cliqa_bench.errors import UserError
from cliqa_bench.models.folding import Scorer, cast_weights
from cliqa_bench.models.heads import score_of
from cliqa_bench.models.quality import QualityModel, cut_windows, model_for
from cliqa_bench.models.text_head import TextHead, TextTower
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.strategies.jl import JL
from cliqa_bench.strategies.liqe import LIQE
from cliqa_bench.strategies.tsn import TSN
from cliqa_bench.testing.tiny import TRAINING, learn, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")
HAS_CLIP = importlib.util.find_spec("open_clip") is not None
needs_clip = pytest.mark.skipif(not HAS_CLIP, reason="the extra [clip] is not installed")


class Tiny(ClipB32):
    """A CLIP of five layers and width 64."""

    title = "a tiny CLIP"
    stage_sizes = (64, 64, 64, 64)
    feature_size = 16
    norm_channels = 12 * 64
    sizes = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 224, "layers": 5, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }


Tiny.name = "tiny_clip"


def open_clip_model(sizes: dict[str, Any], seed: int = 0) -> nn.Module:
    """Returns open_clip's own model, its class token and positions large enough to matter."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(seed)
    vision, text = CLIPVisionCfg(**sizes["vision_cfg"]), CLIPTextCfg(**sizes["text_cfg"])
    model: nn.Module = CLIP(sizes["embed_dim"], vision, text, quick_gelu=True)
    return model.eval()


def saved(model: nn.Module, path: Path) -> str:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return str(path)


def pictures(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), generator=rng, dtype=torch.uint8)


def as_clip_wants(images: Tensor) -> Tensor:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return (images.float() / 255 - mean) / std


# -- the image tower -----------------------------------------------------------------------------------------


@needs_clip
def test_features_are_those_of_open_clip(tmp_path: Path) -> None:
    theirs: Any = open_clip_model(Tiny.sizes)
    net: Any = Tiny.build(saved(theirs, tmp_path / "w.safetensors")).eval()
    images = pictures(3, 224, 224)
    with torch.no_grad():
        features = theirs.visual(as_clip_wants(images))
        assert torch.equal(net.towered(as_clip_wants(images)).final, features)
        unit = theirs.encode_image(as_clip_wants(images), normalize=True)
        # largest difference seen: 1.4e-7, for pixels come normalised as ImageNet's
        torch.testing.assert_close(net(to_float(images)).final, unit, rtol=0, atol=4e-7)
        every = theirs.visual.forward_intermediates(as_clip_wants(images))["image_intermediates"]
        stages = net(to_float(images)).stages
    for stage, block in zip(stages, (1, 2, 3, 4), strict=True):  # of 0 to 4: the ends of four quarters
        mean = functional.normalize(every[block].mean(dim=(2, 3)), dim=1)
        torch.testing.assert_close(stage, mean, rtol=0, atol=4e-7)  # largest difference seen: 1.5e-7
    assert float((stages[0] - stages[1]).abs().max()) > 1e-3


@needs_clip
def test_an_image_of_any_size_has_features() -> None:
    net: Any = Tiny.build("random", 1).eval()
    with torch.no_grad():
        for height, width in ((224, 224), (40, 48), (96, 96), (300, 417)):
            whole = net(to_float(pictures(2, height, width)))
            assert whole.final.shape == (2, 16)
            assert [stage.shape for stage in whole.stages] == [(2, 64)] * 4
        # what is not a whole patch is continued with the mean colour
        image = as_clip_wants(pictures(1, 90, 120))
        continued = torch.zeros(1, 3, 96, 128)
        continued[:, :, :90, :120] = image
        assert torch.equal(net.towered(image).final, net.towered(continued).final)


@needs_clip
@pytest.mark.parametrize("grid", [(3, 3), (12, 9), (7, 8)])
def test_positions_of_other_sizes_are_interpolated(grid: tuple[int, int]) -> None:
    net: Any = Tiny.build("random", 1).eval()
    heard: list[Tensor] = []
    net.visual.ln_pre.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    image = torch.zeros(1, 3, 32 * grid[0], 32 * grid[1])  # of the mean colour: patches are zero
    with torch.no_grad():
        net.towered(image)
        positions = net.visual.positional_embedding
        known = positions[1:].T.reshape(1, 64, 7, 7)
        other = functional.interpolate(known, grid, mode="bicubic", antialias=True)[0].flatten(1).T
        expected = torch.cat([positions[:1] + net.visual.class_embedding, other])
    # largest difference seen: 6e-8
    torch.testing.assert_close(heard[0][0], expected, rtol=0, atol=1.8e-7)
    image.requires_grad_(True)
    net.towered(image).final.sum().backward()
    assert float(net.visual.positional_embedding.grad.abs().max()) > 0


@needs_clip
def test_its_facts_are_those_of_the_network() -> None:
    with torch.device("meta"):
        net = ClipB32.network(None)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            features = net(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) == ClipB32.n_parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(ClipB32.gmacs, abs=0.005)
    assert features.final.shape[1] == ClipB32.feature_size
    assert tuple(stage.shape[1] for stage in features.stages) == ClipB32.stage_sizes
    model = QualityModel(net, ClipB32.feature_size, view=TaskNorms())
    model.add_task()
    assert sum(p.numel() for p in model.task_parameters(0)) == ClipB32.task_parameters() == 40_448


# -- weights -------------------------------------------------------------------------------------------------


def test_without_open_clip_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_b32, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'clip_b32 needs the extra: pip install "cliqa_bench\[clip\]"'):
        ClipB32.build("random")


@needs_clip
def test_missing_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        ClipB32.build(None)
    line = str(caught.value)
    assert "\n" not in line
    assert f"no weights of CLIP ViT-B/32 at {tmp_path / 'weights' / 'clip_b32.safetensors'}" in line
    assert "https://huggingface.co/timm/vit_base_patch32_clip_224.openai to there" in line
    assert "weights convert" in line
    assert "--weights random" in line


@needs_clip
def test_files_of_something_else_are_named(tmp_path: Path) -> None:
    model = open_clip_model(Tiny.sizes)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt is a pickle, .* cliqa-bench weights convert$"):
        Tiny.build(str(tmp_path / "a.pt"))
    (tmp_path / "b.pt").write_bytes(b"no weights at all")
    with pytest.raises(UserError, match=r"b\.pt is not a safetensors file"):
        Tiny.build(str(tmp_path / "b.pt"))
    of_text = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("visual")}
    save_file(of_text, tmp_path / "c.safetensors")
    with pytest.raises(UserError, match=r"c\.safetensors does not hold a whole CLIP .* no visual\.proj"):
        Tiny.build(str(tmp_path / "c.safetensors"))
    with pytest.raises(UserError, match=r"w\.safetensors does not hold CLIP ViT-B/32: "):
        ClipB32.build(saved(model, tmp_path / "w.safetensors"))
    of_images = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("visual")}
    save_file(of_images, tmp_path / "d.safetensors")
    net = Tiny.build(str(tmp_path / "d.safetensors"))
    with pytest.raises(UserError, match=r"d\.safetensors does not hold a whole CLIP .* no text_projection"):
        TextHead(16).begin(net)


@needs_clip
def test_random_weights_of_both_towers_are_a_matter_of_the_seed() -> None:
    first, again, other = (Tiny.build("random", seed) for seed in (1, 1, 2))
    nets = (first, again, other)
    for one, same, another in ([net.state_dict() for net in nets], [net.text_weights() for net in nets]):
        assert one.keys() == same.keys() == another.keys()
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not all(torch.equal(one[name], another[name]) for name in one)
    assert set(first.state_dict()) == {n for n in open_clip_model(Tiny.sizes).state_dict() if "visual" in n}


# -- every strategy can use it -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources(2) as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


@needs_clip
def test_tsn_learns_its_layer_norms_and_nothing_else(sources: list[DecodedDataset]) -> None:
    strategy = TSN()
    model = model_for(strategy, Tiny.build("random", 1), Tiny.feature_size, TRAINING)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    learn(strategy, model, sources)
    norms = [module for module in model.net.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 12 * 3  # two in each of five blocks, two beside them: pristine, and of two tasks
    for name, p in model.net.named_parameters():
        if name in before:
            assert torch.equal(p, before[name]), name
    first, second = (model.norm_parameters(task) for task in (0, 1))
    assert sum(p.numel() for p in first) == 2 * Tiny.norm_channels
    assert all(not torch.equal(a, b) for a, b in zip(first[:2], second[:2], strict=True))
    images = to_float(pictures(3, 70, 80))
    with torch.no_grad():
        scores = model.eval()(images)
        # largest difference seen: 3e-8
        torch.testing.assert_close(Scorer(model)(images), scores, rtol=0, atol=9e-8)
    assert set(model.own_state()) == {
        n for n in model.state_dict() if ".tasks." in n or n.startswith("heads")
    }


@needs_clip
def test_jl_learns_the_whole_tower(sources: list[DecodedDataset]) -> None:
    strategy = JL()
    model = model_for(strategy, Tiny.build("random", 1), Tiny.feature_size, TRAINING)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    learn(strategy, model, sources, joint=True)
    still = [name for name, p in model.net.named_parameters() if torch.equal(p, before[name])]
    assert still == []


@needs_clip
def test_bfloat16_scores_stay_near(sources: list[DecodedDataset]) -> None:
    model = QualityModel(Tiny.build("random", 1), Tiny.feature_size)
    model.add_task()
    scorer = Scorer(model.eval())
    images = to_float(pictures(4, 96, 96))
    with torch.inference_mode():
        exact = scorer(images)
        cast_weights(scorer, "bf16")
        with torch.autocast("cpu", torch.bfloat16):
            near = scorer(images)
    assert near.dtype == torch.float32
    assert 0 < float((near - exact).abs().max()) < 0.02


# -- LIQE's scores -------------------------------------------------------------------------------------------


@pytest.fixture
def golden(shared: Path) -> Any:
    return np.load(shared / "golden" / "liqe" / "tiny_clip.npz")


@pytest.fixture
def golden_model(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QualityModel:
    """Returns the tiny CLIP that the published code was run on, with no head yet."""
    weights = {name[2:]: torch.from_numpy(golden[name]) for name in golden.files if name.startswith("w.")}
    table = torch.zeros(49408, 32, dtype=torch.float16)
    table[golden["vocab"]] = weights["token_embedding.weight"]
    save_file({**weights, "token_embedding.weight": table}, tmp_path / "golden.safetensors")

    class Golden(Tiny):
        sizes = {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 224, "layers": 1, "width": 64, "patch_size": 32},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        }

    of_clip: Any = TextTower.of_clip
    of_two = staticmethod(lambda weights, tasks: of_clip(weights, tasks, heads=2))
    monkeypatch.setattr(TextTower, "of_clip", of_two)
    net = Golden.build(str(tmp_path / "golden.safetensors"))
    return QualityModel(net, 16, new_head=TextHead, windows=Windows())


@needs_clip
def test_liqe_on_the_golden_clip(golden: Any, golden_model: QualityModel) -> None:
    model = golden_model
    head: Any = model.heads[model.add_task()]
    images = to_float(torch.from_numpy(golden["images"]).permute(0, 3, 1, 2))
    with torch.inference_mode():
        cut: Any = model.net
        means = (cut_windows(images, Windows()) * cut.scale + cut.shift).mean(dim=(3, 4))
        read = model.eval().read_by_heads(images)
        log_joint = head(read)
        scores = [model(images)[:, 0], model.score(images, 0), Scorer(model)(images)[:, 0]]
    # largest differences seen: 1.8e-7, 1.8e-7, 1.5e-7, 1.2e-6 and 3e-7
    np.testing.assert_allclose(means, golden["test_crop_means"], rtol=0, atol=5.4e-7)
    unit = functional.normalize(torch.from_numpy(golden["test_image_features"]), dim=2)
    np.testing.assert_allclose(read, unit, rtol=0, atol=5.4e-7)
    np.testing.assert_allclose(log_joint.exp().flatten(1), golden["test_joint"], rtol=0, atol=4.5e-7)
    for score in scores:
        np.testing.assert_allclose(score, golden["test_score"], rtol=0, atol=3.6e-6)
    aspects = head.marginals(log_joint)
    for name in ("quality", "scene", "distortion"):
        np.testing.assert_allclose(getattr(aspects, name), golden[f"test_p_{name}"], rtol=0, atol=9e-7)


def crops_of(golden: Any) -> Tensor:
    """Returns the crops (18, 3, 224, 224) that the published code drew: a crop's mean colour tells where."""
    corners = Windows().grid(*golden["images"].shape[1:3])
    crops = []
    for image, means in zip(golden["images"], golden["train_crop_means"], strict=True):
        every = torch.stack([torch.from_numpy(image[t : t + 224, x : x + 224]) for t, x in corners])
        every = every.permute(0, 3, 1, 2)
        off = (as_clip_wants(every).mean(dim=(2, 3))[None] - torch.from_numpy(means)[:, None]).abs().amax(2)
        assert (off.sort(dim=1).values[:, :2] < 1e-5).sum(dim=1).tolist() == [1, 1, 1]  # one fits, no other
        crops.append(every[off.argmin(dim=1)])
    return torch.cat(crops)


def datasets_of(golden: Any) -> Any:
    """Returns the datasets of the golden step, and which of their images it shows: all."""
    shown, stop = [], 0
    for dataset, n in enumerate(golden["train_per_dataset"].tolist()):
        images, stop = range(stop, stop + n), stop + n
        scenes = [tuple(s for s in golden["labels_scenes"][i].tolist() if s != "invalid") for i in images]
        words = [COARSE[golden["labels_distortion"][i]] for i in images]
        source = SimpleNamespace(
            name=str(dataset),
            labels=golden["labels_mos"][list(images)],
            ratings=[SimpleNamespace(key=i) for i in images],
            aspects=dict(zip(images, map(Aspects, words, scenes), strict=True)),
        )
        shown.append((source, torch.arange(n)))
    return shown


def parameter_of(model: QualityModel, name: str) -> nn.Parameter:
    """Returns a weight by its name in OpenAI's CLIP; of tables, the rows that are used."""
    net, head = cast(Any, model.net), cast(Any, model.heads[0])
    tower, prefix = (net.visual, "visual.") if name.startswith("visual.") else (head.tower, "transformer.")
    return cast(nn.Module, tower).get_parameter(name.removeprefix(prefix))


@needs_clip
def test_a_golden_step_of_training(golden: Any, golden_model: QualityModel) -> None:
    """Losses, gradients and the weights after a step, of two datasets of two and four images."""
    model, strategy = golden_model, LIQE(ties="half", weighting="equal")
    task = strategy.prepare(model)
    assert (strategy.crops, strategy._schedule) == (3, "code")
    weights = strategy.trainable(model, task, warmup=False)
    model.train_only(weights)
    model.train()
    training = replace(TRAINING, slope="code")
    learner: Any = SimpleNamespace(model=model, task=task, training=training, device="cpu")
    optimiser = strategy.optimiser(weights, training)

    features = model.features(to_float(crops_of(golden)), task).final
    said = model.said(task, features.unflatten(0, (-1, strategy.crops)))
    losses = torch.stack(strategy.losses(learner, said, datasets_of(golden)))
    loss = strategy.weighted(losses)
    loss.backward()
    own: Any = {name: parameter_of(model, name).grad for name in golden["grad_norm_names"].tolist()}
    optimiser.param_groups[0]["lr"] = strategy.rate(training, 0, warmup=False)
    optimiser.step()

    # largest differences seen: 1.5e-8, 8.5e-8 and 7.2e-7
    expected = golden["train_losses_quality_distortion_scene"]
    np.testing.assert_allclose(losses.detach(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(loss.item(), golden["train_total"], rtol=0, atol=1e-6)
    score = score_of(model.heads[task], said).detach()
    np.testing.assert_allclose(score, golden["train_score"], rtol=0, atol=1e-5)
    for name, norm in zip(golden["grad_norm_names"].tolist(), golden["grad_norms"], strict=True):
        assert float(own[name].norm()) == pytest.approx(norm, rel=5e-5), name  # 5.1e-6 seen
    for name in [name for name in golden.files if name.startswith("grad.")]:
        found, expected = own[name[5:]], golden[name]
        assert not expected[len(found) :].any()  # positions after the longest text
        np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-5)  # 1.9e-6 seen
    # a first step of AdamW moves a weight by its rate, 5e-6, whatever its gradient's size
    for name in ("visual.proj", "text_projection"):
        after = golden[f"after_step.{name}"]
        moved = after - golden[f"w.{name}"].astype(np.float32)
        assert 4e-6 < np.median(np.abs(moved)) < 6e-6
        clear = np.abs(golden[f"grad.{name}"]) > 1e-4  # below, last bits decide how far
        assert clear.mean() > 0.9
        found = parameter_of(model, name).detach().numpy()
        np.testing.assert_allclose(found[clear], after[clear], rtol=0, atol=5e-8)
    head: Any = model.heads[task]
    assert head.logit_scale.item() == golden["after_step.logit_scale"].item()


@needs_clip
def test_the_text_tower_is_open_clips(tmp_path: Path) -> None:
    from open_clip import tokenizer

    from cliqa_bench.models.texts import texts

    theirs: Any = open_clip_model(Tiny.sizes, 3)
    head = TextHead(16)
    head.begin(Tiny.build(saved(theirs, tmp_path / "w.safetensors")))
    tokens = tokenizer.SimpleTokenizer()(texts("qsd")[::7])
    with torch.no_grad():
        expected = theirs.encode_text(tokens, normalize=True)
        found = head.text_features()[::7]
    assert math.isclose(head.logit_scale.item(), theirs.logit_scale.item())
    # largest difference seen: 3.6e-7
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
