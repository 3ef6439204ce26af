"""LIQE's head: it compares a picture's crops with every text, and turns the likeness into probabilities.

Zhang, Zhai, Wei, Yang, Ma: Blind image quality assessment via vision-language correspondence, a multitask
learning perspective. CVPR 2023. The features of the pictures may be those of any backbone; a small text tower
learns from nothing beside it. A backbone that was pre-trained with a text tower, such as `clip_b32`, brings
that along.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.aspects import QUALITIES, Tasks
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models.heads import RichHead
from cliqa_bench.models.texts import LONGEST, VOCABULARY, axes, tree_of

FIRST_SCALE = 100.0
"""What cosines are multiplied with where no text tower came along: as much as in the trained CLIP.

S-CNN needs one that large: where the scale learned, and ended at 18, it told the distortions of 40 of 100
validation images of KADID-10k's miniature, at 100 those of 54.
"""

KNOWN_TOWERS = 8
"""How many towers' text features a process remembers."""


class Marginals(NamedTuple):
    """Probabilities of each aspect; every row sums to 1.

    Attributes:
        quality: (B, 5), in the order of `aspects.QUALITIES`.
        scene: (B, 9), of `aspects.SCENES`; (B, 1) where the texts name no scene.
        distortion: (B, 11), of `aspects.DISTORTIONS`; (B, 1) where the texts name no distortion.
    """

    quality: Tensor
    scene: Tensor
    distortion: Tensor


class TextHead(RichHead):
    """Says how probable every combination of quality, scene and distortion is.

    The joint probability is the softmax, over all texts, of the cosine of picture and text, multiplied with
    a scale and averaged over the crops of a picture.

    Args:
        features: Length of the pictures' features.
        tasks: Which aspects the texts name.
        width: Width of the small text tower.
        layers: Its layers.

    Attributes:
        pretrained: Whether its tower came with the backbone.
        tower: The text tower.
        logit_scale: (), logarithm of what cosines are multiplied with. The published code never trains it.
    """

    def __init__(self, features: int, tasks: Tasks = "qsd", width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.tasks, self.axes, self.pretrained = tasks, axes(tasks), False
        self.tower = TextTower(features, width, layers, tasks=tasks)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self._features = _Remembered()

    def begin(self, net: FeatureNet) -> None:
        """Takes the text tower, and the scale, that the backbone was pre-trained with, if there is one."""
        weights = net.text_weights()
        self.pretrained = bool(weights)
        if weights:
            self.tower = TextTower.of_clip(weights, self.tasks)
            self.logit_scale = nn.Parameter(weights["logit_scale"].float().clone())

    def learnable(self, text: bool = True, scale: bool = False) -> list[nn.Parameter]:
        """Returns what may learn.

        Args:
            text: Whether the text tower does.
            scale: Whether the scale does.
        """
        return [*(self.tower.parameters() if text else ()), *([self.logit_scale] if scale else ())]

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logarithm of the joint probability.

        Args:
            features: (B, U, d) of U crops of each picture, or (B, d) of one.

        Returns:
            (B, 5, 9, 11); the axis of an aspect that the texts do not name has length 1.
        """
        crops = features if features.ndim == 3 else features[:, None]
        cosines = functional.normalize(crops, dim=2) @ self.text_features().T
        return self.log_joint(self.logit_scale.exp() * cosines)

    def log_joint(self, scaled: Tensor) -> Tensor:
        """Returns the same from scaled cosines, (B, U, texts): mean over crops first, softmax then."""
        joint: Tensor = scaled.mean(dim=1).log_softmax(dim=1).unflatten(1, self.axes)
        return joint

    def score(self, log_joint: Tensor) -> Tensor:
        """Returns the expected quality, (B,) in [1, 5]."""
        return expected_quality(self.marginals(log_joint).quality)

    def marginals(self, log_joint: Tensor) -> Marginals:
        """Returns the probabilities of each aspect."""
        joint = log_joint.exp()
        return Marginals(joint.sum(dim=(2, 3)), joint.sum(dim=(1, 3)), joint.sum(dim=(1, 2)))

    def text_features(self) -> Tensor:
        """Returns the features of the texts, (texts, d) of unit length.

        Outside training they are computed once for the same weights: all heads of a process share them.
        """
        if self.training or torch.is_grad_enabled():
            return functional.normalize(self.tower(), dim=1)
        return self._features.of(self.tower)

    def train(self, mode: bool = True) -> TextHead:
        """Drops cached text features: a fused optimiser changes weights without a trace."""
        self._features = _Remembered()
        super().train(mode)
        return self


def expected_quality(quality: Tensor) -> Tensor:
    """Returns the mean grade, (B,), under probabilities (B, 5); rounding leaves it in [1, 5]."""
    grades = torch.arange(1, len(QUALITIES) + 1, device=quality.device, dtype=quality.dtype)
    # no matrix product: autocast would round it, and tie images
    return (quality * grades).sum(dim=1).clamp(1, len(QUALITIES))


class TextTower(nn.Module):
    """CLIP's text tower, for the tokens that occur: a causal transformer whose last token gives the features.

    Its weights have OpenAI's names and shapes, but for the tables of tokens and of positions, which hold only
    the rows that are used.

    Args:
        features: Length of the features.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; 0 for one for every 32 of the width.
        tasks: Which aspects the texts name.
    """

    tokens: Tensor
    depths: Tensor
    paths: Tensor
    before: Tensor
    ends: Tensor

    def __init__(self, features: int, width: int, layers: int, heads: int = 0, tasks: Tasks = "qsd") -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(VOCABULARY), width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(LONGEST, width))
        heads = heads or max(1, width // 32)
        self.resblocks = nn.ModuleList(_Block(width, heads, layers) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, features))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self._set_texts(tasks)

    def _set_texts(self, tasks: Tasks) -> None:
        tree = tree_of(tasks)
        padded = [path + [0] * (LONGEST - len(path)) for path in tree.paths]
        before = torch.arange(LONGEST) <= torch.tensor(tree.depths)[:, None]
        for name, value in (
            ("tokens", torch.tensor(tree.tokens)),
            ("depths", torch.tensor(tree.depths)),
            ("paths", torch.tensor(padded)),
            ("before", before),
            ("ends", torch.tensor(tree.ends)),
        ):
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def of_clip(cls, weights: Mapping[str, Tensor], tasks: Tasks = "qsd", heads: int = 0) -> TextTower:
        """Makes the tower of a CLIP.

        Args:
            weights: The CLIP's weights under OpenAI's names; those of the image tower are ignored.
            tasks: Which aspects the texts name.
            heads: Attention heads; 0 for one for every 64 of the width, as in every CLIP of OpenAI.
        """
        width, features = weights["text_projection"].shape
        blocks = {name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")}
        tower = cls(features, width, len(blocks), heads or width // 64, tasks)
        own = {name: weights[_openai(name)].float() for name in tower.state_dict()}
        own["token_embedding.weight"] = own["token_embedding.weight"][list(VOCABULARY)]
        own["positional_embedding"] = own["positional_embedding"][:LONGEST]
        tower.load_state_dict(own)
        return tower

    def forward(self) -> Tensor:
        """Returns the features of the texts, (texts, features), before they get unit length."""
        x = self.token_embedding(self.tokens) + self.positional_embedding[self.depths]
        for block in self.resblocks:
            x = block(x, self.paths, self.before)
        ends: Tensor = self.ln_final(x[self.ends])
        return ends @ self.text_projection


def _openai(name: str) -> str:
    return f"transformer.{name}" if name.startswith("resblocks.") else name


class _Block(nn.Module):
    """A residual block of CLIP's text tower, over the nodes of a tree.

    Args:
        width: Width of a token.
        heads: Attention heads.
        layers: Blocks of the tower, which the first weights depend on.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        inner = {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.ModuleDict(inner)
        to_residual = (2 * layers * width) ** -0.5
        nn.init.normal_(self.attn.out_proj.weight, std=to_residual)
        nn.init.normal_(inner["c_fc"].weight, std=(2 * width) ** -0.5)
        nn.init.normal_(inner["c_proj"].weight, std=to_residual)

    def forward(self, x: Tensor, paths: Tensor, before: Tensor) -> Tensor:
        """Returns what becomes of tokens (nodes, width), see `_Attention`."""
        x = x + self.attn(self.ln_1(x), paths, before)
        hidden = self.mlp["c_fc"](self.ln_2(x))
        added: Tensor = self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))
        return x + added


class _Attention(nn.Module):
    """Attention of every node of a tree to those on the path to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(width**-0.5 * torch.randn(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, paths: Tensor, before: Tensor) -> Tensor:
        """Returns the attention's output (nodes, width).

        Args:
            x: (nodes, width).
            paths: (nodes, longest) the nodes on the path to each, then any.
            before: (nodes, longest) which of them count.
        """
        nodes, longest = paths.shape
        q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=1)
        k, v = (part.index_select(0, paths.flatten()).view(nodes, longest, -1) for part in (k, v))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (q[:, None], k, v))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (nodes, heads, 1 or longest, size)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=before[:, None, None])
        out: Tensor = self.out_proj(seen.reshape(nodes, -1))
        return out


class _Remembered:
    """The text features of the weights that a tower has at present.

    All of a process share what they found out: weights are identified by their content.
    """

    _known: OrderedDict[str, Tensor] = OrderedDict()

    def __init__(self) -> None:
        self._versions: list[tuple[int, int | None]] = []
        self._found: Tensor | None = None

    def __deepcopy__(self, memo: object) -> _Remembered:
        return _Remembered()  # the copy's weights are elsewhere

    def of(self, tower: TextTower) -> Tensor:
        """Returns a tower's text features, (texts, d) of unit length."""
        # what is made in inference mode counts no changes
        versions = [(p.data_ptr(), None if p.is_inference() else p._version) for p in tower.parameters()]
        uncounted = any(version is None for _, version in versions)
        if self._found is None or uncounted or versions != self._versions:
            self._versions, self._found = versions, self._by_content(tower)
        return self._found

    def _by_content(self, tower: TextTower) -> Tensor:
        known, key = self._known, _content(tower)
        if key not in known:
            known[key] = functional.normalize(tower(), dim=1)
            while len(known) > KNOWN_TOWERS:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]


def _content(tower: TextTower) -> str:
    """Returns a hash of all that a tower's features depend on."""
    tensors = [*tower.state_dict().values(), tower.tokens, tower.paths]
    heads = [block.attn.heads for block in tower.resblocks]  # type: ignore[union-attr]
    hashed = hashlib.blake2b(repr((heads, str(tower.tokens.device))).encode(), digest_size=16)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        hashed.update(repr((plain.dtype, tuple(plain.shape))).encode())
        hashed.update(plain.numpy().data)
    return hashed.hexdigest()
