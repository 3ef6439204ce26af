"""The texts of LIQE, the text tower, and the head that compares a picture with them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliqa_bench.aspects import COARSE, DISTORTIONS, QUALITIES, SCENES
from cliqa_bench.backbones.staged import FeatureNet, Features
from cliqa_bench.models import text_head
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.quality import QualityModel, load_tasks
from cliqa_bench.models.text_head import TextHead, TextTower, expected_quality
from cliqa_bench.models.texts import VOCABULARY, rows_of, texts, tree_of

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS: Any = ("qsd", "qs", "qd", "q")

SUMS = 7e-7
"""Three times the largest distance from 1 that a sum of probabilities was seen to have: 2.4e-7."""


def golden(shared: Path, name: str) -> Any:
    return np.load(shared / "golden" / "liqe" / f"{name}.npz")


# -- texts ---------------------------------------------------------------------------------------------------


def test_words_texts_and_tokens_are_the_published_ones(shared: Path) -> None:
    published = golden(shared, "texts")
    assert published["quality"].tolist() == list(QUALITIES)
    assert published["scenes"].tolist() == list(SCENES)
    assert published["distortions"].tolist() == list(DISTORTIONS)
    pairs = zip(published["fine"].tolist(), published["fine_to_coarse"].tolist(), strict=True)
    assert list(COARSE.items()) == list(pairs)
    assert texts("qsd") == published["texts"].tolist()
    padded = [row + [0] * (77 - len(row)) for row in rows_of("qsd")]
    np.testing.assert_array_equal(padded, published["tokens"])


def test_the_texts_of_fewer_tasks() -> None:
    assert texts("q") == [f"a photo with {q} quality" for q in QUALITIES]
    assert texts("qs")[:2] == [
        "a photo of a animal, which is of bad quality",
        "a photo of a cityscape, which is of bad quality",
    ]
    assert texts("qs")[9] == "a photo of a animal, which is of poor quality"
    assert texts("qd")[10:12] == [
        "a photo with other artifacts, which is of bad quality",
        "a photo with jpeg2000 compression artifacts, which is of poor quality",
    ]
    assert [len(texts(tasks)) for tasks in TASKS] == [495, 45, 55, 5]


@pytest.mark.parametrize("tasks", TASKS)
def test_tokens_are_those_of_clips_tokenizer(tasks: Any) -> None:
    tokenizer = pytest.importorskip("open_clip", reason="the extra [clip] is not installed").tokenizer
    expected = tokenizer.SimpleTokenizer()(texts(tasks)).tolist()
    assert [row + [0] * (77 - len(row)) for row in rows_of(tasks)] == expected


@pytest.mark.parametrize("tasks", TASKS)
def test_the_tree_holds_every_text_and_no_beginning_twice(tasks: Any) -> None:
    tree, rows = tree_of(tasks), rows_of(tasks)
    assert [[VOCABULARY[tree.tokens[node]] for node in tree.paths[end]] for end in tree.ends] == rows
    beginnings = {tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)}
    assert len(tree.tokens) == len(tree.depths) == len(tree.paths) == len(beginnings)
    assert tree.depths == [len(path) - 1 for path in tree.paths]
    assert [path[-1] for path in tree.paths] == list(range(len(tree.paths)))


# -- the tower -----------------------------------------------------------------------------------------------


def tiny_clip(shared: Path) -> dict[str, Tensor]:
    """Returns the weights of the golden CLIP; its table of tokens gets the size that CLIP's has."""
    published = golden(shared, "tiny_clip")
    found = {n[2:]: torch.from_numpy(published[n]).float() for n in published.files if n.startswith("w.")}
    table = torch.zeros(49408, 32)
    table[published["vocab"]] = found["token_embedding.weight"]
    return {**found, "token_embedding.weight": table}


def by_rows(weights: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """Returns the features of padded rows of tokens (n, 77), as the published class computes them."""
    width = weights["ln_final.weight"].shape[0]
    mask = torch.full((77, 77), -torch.inf).triu(1)

    def part(module: nn.Module, name: str) -> nn.Module:
        module.load_state_dict({k: weights[f"{name}.{k}"] for k in module.state_dict()})
        return module

    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    for layer in range(len({name.split(".")[2] for name in weights if name.startswith("transformer.")})):
        block = f"transformer.resblocks.{layer}"
        y = part(nn.LayerNorm(width), f"{block}.ln_1")(x)
        attention = part(nn.MultiheadAttention(width, heads, batch_first=True), f"{block}.attn")
        x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = part(nn.LayerNorm(width), f"{block}.ln_2")(x)
        y = part(nn.Linear(width, 4 * width), f"{block}.mlp.c_fc")(y)
        x = x + part(nn.Linear(4 * width, width), f"{block}.mlp.c_proj")(y * torch.sigmoid(1.702 * y))
    x = part(nn.LayerNorm(width), "ln_final")(x)
    ends: Tensor = x[torch.arange(len(x)), tokens.argmax(dim=1)]
    return ends @ weights["text_projection"]


def openai_weights(tower: TextTower, seed: int = 0) -> dict[str, Tensor]:
    """Returns random weights of a whole text tower of that size, under OpenAI's names."""
    random = torch.Generator().manual_seed(seed)
    width = len(tower.text_projection)
    own = {text_head._openai(name): tensor.shape for name, tensor in tower.state_dict().items()}
    own |= {"token_embedding.weight": (49408, width), "positional_embedding": (77, width)}
    drawn = {name: 0.3 * torch.randn(*shape, generator=random) for name, shape in own.items()}
    return {**drawn, "logit_scale": torch.tensor(3.0)}


@pytest.mark.parametrize("tasks", TASKS)
def test_the_tower_is_clips_whatever_pads_a_row(tasks: Any) -> None:
    weights = openai_weights(TextTower(6, 64, 2))
    tower = TextTower.of_clip(weights, tasks, heads=2)
    rows = torch.tensor([row + [0] * (77 - len(row)) for row in rows_of(tasks)])
    with torch.no_grad():
        found, expected = tower(), by_rows(weights, rows, 2)
    assert float(expected.std(0).min()) > 0.01
    # largest difference seen: 9.6e-7
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.8e-6)


def test_what_texts_share_gets_the_gradients_of_all_of_them() -> None:
    weights = openai_weights(TextTower(6, 64, 2))
    names = ("token_embedding.weight", "positional_embedding", "text_projection")
    leaves = {name: weights[name].clone().requires_grad_(True) for name in names}
    rows = torch.tensor([row + [0] * (77 - len(row)) for row in rows_of("qsd")])
    tower = TextTower.of_clip(weights, heads=2)
    weighted = torch.randn(495, 6, generator=torch.Generator().manual_seed(1))
    (tower() * weighted).sum().backward()
    (by_rows({**weights, **leaves}, rows, 2) * weighted).sum().backward()
    expected = [leaves[name].grad for name in names]
    assert expected[0] is not None
    assert expected[1] is not None
    expected[0], expected[1] = expected[0][list(VOCABULARY)], expected[1][:24]
    for name, wanted in zip(names, expected, strict=True):
        found = tower.get_parameter(name).grad
        assert found is not None
        assert wanted is not None
        scale = float(wanted.abs().max())
        # largest difference seen: 1.2e-6
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=3.6e-6)


def test_text_features_are_the_golden_ones(shared: Path) -> None:
    tower = TextTower.of_clip(tiny_clip(shared), heads=2)
    with torch.no_grad():
        found = tower()
    expected = golden(shared, "tiny_clip")["text_features"]
    # largest difference seen: 1.6e-6
    np.testing.assert_allclose(found, expected, rtol=0, atol=4.8e-6)


# -- the head ------------------------------------------------------------------------------------------------


def test_joint_marginals_and_score_are_the_golden_ones(shared: Path) -> None:
    published, head = golden(shared, "joint"), TextHead(16)
    log_joint = head.log_joint(torch.from_numpy(published["logits_per_crop"]))
    np.testing.assert_allclose(log_joint.exp(), published["joint"], rtol=0, atol=1.1e-8)  # seen: 3.8e-9
    for name, found in head.marginals(log_joint)._asdict().items():
        np.testing.assert_allclose(found, published[f"p_{name}"], rtol=0, atol=9e-8)  # seen: 3e-8
    np.testing.assert_allclose(head.score(log_joint), published["score"], rtol=0, atol=2.1e-6)  # seen: 7.2e-7


class Given(FeatureNet):
    """A backbone with a text tower whose images are their features."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = weights
        self.place = nn.Parameter(torch.zeros(()))

    def text_weights(self) -> dict[str, Tensor]:
        return self.weights

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        return Features(images.flatten(1), (images.flatten(1),))


def model_of(weights: dict[str, Tensor], features: int, tasks: Any = "qsd", seed: int = 0) -> QualityModel:
    return QualityModel(Given(weights), features, seed=seed, new_head=lambda d: TextHead(d, tasks))


def test_scores_of_golden_features_are_the_golden_ones(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = golden(shared, "tiny_clip")
    monkeypatch.setattr(TextTower, "of_clip", heads_of_two(TextTower.of_clip))
    model = model_of(tiny_clip(shared), 16)
    task = model.add_task()
    head = model.eval().heads[task]
    assert isinstance(head, TextHead)
    assert head.pretrained and not TextHead(16).pretrained
    assert head.logit_scale.item() == float(published["w.logit_scale"])
    with torch.no_grad():
        log_joint = head(torch.from_numpy(published["test_image_features"]))
        scores = model.head(task, torch.from_numpy(published["test_image_features"]))
    # largest differences seen: 1.7e-7, 3.6e-7 and 9.6e-7
    np.testing.assert_allclose(log_joint.exp().flatten(1), published["test_joint"], rtol=0, atol=5e-7)
    for name, found in head.marginals(log_joint)._asdict().items():
        np.testing.assert_allclose(found, published[f"test_p_{name}"], rtol=0, atol=1.1e-6)
    np.testing.assert_allclose(scores, published["test_score"], rtol=0, atol=2.9e-6)


def heads_of_two(of_clip: Any) -> Any:
    """The golden CLIP's attention heads are narrower than those of any CLIP that was published."""
    return staticmethod(lambda weights, tasks: of_clip(weights, tasks, heads=2))


@pytest.mark.parametrize("tasks", TASKS)
def test_probabilities_sum_to_one_and_scores_lie_between_the_grades(tasks: Any) -> None:
    model = model_of({}, 12, tasks)
    head = model.heads[model.add_task()]
    assert isinstance(head, TextHead)
    features = torch.randn(7, 3, 12, generator=torch.Generator().manual_seed(3))
    for scale in (0.0, 6.0):
        with torch.no_grad():
            head.logit_scale.fill_(scale)
            log_joint = head(features)
        sizes = (5, 9 if "s" in tasks else 1, 11 if "d" in tasks else 1)
        assert log_joint.shape == (7, *sizes)
        np.testing.assert_allclose(log_joint.exp().sum((1, 2, 3)), 1, rtol=0, atol=SUMS)
        for size, marginal in zip(sizes, head.marginals(log_joint), strict=True):
            assert marginal.shape == (7, size)
            np.testing.assert_allclose(marginal.sum(1), 1, rtol=0, atol=SUMS)
        assert 1 <= float(head.score(log_joint).min()) <= float(head.score(log_joint).max()) <= 5
    assert model.head(0, features[:, 0]).shape == (7,)  # one crop each


def test_a_head_starts_from_its_seed_and_is_stored_with_the_model() -> None:
    one, same, other = (model_of({}, 8, seed=seed) for seed in (1, 1, 2))
    for model in (one, same, other):
        model.add_task()
    states = [model.own_state() for model in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(
        states[0]["heads.0.tower.text_projection"], states[2]["heads.0.tower.text_projection"]
    )
    loaded = model_of({}, 8, seed=2)
    load_tasks(loaded, states[0], Path("memory"))
    images = torch.randn(3, 8, 1, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), one.eval()(images))
    assert {name for name in states[0] if "heads" in name and "resblocks" not in name} == {
        f"heads.0.{name}"
        for name in (
            "logit_scale", "tower.token_embedding.weight", "tower.positional_embedding",
            "tower.text_projection", "tower.ln_final.weight", "tower.ln_final.bias",
        )
    }  # fmt: skip


def test_what_may_learn() -> None:
    head = TextHead(8)
    everything = {id(p) for p in head.parameters()}
    assert {id(p) for p in head.learnable(text=True, scale=True)} == everything
    assert {id(p) for p in head.learnable()} == everything - {id(head.logit_scale)}
    assert head.learnable(text=False) == []
    head(torch.randn(4, 2, 8))[:, 0, 0, 0].sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in head.parameters())


# -- text features are worked out once -----------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a tower works out its texts; nothing is remembered from other tests."""
    counted: list[int] = []
    plain = TextTower.forward

    def counting(self: TextTower) -> Tensor:
        counted.append(1)
        return plain(self)

    monkeypatch.setattr(TextTower, "forward", counting)
    text_head._Remembered._known.clear()
    return counted


def test_texts_are_worked_out_once_for_the_same_weights(passes: list[int]) -> None:
    model = model_of({}, 8)
    model.add_task()
    images = torch.randn(3, 8, 1, 1)
    model.eval()
    with torch.inference_mode():
        first = model(images)
        again = [model(images), Scorer(model)(images), copy.deepcopy(model)(images)]
    twin = model_of({}, 8)
    load_tasks(twin, model.own_state(), Path("memory"))
    with torch.no_grad():
        again.append(twin.eval()(images))
    assert len(passes) == 1
    for other in again:
        np.testing.assert_allclose(other, first, rtol=0, atol=SUMS)


@pytest.mark.parametrize("how", ["in place", "loaded", "optimiser", "frozen"])
def test_changed_weights_are_noticed(passes: list[int], how: str) -> None:
    model = model_of({}, 8)
    model.add_task()
    images = torch.randn(3, 8, 1, 1)
    head = model.eval().heads[0]
    assert isinstance(head, TextHead)
    with torch.no_grad():
        before = model(images)
    if how == "in place":
        with torch.no_grad():
            head.tower.get_parameter("resblocks.1.ln_2.weight")[3].add_(1.5)
    elif how == "loaded":
        model.load_state_dict(model_of_seed(5).state_dict())
    elif how == "frozen":
        with torch.no_grad():
            head.logit_scale.add_(1)
    else:
        model.train()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
        model(images).sum().backward()
        optimiser.step()
        model.eval()
    with torch.no_grad():
        after = model(images)
    fresh = model(images).detach()  # where something may learn, texts are worked out anew
    assert float((after - before).abs().max()) > 1e-4
    torch.testing.assert_close(after, fresh, rtol=0, atol=SUMS)


def model_of_seed(seed: int) -> QualityModel:
    model = model_of({}, 8, seed=seed)
    model.add_task()
    return model


def test_under_autocast_scores_are_not_rounded() -> None:
    quality = torch.rand(200, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        scores = expected_quality(quality)
    assert scores.dtype == torch.float32
    # largest difference seen: 1.1e-7
    np.testing.assert_allclose(scores, quality.numpy().astype(np.float64) @ np.arange(1, 6), rtol=3.3e-7)
