"""The decoder of SS-IQA's published code: what it computes, what reads it, and when it learns."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.cli import parser
from cliqa_bench.config import PRESETS, named
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.quality import QualityModel, model_for
from cliqa_bench.models.query_decoder import QueryDecoder, SharedDecoder, decoder_of
from cliqa_bench.strategies._exemplars import look
from cliqa_bench.strategies.ssiqa import SSIQA
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")

Floats = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoder(width: int = 128, queries: int = 3) -> QueryDecoder:
    """Returns one whose every weight counts."""
    made = QueryDecoder(width, queries)
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.add_(0.2 * drawn(*parameter.shape, seed=seed))
    return made.eval()


# -- ten lines of numpy --------------------------------------------------------------------------------------


def normalised(x: Floats, layer: nn.LayerNorm) -> Floats:
    weight, bias = array(layer.weight), array(layer.bias)
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(x.var(axis=-1, keepdims=True) + layer.eps) * weight + bias)


def attended(asked: Floats, shown: Floats, layer: nn.MultiheadAttention) -> Floats:
    assert layer.in_proj_weight is not None
    weights, biases = np.split(array(layer.in_proj_weight), 3), np.split(array(layer.in_proj_bias), 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((asked, shown, shown), weights, biases, strict=True))
    heads = []
    for part in np.split(np.arange(q.shape[1]), layer.num_heads):
        likeness = np.exp(q[:, part] @ k[:, part].T / math.sqrt(len(part)))
        heads.append(likeness / likeness.sum(axis=1, keepdims=True) @ v[:, part])
    return np.concatenate(heads, axis=1) @ array(layer.out_proj.weight).T + array(layer.out_proj.bias)


def gelu(x: Floats) -> Floats:
    return np.asarray(x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2)


def array(tensor: Tensor) -> Floats:
    return tensor.detach().double().numpy()


def by_hand(made: QueryDecoder, summary: Floats, patches: Floats) -> Floats:
    """Returns what one image's summary (d,) and patches (n, d) become."""
    layer = made.layer
    x = array(made.queries) + summary
    seen = normalised(x, layer.norm1)
    x = x + attended(seen, seen, layer.self_attn)
    x = x + attended(normalised(x, layer.norm2), patches, layer.multihead_attn)
    hidden = gelu(normalised(x, layer.norm3) @ array(layer.linear1.weight).T + array(layer.linear1.bias))
    x = x + hidden @ array(layer.linear2.weight).T + array(layer.linear2.bias)
    return np.asarray((x @ array(made.shorten.weight).T).mean(axis=0))


# -- what it computes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 6])
def test_it_is_a_decoder_layer_whose_queries_look_at_the_patches(queries: int) -> None:
    made = decoder(queries=queries)
    summary, patches = drawn(2, 128, seed=20), drawn(2, 5, 128, seed=21)
    with torch.no_grad():
        found = made(summary, patches)
    assert found.shape == (2, 64) and made.layer.self_attn.num_heads == 2
    for image in range(2):
        wanted = by_hand(made, array(summary[image]), array(patches[image]))
        np.testing.assert_allclose(array(found[image]), wanted, rtol=0, atol=1e-4)
        assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (96, 1), (192, 3), (32, 1), (130, 2)])
def test_its_heads_are_those_of_the_published_width(width: int, heads: int) -> None:
    made = QueryDecoder(width, 6)
    assert made.layer.multihead_attn.num_heads == made.layer.self_attn.num_heads == heads
    assert made.layer.linear1.out_features == 4 * width and made.shorten.weight.shape == (width // 2, width)
    assert "shorten.bias" not in made.state_dict()
    assert made.layer.norm_first and made.layer.dropout.p == 0


def test_first_weights_are_small_and_a_matter_of_the_seed() -> None:
    first, again, other = (
        decoder_of(model_for(SSIQA(decoder=6), vit(), 96, TRAINING, seed).net) for seed in (0, 0, 1)
    )
    for (name, weight), same, another in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(weight, same)
        if weight.ndim > 1:
            assert not torch.equal(weight, another) and 0.01 < float(weight.detach().std()) < 0.03, name
        else:
            assert set(weight.tolist()) == ({0.0} if name.endswith("bias") else {1.0}), name


# -- in a network --------------------------------------------------------------------------------------------


def vit() -> Any:
    return registry.load("backbones", "vit_mini").build("random", 5)


def decoded_model() -> QualityModel:
    model = model_for(SSIQA(decoder=2), vit(), 96, TRAINING)
    model.add_task()
    net = cast("Any", model.net)
    net.decoder = decoder(96, 2)
    return model.eval()


def test_heads_read_the_decoder_and_the_gate_what_it_read_before() -> None:
    model, images = decoded_model(), drawn(2, 3, 48, 64)
    net: Any = model.net
    with torch.no_grad():
        found = model.features(images)
        made, net.decoder = net.decoder, None
        without = model.features(images)
        tokens = net.norm(through(net, images))
    for image in range(2):
        wanted = by_hand(made, array(tokens[image]).mean(axis=0), array(tokens[image]))
        np.testing.assert_allclose(
            array(found.final[image]), wanted / np.linalg.norm(wanted), rtol=0, atol=1e-5
        )
    assert model.feature_size == found.final.shape[1] == 48
    for ours, plain in zip(found.stages, without.stages, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


def through(net: Any, images: Tensor) -> Tensor:
    tokens: Tensor = net.embed(images)
    for block in net.blocks:
        tokens = block(tokens)
    return tokens


@needs_timm
def test_of_timms_transformers_it_adds_the_class_token_and_reads_the_patches() -> None:
    import timm

    from cliqa_bench.backbones._timm_net import timm_net

    torch.manual_seed(0)
    options = {"dynamic_img_size": True, "dynamic_img_pad": True}
    net = timm_net(timm.create_model("vit_tiny_patch16_224", depth=2, **options), [0, 1]).eval()
    images = drawn(2, 3, 40, 50)
    with torch.no_grad():
        tokens = net.model.forward_features(images * net.scale + net.shift)
        plain = net(images)
        SharedDecoder(2).install(net)
        cast("Any", net).decoder = made = decoder(192, 2)
        found = net(images)
    wanted = by_hand(made, array(tokens[0, 0]), array(tokens[0, 1:]))
    np.testing.assert_allclose(array(found.final[0]), wanted / np.linalg.norm(wanted), rtol=0, atol=1e-4)
    for ours, before in zip(found.stages, plain.stages, strict=True):
        torch.testing.assert_close(ours, before, rtol=0, atol=1e-5)


def test_a_scorer_and_what_the_regression_reads_go_through_it() -> None:
    model, images = decoded_model(), drawn(3, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(Scorer(model)(images), model(images), rtol=0, atol=1e-6)
    strategy = SSIQA(decoder=2, warmup_rate=1.0, main_rate=1.0)
    with tiny_sources(1) as (source,):
        learner = learn(strategy, new_model(strategy), [source])
        seen = look(learner, source)
    assert seen.features.shape[1] == 48
    np.testing.assert_allclose(np.linalg.norm(seen.features, axis=1), 1, rtol=0, atol=1e-5)


# -- in the strategy -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_keeps_the_contract() -> None:
    check_strategy(SSIQA(decoder=2, k1=4, k2=4))


def test_it_learns_from_the_warm_up_on() -> None:
    model = decoded_model()
    strategy = SSIQA(decoder=2)
    ours = {id(p) for p in decoder_of(model.net).parameters()}
    assert ours < {id(p) for p in strategy.trainable(model, 0, warmup=True)}
    warm = {id(p) for p in strategy.trainable(model, 0, warmup=True)}
    assert warm == ours | {id(p) for p in model.heads[0].parameters()}
    assert ours < {id(p) for p in strategy.trainable(model, 0, warmup=False)}
    assert {name for name in model.own_state() if name.startswith("net.decoder.")}
    plain = new_model(SSIQA())
    plain.add_task()
    heads = [id(p) for p in plain.heads[0].parameters()]
    assert [id(p) for p in SSIQA().trainable(plain, 0, warmup=True)] == heads


def test_without_it_nothing_is_renamed() -> None:
    assert "decoder" not in named(SSIQA, SSIQA().experience_params(0))
    assert named(SSIQA, SSIQA(decoder=6).experience_params(0))["decoder"] == 6
    assert SSIQA().view() is None
    with pytest.raises(ValueError, match="ViTNet has no decoder"):
        decoder_of(vit())


def test_what_has_no_tokens_is_refused(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--strategy", "ssiqa", "--set", "ssiqa.decoder=6", "--orders", "live,bid"]
    assert parser.main([*words, "--data", str(miniatures), "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "ssiqa.decoder needs a plain vision transformer, and S-CNN is not one" in told
    with pytest.raises(UserError, match=r"ssiqa\.decoder must be at least 0"):
        SSIQA(decoder=-1)
    older = vit()
    del older.decoder
    with pytest.raises(UserError, match="ViTNet has no attribute 'decoder'; set it to None"):
        SharedDecoder(2).install(older)
    scnn = registry.load("backbones", "scnn")
    with pytest.raises(UserError, match="StagedNet has no tokens for a decoder"):
        model_for(SSIQA(decoder=6), scnn.build("random", 0), scnn.feature_size, PRESETS["quick"])
