"""The image tower of a CLIP, as a network that describes images of any size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import FeatureNet, Features
from cliqa_bench.benchmarks.pixels.cache import MEAN, STD
from cliqa_bench.errors import UserError
from cliqa_bench.results.weights import read_tensors

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VISUAL = "visual."
"""How the names of the image tower's weights begin."""


class ClipNet(FeatureNet):
    """The image tower; its stages end at 1/4, 2/4, 3/4 and 4/4 of its depth, averaged over the patches.

    Images whose sides are not multiples of a patch are padded with the mean colour, on the right and below.
    Where there are more patches, or fewer, than CLIP was trained with, positions are interpolated.

    Args:
        visual: open_clip's tower.
        text: Returns the weights of the text tower that belongs to it.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, visual: Any, text: Callable[[], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.visual = visual
        self._text = text
        # images come normalised as for ImageNet
        mean, std, clip_mean, clip_std = (torch.tensor(v) for v in (MEAN, STD, CLIP_MEAN, CLIP_STD))
        self.register_buffer("scale", (std / clip_std)[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - clip_mean) / clip_std)[:, None, None], persistent=False)

    def text_weights(self) -> Mapping[str, Tensor]:
        """See the base class; they are read, or drawn, each time."""
        return self._text()

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """See the base class."""
        return self.towered(images * self.scale + self.shift)

    def towered(self, images: Tensor) -> Features:
        """Returns the features, before they get unit length, of images normalised as CLIP's are."""
        tower, blocks = self.visual, self.visual.transformer.resblocks
        x = self._tokens(images)
        quarters = [math.ceil(len(blocks) * quarter / 4) for quarter in (1, 2, 3, 4)]
        means = {}
        for depth, block in enumerate(blocks, 1):
            x = block(x)
            if depth in quarters:
                means[depth] = x[:, 1:].mean(dim=1, dtype=torch.float32)
        final = tower.ln_post(x)[:, 0] @ tower.proj
        return Features(final, tuple(means[depth] for depth in quarters))

    def _tokens(self, images: Tensor) -> Tensor:
        """Returns the class token and those of the patches, (B, 1 + patches, width), with their positions."""
        tower = self.visual
        side = tower.conv1.stride[0]
        height, width = images.shape[2:]
        if height % side or width % side:
            images = functional.pad(images, (0, -width % side, 0, -height % side))
        patches = tower.conv1(images)
        rows, columns = patches.shape[2:]
        positions = tower.positional_embedding
        known = math.isqrt(len(positions) - 1)
        if (rows, columns) != (known, known):
            weights = _interpolation(known, rows, columns).to(positions)
            positions = torch.cat([positions[:1], weights @ positions[1:]])
        first = tower.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        tokens: Tensor = tower.ln_pre(x + positions.to(x.dtype))
        return tokens


@functools.lru_cache(maxsize=256)
def _interpolation(known: int, rows: int, columns: int) -> Tensor:
    """Returns what takes values on a grid (known ** 2,) to those on another (rows * columns,).

    A matrix, because the gradient of the interpolation itself has other bits on each run on a GPU.
    """
    with torch.inference_mode(False), torch.no_grad():
        single = torch.eye(known * known).view(1, known * known, known, known)
        spread = functional.interpolate(single, (rows, columns), mode="bicubic", antialias=True)
        return spread[0].flatten(1).T.contiguous()


def clip_net(sizes: Mapping[str, Any], weights: Path | None) -> ClipNet:
    """Builds the network.

    Args:
        sizes: What open_clip's `CLIP` is built from.
        weights: A safetensors file with the weights of a whole CLIP; None for random ones, which are a
            matter of the global generator's seed.
    """
    if weights is None:
        drawn = functools.partial(_drawn, sizes, torch.initial_seed())
        return ClipNet(_built(sizes).visual, drawn)
    visual = cast("nn.Module", _built(sizes).visual)
    state = _read(weights, visual=True)
    visual.load_state_dict({name.removeprefix(VISUAL): tensor for name, tensor in state.items()})
    return ClipNet(visual, functools.partial(_read, weights, visual=False))


def _built(sizes: Mapping[str, Any]) -> nn.Module:
    """Builds a CLIP, with both towers and QuickGELU, as OpenAI's have it."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision, text = CLIPVisionCfg(**sizes["vision_cfg"]), CLIPTextCfg(**sizes["text_cfg"])
    made: nn.Module = CLIP(sizes["embed_dim"], vision, text, quick_gelu=True)
    return made


def _drawn(sizes: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Returns the weights of the text tower that were drawn together with an image tower's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = _built(sizes).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(VISUAL)}


def _read(path: Path, visual: bool) -> dict[str, Tensor]:
    """Returns the weights of one of a file's two towers, in float32.

    Raises:
        UserError: If it is not a safetensors file, or does not hold that tower.
    """
    advice = "make it one with cliqa-bench weights convert"
    found = read_tensors(path, advice, lambda name: name.startswith(VISUAL) is visual)
    needed = "visual.proj" if visual else "text_projection"
    if needed not in found:
        raise UserError(
            f"{path} does not hold a whole CLIP under OpenAI's names: it has no {needed}; use "
            "open_clip_model.safetensors, or a file that cliqa-bench weights convert made"
        )
    return {name: tensor.float() for name, tensor in found.items()}
