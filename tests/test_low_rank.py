"""LoRA: adapters of zeros change no bit, sums are what numpy says, and a task stores its own alone."""

import copy
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from cliqa_bench.backbones.staged import FeatureNet, Features
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.low_rank import LowRank, adapted_weights, low_rank_of
from cliqa_bench.models.quality import QualityModel, model_for
from cliqa_bench.strategies.lora import LoRA
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
NAMED = [
    "scnn", "vit_mini", "resnet18",
    pytest.param("timm:vit_tiny_patch16_224", marks=[needs_timm, pytest.mark.slow]),
]  # fmt: skip


class AttentionNet(FeatureNet):
    """PyTorch's own attention over the rows of a picture, as in CLIP; a depthwise convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, 2, 1, groups=3, padding_mode="reflect")
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Linear(6, 6)

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        tokens = self.depthwise(images).flatten(2).transpose(1, 2)
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        tokens = tokens + self.mlp(tokens)
        return Features(tokens.mean(dim=1), (tokens.mean(dim=1),))


def images(n: int = 3, side: int = 48) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def model_on(name: str, tasks: int = 1, **params: Any) -> tuple[QualityModel, FeatureNet]:
    """A model with tasks, and the frozen network that it began with."""
    backbone = registry.load("backbones", name)
    net, frozen = (backbone.build("random", 5).eval() for _ in range(2))
    model = model_for(LoRA(**params), net, backbone.feature_size, TRAINING)
    for _ in range(tasks):
        model.add_task()
    return model.eval(), frozen


def draw_adapters(net: nn.Module, task: int, seed: int = 0, size: float = 0.05) -> None:
    """Gives a task's adapters values, as if it had learned."""
    draw = torch.Generator().manual_seed(seed)
    for adapted in adapted_weights(net):
        factors: Any = low_rank_of(adapted).tasks[task]
        with torch.no_grad():
            factors.up.copy_(size * torch.randn(factors.up.shape, generator=draw))


def numpy_sums(model: QualityModel, task: int, scale: float) -> dict[str, np.ndarray]:
    """Each adapted weight with its adapter, in float64."""
    found, state = {}, model.net.state_dict()
    for name in state:
        if name.endswith(".original"):
            start = name.removesuffix("original") + f"0.tasks.{task}."
            up, down, weight = (
                state[n].numpy().astype(np.float64) for n in (start + "up", start + "down", name)
            )
            plain = name.removesuffix(".original").replace("parametrizations.", "")
            found[plain] = weight + scale * np.einsum("or,rc->oc", up, down).reshape(weight.shape)
    return found


@pytest.mark.parametrize("name", NAMED)
def test_adapters_of_zeros_change_no_bit_of_the_frozen_network(name: str) -> None:
    model, frozen = model_on(name)
    with torch.no_grad():
        wanted, found, off = frozen(images()), model.features(images(), 0), model.features(images())
        merged = Scorer(model).nets[0](images())
    for other in (found, off):
        assert torch.equal(other.final, wanted.final)
        assert all(torch.equal(x, y) for x, y in zip(other.stages, wanted.stages, strict=True))
    # BatchNorm is folded into the convolutions there; without one, nothing differs
    rounding = 1e-6 if name in ("scnn", "resnet18") else 0
    torch.testing.assert_close(merged.final, wanted.final, rtol=0, atol=rounding)


@pytest.mark.parametrize("name", NAMED)
def test_merged_and_unmerged_are_the_network_with_numpys_sums(name: str) -> None:
    model, frozen = model_on(name, rank=3, alpha=6.0)
    draw_adapters(model.net, 0)
    sums = numpy_sums(model, 0, scale=2.0)
    state = frozen.state_dict()
    assert sums.keys() <= state.keys()
    with torch.no_grad():
        before = frozen(images()).final.clone()
        frozen.load_state_dict({n: torch.from_numpy(sums.get(n, t.numpy())).to(t) for n, t in state.items()})
        wanted, unmerged = frozen(images()).final, model.features(images(), 0).final
        merged = Scorer(model).nets[0](images()).final
    assert (wanted - before).norm(dim=1).min() > 0.01, "the adapters do something"
    for found in (unmerged, merged):
        assert ((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max() < 1e-6


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1), (2, 4, 9, 7)),
        (nn.Conv2d(4, 6, (3, 1), dilation=2, bias=False), (2, 4, 9, 7)),
        (nn.Linear(5, 7), (2, 3, 5)),
    ],
)
def test_a_layer_adds_what_two_small_layers_say_one_after_the_other(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """The paper's h = W x + (alpha / r) B A x; A of a convolution has its kernel, stride and padding."""
    layer = layer.double()
    plain = copy.deepcopy(layer)
    adapters = LowRank(rank=2, scale=1.5)
    parametrize.register_parametrization(layer, "weight", adapters)
    adapters.add_task(cast(Tensor, plain.weight))
    factors: Any = adapters.tasks[0]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        factors.up.normal_(generator=torch.Generator().manual_seed(3))
        if isinstance(plain, nn.Conv2d):
            down = factors.down.view(2, *plain.weight.shape[1:])
            narrow = functional.conv2d(x, down, None, plain.stride, plain.padding, plain.dilation)
            more = functional.conv2d(narrow, factors.up[:, :, None, None])
        else:
            more = x @ factors.down.T @ factors.up.T
        adapters.active = 0
        torch.testing.assert_close(layer(x), plain(x) + 1.5 * more, rtol=1e-12, atol=1e-12)
        adapters.active = None
        assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize(("where", "count"), [("all", 4), ("attention", 2), ("mlp", 1)])
def test_pytorchs_attention_and_depthwise_convolutions_have_adapters(where: Any, count: int) -> None:
    torch.manual_seed(0)
    net = AttentionNet().eval()
    frozen = copy.deepcopy(net)
    model = model_for(LoRA(where=where), net, 6, TRAINING).eval()
    model.add_task()
    assert len(list(adapted_weights(net))) == count
    with torch.no_grad():
        assert torch.equal(model.features(images(), 0).final, frozen(images()).final)
        draw_adapters(net, 0, size=1.0)
        changed = model.features(images(), 0).final
        assert (changed - frozen(images()).final).norm(dim=1).min() > 1e-3
        torch.testing.assert_close(Scorer(model).nets[0](images()).final, changed, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("scnn", "all"),
        ("vit_mini", "all"),
        ("vit_mini", "attention"),
        ("vit_mini", "mlp"),
        ("resnet18", "all"),
    ],
)
def test_a_task_stores_its_adapters_and_head_and_nothing_else(name: str, where: Any) -> None:
    model, _ = model_on(name, tasks=2, rank=2, where=where)
    own, backbone = model.own_state(), registry.load("backbones", name)
    assert all(n.startswith("heads.") or ".tasks." in n for n in own)
    added = sum(t.numel() for n, t in own.items() if n.startswith("heads.0") or ".tasks.0." in n)
    assert added == LoRA(rank=2, where=where).added_parameters(backbone)
    assert sum(t.numel() for t in own.values()) == 2 * added
    learnable = {id(p) for p in LoRA().trainable(model, 1, warmup=False)}
    assert {n for n, p in model.named_parameters() if id(p) in learnable} == {
        n for n in own if n.startswith("heads.1") or ".tasks.1." in n
    }


def test_the_numbers_that_docs_name() -> None:
    """S-CNN: nine convolutions; ViT-mini: four of the stem, four linear layers in each of six blocks."""
    convolutions = (
        (3, 48),
        (48, 48),
        (48, 64),
        (64, 64),
        (64, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 128),
    )
    scnn, vit = (registry.load("backbones", name) for name in ("scnn", "vit_mini"))
    assert LoRA().added_parameters(scnn) == 128 + 4 * sum(9 * i + o for i, o in convolutions) == 25068
    stem = sum(9 * i + o for i, o in ((3, 24), (24, 48), (48, 64), (64, 96)))
    attention, mlp = (96 + 288) + (96 + 96), 2 * (96 + 384)
    assert LoRA(rank=1).added_parameters(vit) == 96 + stem + 6 * (attention + mlp)
    assert LoRA(rank=1, where="attention").added_parameters(vit) == 96 + 6 * attention
    assert LoRA(where="mlp").added_parameters(vit) == 96 + 4 * 6 * mlp


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in registry.names("backbones") if n not in ("scnn", "vit_mini", "resnet18")]
)
def test_every_backbone_is_counted_right(name: str) -> None:
    if name == "clip_b32" and find_spec("open_clip") is None:
        pytest.skip("needs the extra open_clip")
    if name == "lite0" and find_spec("timm") is None:
        pytest.skip("needs timm")
    backbone, strategy = registry.load("backbones", name), LoRA(rank=2)
    with torch.device("meta"):
        net = backbone.network(None)
    model = model_for(strategy, net, backbone.feature_size, TRAINING)
    model.add_task()
    assert sum(t.numel() for t in model.own_state().values()) == strategy.added_parameters(backbone)


def test_what_a_task_learns_leaves_the_others_and_the_network_alone() -> None:
    strategy, short = LoRA(), replace(TRAINING, warmup_epochs=0, epochs=1)
    together, alone = new_model(strategy), new_model(strategy)
    frozen = {n: t.clone() for n, t in together.state_dict().items()}
    with tiny_sources(2) as sources:
        learner = learn(strategy, together, sources[:1], short)
        before = together.eval().score(images(), 0)
        learn(strategy, together, sources[1:], short, seen=sources[:1], learner=learner)
        learn(strategy, alone, sources[1:], short)
    assert torch.equal(together.eval().score(images(), 0), before)
    assert torch.equal(together.score(images(), 1), alone.eval().score(images(), 0))
    state = together.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in frozen.items())
    moved = [f for a in adapted_weights(together.net) for f in low_rank_of(a).tasks]
    assert len(moved) == 18 and all(bool(cast(Any, f).up.any()) for f in moved)


def test_first_values() -> None:
    model, _ = model_on("vit_mini", tasks=2)
    factors: list[Any] = [low_rank_of(a).tasks for a in adapted_weights(model.net)]
    for first, second in factors:
        bound = 1 / np.sqrt(first.down.shape[1])
        assert 0.8 * bound < first.down.abs().max() <= bound  # of 108 numbers at least
        assert abs(first.down.mean()) < 0.3 * bound
        assert not first.up.any()
        assert torch.equal(first.down, second.down), "all tasks start alike, whatever was learned before"
    qkv = [f[0].down for f in factors if f[0].up.shape[0] == 288]
    assert not torch.equal(qkv[0], qkv[1])


def test_what_is_refused() -> None:
    scnn, vit = (registry.load("backbones", name) for name in ("scnn", "vit_mini"))
    for where in ("attention", "mlp"):
        with pytest.raises(
            UserError, match=rf"lora.where={where}: S-CNN has no such layers; set lora.where=all"
        ):
            LoRA(where=cast(Any, where)).check_backbone(scnn)
        LoRA(where=cast(Any, where)).check_backbone(vit)
    for wrong, told in (
        ({"rank": 0}, "lora.rank must be at least 1"),
        ({"alpha": 0.0}, "lora.alpha must be above 0"),
    ):
        with pytest.raises(UserError, match=told):
            LoRA(**cast(Any, wrong))
