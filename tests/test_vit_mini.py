"""ViT-mini: what it computes is PyTorch's own transformer; where its weights came from, what they know."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from cliqa_bench.backbones.staged import NORMS
from cliqa_bench.benchmarks.generated.distortions import PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.extensions import registry

pytestmark = pytest.mark.usefixtures("one_thread")
vit_mini = registry.load("backbones", "vit_mini")


def as_pytorch(block: Any) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(96, 3, 384, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    names = {
        "self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias,
        "self_attn.out_proj.weight": block.attn.proj.weight, "self_attn.out_proj.bias": block.attn.proj.bias,
        "linear1.weight": block.mlp.fc1.weight, "linear1.bias": block.mlp.fc1.bias,
        "linear2.weight": block.mlp.fc2.weight, "linear2.bias": block.mlp.fc2.bias,
        "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
        "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
    }  # fmt: skip
    layer.load_state_dict(names)
    return layer


def test_it_is_pytorchs_transformer_on_tokens_without_positions() -> None:
    net: Any = vit_mini.build("random", 1).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (
            parameter
        ) in net.parameters():  # weights at which attention looks at some tokens more than at others
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
        images = torch.randn(2, 3, 50, 70, generator=draw)
        x = images
        for convolution in (m for m in net.stem if isinstance(m, nn.Conv2d)):
            x = functional.conv2d(x, convolution.weight, convolution.bias, stride=2, padding=1)
            x = x if convolution is net.stem[-1] else functional.gelu(x)
        assert x.shape == (2, 96, 4, 5)  # a token for each 16 x 16 pixels, or a part of them
        x, means = x.flatten(2).transpose(1, 2), []
        for block in net.blocks:
            x = as_pytorch(block)(x)
            means.append(functional.normalize(x.mean(dim=1), dim=1))
        final = functional.normalize(
            functional.layer_norm(x, (96,), net.norm.weight, net.norm.bias).mean(1), dim=1
        )
        found = net(images)
    torch.testing.assert_close(found.final, final, rtol=0, atol=1e-5)
    for stage, depth in zip(found.stages, (2, 3, 5, 6), strict=True):
        torch.testing.assert_close(stage, means[depth - 1], rtol=0, atol=1e-5)


def test_its_numbers() -> None:
    net = vit_mini.build("random")
    norms = [p.numel() for m in net.modules() if isinstance(m, NORMS) for p in m.parameters()]
    assert sum(norms) == 2 * vit_mini.norm_channels
    assert sum(p.numel() for p in net.parameters()) == vit_mini.n_parameters
    assert not list(net.buffers()), "no statistics"
    found = net(torch.zeros(1, 3, 33, 33))
    assert tuple(s.shape[1] for s in found.stages) == vit_mini.stage_sizes
    assert found.final.shape[1] == vit_mini.feature_size


def pooled(net: Any, name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    pictures = (distort(reference(seed, (128, 96)), name, 3, rng) for seed in range(900, 900 + count))
    images = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found: np.ndarray = net(to_float(images)).final.numpy()
    return found


def test_the_shipped_weights_tell_distortions_apart() -> None:
    path = vit_mini.weights_file(None)
    assert path.stat().st_size < 3.2e6
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["command"] == "python -m cliqa_bench pretrain --backbone vit_mini"
    net = vit_mini.build(None).eval()
    types = [n for n, level in PRETRAIN_CLASSES if level == 3]
    features = np.stack([pooled(net, name, 12) for name in types])
    # the nearest mean of the first half's features names the type of the second half's
    means = features[:, :6].mean(1)
    distance = np.linalg.norm(features[:, 6:, None] - means, axis=-1)
    right = (distance.argmin(-1) == np.arange(len(types))[:, None]).mean()
    assert right > 0.6, f"{right:.2f} right of {len(types)} types; chance is {1 / len(types):.2f}"
