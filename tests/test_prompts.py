"""L2P: prompts are chosen as Avalanche chooses them, the network is frozen, and one pass serves all heads."""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cliqa_bench.backbones.staged import TokenNet
from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution.work_size import cost
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.prompts import PromptPool, SharedPrompts, pool_of
from cliqa_bench.models.quality import QualityModel, load_tasks, model_for
from cliqa_bench.settings.resolve import resolve
from cliqa_bench.strategies.prompt import Prompt
from cliqa_bench.system.avalanche_import import importing_avalanche
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

with importing_avalanche():
    from avalanche.models.prompt import Prompt as AvalanchePrompt

pytestmark = pytest.mark.usefixtures("one_thread")
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pool_of_size(width: int = 8, pool: int = 7, length: int = 3, top: int = 4) -> PromptPool:
    torch.manual_seed(0)
    return PromptPool(width, pool, length, top)


class LastEpoch(Learner):
    """The last epoch is the best: of so few pictures, the warm-up might be."""

    def validate(self) -> float:
        return float(self.epoch)


def vit_model(tasks: int = 1, **params: Any) -> QualityModel:
    backbone = registry.load("backbones", "vit_mini")
    net = backbone.build("random", 5)
    model = model_for(Prompt(**params), net, backbone.feature_size, TRAINING)
    for _ in range(tasks):
        model.add_task()
    return model.eval()


# -- choosing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "top"), [(7, 4), (5, 5), (6, 1)])
def test_prompts_are_chosen_as_avalanche_chooses_them(pool: int, top: int) -> None:
    ours = pool_of_size(pool=pool, top=top)
    theirs = AvalanchePrompt(
        length=3,
        embed_dim=8,
        embedding_key="cls",
        prompt_pool=True,
        prompt_key=True,
        pool_size=pool,
        top_k=top,
    )
    with torch.no_grad():
        theirs.prompt_key.copy_(ours.keys)
        theirs.prompt.copy_(ours.prompts)
    queries, tokens = 30 * drawn(20, 8), drawn(20, 2, 8, seed=1)
    said = theirs(tokens, cls_features=queries)
    put = ours(queries)
    assert torch.equal(ours.select(queries)[1], said["prompt_idx"])
    assert torch.equal(torch.cat([put, tokens], dim=1), said["prompted_embedding"])
    assert said["total_prompt_len"] == put.shape[1] == 3 * top
    # the term of theirs is a similarity to be added, of ours a distance
    distance = ours.distance()
    torch.testing.assert_close(top - distance, said["reduce_sim"], rtol=0, atol=1e-5)
    (found,) = torch.autograd.grad(distance, ours.keys)
    (wanted,) = torch.autograd.grad(-said["reduce_sim"], theirs.prompt_key)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_choice_is_numpys_and_each_images_own() -> None:
    pool = pool_of_size()
    queries = drawn(9, 8)
    values, chosen = pool.select(queries)
    q, k = queries.numpy().astype(np.float64), pool.keys.detach().numpy().astype(np.float64)
    cosine = (q @ k.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(k, axis=1)
    wanted = np.argsort(-cosine, axis=1)[:, :4]
    np.testing.assert_array_equal(chosen, wanted)
    np.testing.assert_allclose(values.detach(), np.take_along_axis(cosine, wanted, 1), atol=1e-6)
    np.testing.assert_array_equal(
        pool(queries).detach(), pool.prompts.detach().numpy()[wanted].reshape(9, 12, 8)
    )
    for i in range(9):
        assert torch.equal(pool.select(queries[i : i + 1])[1][0], chosen[i])


def test_the_pull_moves_chosen_keys_towards_the_images_and_no_other() -> None:
    pool = pool_of_size(top=2)
    query = drawn(1, 8)
    pool(query)
    chosen = pool.select(query)[1][0].tolist()
    before = pool.select(query)[0].detach()
    (towards,) = torch.autograd.grad(pool.distance(), pool.keys)
    assert {i for i in range(7) if towards[i].any()} == set(chosen)
    with torch.no_grad():
        pool.keys.sub_(0.01 * towards)
    assert (pool.select(query)[0] > before).all()


def test_at_the_edges() -> None:
    pool = pool_of_size()
    with pytest.raises(ValueError, match="no images have been seen yet"):
        pool.distance()
    values, chosen = pool.select(torch.zeros(1, 8))
    assert torch.equal(values, torch.zeros(1, 4)) and len(set(chosen[0].tolist())) == 4
    with torch.no_grad():
        pool(drawn(2, 8))
    assert pool.queries is None, "images in testing are not those that keys are pulled to"
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool.select(drawn(5, 8))[0], pool_of_size().select(drawn(5, 8))[0])
    with pytest.raises(ValueError, match="StagedNet has no prompts"):
        pool_of(registry.load("backbones", "scnn").build("random"))


# -- in the network ------------------------------------------------------------------------------------------


def test_heads_read_the_mean_of_the_prompts_behind_the_last_normalisation() -> None:
    model = vit_model()
    net: Any = model.net
    images, pool = drawn(2, 3, 48, 64), pool_of(net)
    with torch.no_grad():
        tokens = net.stem(images).flatten(2).transpose(1, 2)
        x = tokens
        for block in net.blocks:
            x = block(x)
        query = net.norm(x).mean(dim=1)
        chosen = pool.select(query)[1]
        x = torch.cat([pool.prompts[chosen].reshape(2, 25, 96), tokens], dim=1)
        for block in net.blocks:
            x = block(x)
        wanted = net.norm(x)[:, :25].mean(dim=1)
        found = model.features(images)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.final, wanted, rtol=0, atol=1e-6)
    stage = x[:, 25:].mean(dim=1)
    torch.testing.assert_close(found.stages[3], stage / stage.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)


@needs_timm
@pytest.mark.parametrize("pooling", ["token", pytest.param("avg", marks=pytest.mark.slow)])
def test_the_tokens_of_timms_transformers_are_theirs(pooling: str) -> None:
    import timm

    from cliqa_bench.backbones._timm_net import TimmTokenNet, timm_net

    torch.manual_seed(0)
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "global_pool": pooling}
    model = timm.create_model("vit_tiny_patch16_224", depth=2, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # else a normalisation too many could not be told
                parameter.add_(0.3 * torch.randn(parameter.shape))
    net = timm_net(model, [0, 1]).eval()
    assert isinstance(net, TimmTokenNet) and net.width == 192
    images = drawn(2, 3, 40, 50)
    with torch.no_grad():
        after, stages = net.encode(net.embed(images))
        wanted = net.pooled(images, None)
        torch.testing.assert_close(net.summary(after), wanted.final, rtol=0, atol=1e-5)
        torch.testing.assert_close(stages[0][:, 1:].mean(dim=1), wanted.stages[0], rtol=0, atol=1e-5)
        SharedPrompts(6, 2, 3).install(net)
        prompted = net(images)
        put = pool_of(net)(wanted.final)
        x = net.encode(torch.cat([put, net.embed(images)], dim=1))[0][:, :6].mean(dim=1)
        x = model.fc_norm(x)
    torch.testing.assert_close(prompted.final, x / x.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


def test_all_heads_share_a_pass_and_a_scorer_is_a_snapshot() -> None:
    model = vit_model(tasks=3)
    with torch.no_grad():
        for seed, head in enumerate(model.heads.parameters()):
            head.normal_(generator=torch.Generator().manual_seed(seed))
        images = drawn(3, 3, 48, 48)
        scorer, scores = Scorer(model), model(images)
        assert len(scorer.nets) == 1 and scores.shape == (3, 3)
        torch.testing.assert_close(scorer(images), scores, rtol=0, atol=1e-6)
        before = scorer(images)
        pool_of(model.net).prompts.neg_()  # a shift would be taken away by LayerNorm
        assert torch.equal(scorer(images), before)
        assert not torch.allclose(model(images), scores, atol=1e-3)
        shared = dict(scorer.nets[0].named_parameters())
        assert shared["blocks.0.attn.qkv.weight"] is model.net.get_parameter("blocks.0.attn.qkv.weight")


def test_the_pool_alone_learns_and_is_stored() -> None:
    strategy = Prompt(main_rate=1.0)
    model = new_model(strategy)
    before = copy.deepcopy(model.state_dict())
    assert isinstance(model.net, TokenNet)
    with tiny_sources(1) as sources:
        learn(strategy, model, sources, kind=LastEpoch)
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"net.prompts.keys", "net.prompts.prompts"}
    assert model.own_state().keys() == {*moved, "heads.0.weight"}
    again = new_model(strategy)
    load_tasks(again, model.own_state(), Path("memory"))
    images = drawn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))


def test_without_the_pull_the_keys_stay() -> None:
    strategy = Prompt(pull=0.0)
    model = new_model(strategy)
    before = copy.deepcopy(model.state_dict())
    with tiny_sources(1) as sources:
        learn(strategy, model, sources, kind=LastEpoch)
    assert torch.equal(before["net.prompts.keys"], pool_of(model.net).keys)
    assert not torch.equal(before["net.prompts.prompts"], pool_of(model.net).prompts)


def test_first_values_are_a_matter_of_the_seed() -> None:
    first, again, other = (pool_of(new_model(Prompt(), seed).net) for seed in (0, 0, 1))
    assert torch.equal(first.prompts, again.prompts) and torch.equal(first.keys, again.keys)
    assert not torch.equal(first.prompts, other.prompts) and not torch.equal(first.keys, other.keys)
    assert first.prompts.shape == (10, 5, 96) and first.keys.shape == (10, 96)
    for drawn_values in (first.prompts, first.keys):
        assert 0.98 < float(drawn_values.detach().abs().max()) <= 1
        assert abs(float(drawn_values.detach().mean())) < 0.1


# -- what is refused, and what is said -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"length": 0}, "prompt.length must be at least 1"),
        ({"top": 0}, "prompt.top must be at least 1"),
        ({"prompts": 4}, r"prompt.prompts must be at least 5 \(prompt.top\)"),
        ({"pull": -0.1}, "prompt.pull must be at least 0"),
    ],
)
def test_values_out_of_range(params: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Prompt(**params)


def test_a_network_without_tokens_is_refused_before_anything_is_read(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "plan",
        "--strategy",
        "prompt",
        "--data",
        str(miniatures),
        "--out",
        str(tmp_path),
        "--orders",
        "live,bid",
    ]
    assert parser.main([*words, "--backbone", "scnn"]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "prompt needs a plain vision transformer, and S-CNN is not one; use --backbone vit_mini" in said
    with pytest.raises(UserError, match="StagedNet has no tokens"):
        model_for(Prompt(), registry.load("backbones", "scnn").build("random"), 128, TRAINING)
    if find_spec("timm"):
        with pytest.raises(UserError, match="transformer, and resnet10t is not one"):
            Prompt().check_backbone(registry.load("backbones", "timm:resnet10t"))


def test_all_strategies_are_those_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    of = {name: resolve({"strategy": "all", "backbone": name}).strategy for name in ("scnn", "vit_mini")}
    assert "prompt" not in of["scnn"] and "prompt" in of["vit_mini"]
    assert {"lora", "tsn"} <= set(of["scnn"])
    assert (
        "--strategy all leaves out prompt: prompt needs a plain vision transformer" in capsys.readouterr().err
    )


def test_each_head_costs_two_passes_of_which_all_share_both() -> None:
    vit = registry.load("backbones", "vit_mini")
    assert cost(vit, Prompt(), 6)["passes"] == {"last": 2, "gate": 3, "oracle": 2}
    assert cost(vit, Prompt(), 6)["task_parameters"] == 96
