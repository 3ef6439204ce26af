"""The sides of the scoring rows compute the same numbers; no test looks at a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import backbone_net, pictures_source, tsn_model
from cliqa_bench.bench.groups import score_speed
from cliqa_bench.bench.groups.score_speed import Limit, OurScoring
from cliqa_bench.bench.published_way import PublishedWay, Task, elsewhere
from cliqa_bench.benchmarks.decoded import DecodedDataset

SHAPES = [(40, 56), (56, 40), (40, 56), (48, 48), (40, 56)]


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions(device="cpu", precision="fp32", threads=1, repeats=1, folder=tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> DecodedDataset:
    return pictures_source(tmp_path / "pictures", SHAPES, "test")


def files(source: DecodedDataset) -> list[Path]:
    return [source.dataset.path(key) for key in source.keys("test")]


@pytest.mark.parametrize("backbone", ["scnn", "resnet18"])
def test_published_way_gives_our_scores(backbone: str, setting: Conditions, source: DecodedDataset) -> None:
    stages, scores = OurScoring(backbone, source, setting).score()
    their_stages, their_scores = PublishedWay(backbone).score_files(files(source))
    assert scores.shape == (len(SHAPES), 6)
    assert torch.allclose(scores, their_scores, atol=1e-4)
    assert torch.allclose(stages, their_stages, atol=1e-4)
    # tasks differ, and so do images: else equal scores would say nothing
    assert (scores.std(dim=1) > 1e-3).all()
    assert scores[:, 0].unique().numel() == len(SHAPES)


def test_published_way_shrinks_large_images_as_we_do(setting: Conditions, tmp_path: Path) -> None:
    source = pictures_source(tmp_path / "large", [(800, 960)], "test")
    assert source.cache.shapes.tolist() == [[768, 921]]
    ours = torch.from_numpy(source.cache.image(0).copy()).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ours = (ours - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(PublishedWay("scnn").read(files(source)[0])[0], ours, atol=1e-5)


def test_limit_computes_what_ours_does(setting: Conditions, source: DecodedDataset) -> None:
    ours = OurScoring("scnn", source, setting)
    places = [i for positions, _ in source.eval_batches("test", 1 << 20) for i in positions]
    limit = Limit(ours, 1 << 20).score()
    assert torch.allclose(limit, ours.heads()[places], atol=1e-5)


def test_ours_computes_what_the_model_says(setting: Conditions, source: DecodedDataset) -> None:
    model, net = tsn_model("scnn"), backbone_net("scnn").eval()
    stages, scores = OurScoring("scnn", source, setting).score()
    with torch.no_grad():
        for i, path in enumerate(files(source)):
            image = PublishedWay("scnn", model).read(path)
            assert torch.allclose(model(image)[0], scores[i], atol=1e-5)
            assert torch.allclose(torch.cat(net(image).stages, dim=1)[0], stages[i], atol=1e-5)


@pytest.mark.slow
def test_rows_from_end_to_end(setting: Conditions) -> None:
    row = score_speed.against_limit(setting, "scnn", SHAPES, "tiny")
    assert len(row.ours) == len(row.reference) == 1
    assert row.reach == 0.9
    row = score_speed.against_published(setting, "scnn", (40, 56), 2)
    assert len(row.ours) == len(row.reference) == 1
    assert min(*row.ours, *row.reference) > 0
    assert row.reach == 4


@pytest.mark.slow
def test_a_process_that_dies_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="ended with code 1"),
        elsewhere(Task(str(tmp_path), "no-such-backbone", "cpu", 1)),
    ):
        pass
