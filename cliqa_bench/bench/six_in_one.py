"""All tasks of TSN-IQA trained in one pass: the convolutions are the same, normalisation and heads are not.

Both ways take the tasks' mini-batches as one, and give every task the statistics of its own images. They
compute what as many trainings do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import NORMS, FeatureNet
from cliqa_bench.benchmarks.decoded import Batch
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import Training
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.models.views import replace_module

Arrangement = Literal["side by side", "interleaved"]
"""Of the images of a mini-batch: all of a task's images side by side, or the tasks' images in turn."""


class NormSideBySide(nn.Module):
    """Batch normalisation of every task's part of a mini-batch, task by task.

    Attributes:
        weight: (tasks, C) gammas.
        bias: (tasks, C) betas.
        mean: (tasks, C) means that outlast the mini-batch.
        var: (tasks, C) variances that do.

    Args:
        pristine: The layer that every task starts from.
        tasks: How many.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, pristine: nn.BatchNorm2d, tasks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(pristine.weight.detach().repeat(tasks, 1))
        self.bias = nn.Parameter(pristine.bias.detach().repeat(tasks, 1))
        assert pristine.running_mean is not None
        assert pristine.running_var is not None
        self.register_buffer("mean", pristine.running_mean.repeat(tasks, 1))
        self.register_buffer("var", pristine.running_var.repeat(tasks, 1))
        self.momentum, self.eps = pristine.momentum or 0.0, pristine.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (tasks * B, C, H, W)."""
        own = zip(self.mean, self.var, self.weight, self.bias, strict=True)
        parts = zip(x.chunk(len(self.weight)), own, strict=True)
        return torch.cat([self.normalised(part, *of_task) for part, of_task in parts])

    def normalised(self, x: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalises (B, C, H, W) by its own statistics, and has the kept ones follow."""
        return functional.batch_norm(x, mean, var, gamma, beta, True, self.momentum, self.eps)


class NormInterleaved(NormSideBySide):
    """The same in one operation: where a task's images come in turn, tasks are further channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B * tasks, C, H, W), contiguous."""
        tasks = len(self.weight)
        wide = x.contiguous().view(len(x) // tasks, tasks * x.shape[1], *x.shape[2:])
        own = (t.view(-1) for t in (self.mean, self.var, self.weight, self.bias))
        return self.normalised(wide, *own).view(x.shape)


NORM_OF: dict[Arrangement, type[NormSideBySide]] = {
    "side by side": NormSideBySide,
    "interleaved": NormInterleaved,
}


class SixInOne:
    """A bare loop that trains normalisation and head of every task at once.

    Args:
        net: A network with BatchNorm; it is changed, and trained.
        heads: (1, d) weight of each task's head.
        batches: For every task its mini-batches; all have as many images, and as many pairs.
        training: The protocol.
        rate: Learning rate.
        device: Where to train.
        layout: How the tasks' images are arranged in a mini-batch.
    """

    def __init__(
        self,
        net: FeatureNet,
        heads: Sequence[Tensor],
        batches: Sequence[Sequence[Batch]],
        training: Training,
        rate: float,
        device: torch.device,
        layout: Arrangement,
    ) -> None:
        self.training, self.device, self.layout = training, device, layout
        self.net = _with_norms(net.requires_grad_(False), NORM_OF[layout], len(heads)).to(device).train()
        if layout == "interleaved":
            self.net = self.net.to(memory_format=torch.contiguous_format)
        self.heads = nn.Parameter(torch.stack([head.detach()[0] for head in heads]).to(device))
        self.weights = [self.heads, *(p for p in self.net.parameters() if p.requires_grad)]
        self.adam = torch.optim.Adam(self.weights, rate, weight_decay=training.weight_decay, fused=True)
        kind = torch.bfloat16 if training.precision == "bf16" else torch.float32
        self.images = [
            self._together([b.x for b in of_tasks]).to(kind) for of_tasks in zip(*batches, strict=True)
        ]
        self.batches = [
            [Batch(*(part.to(device) for part in b)) for b in t] for t in zip(*batches, strict=True)
        ]

    def _together(self, crops: Sequence[Tensor]) -> Tensor:
        """Returns every task's images, (B, 3, H, W) each, as one mini-batch."""
        images = [to_float(x.to(self.device)) for x in crops]
        if self.layout == "side by side":
            return torch.cat(images).contiguous(memory_format=torch.channels_last)
        return torch.stack(images, dim=1).flatten(0, 1).contiguous()

    def epoch(self) -> None:
        """Trains an epoch of every task."""
        for images, of_tasks in zip(self.images, self.batches, strict=True):
            self.adam.zero_grad()
            torch.autograd.backward(self.loss(images, of_tasks))
            self.adam.step()

    def loss(self, images: Tensor, of_tasks: Sequence[Batch]) -> Tensor:
        """Returns the sum of the tasks' losses: each reaches what is its own alone."""
        scores = self.scores(images)
        parts = zip(scores, of_tasks, strict=True)
        slope = self.training.slope
        losses = [fidelity(pair_probability(s[b.first], s[b.second], slope), b.labels) for s, b in parts]
        return torch.stack(losses).sum()

    def scores(self, images: Tensor) -> Tensor:
        """Returns (tasks, B) scores of every task's images under its own head."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            final = self.net(images).final
        tasks = len(self.heads)
        if self.layout == "side by side":
            final = final.view(tasks, -1, final.shape[1])
        else:
            final = final.view(-1, tasks, final.shape[1]).transpose(0, 1)
        return torch.einsum("tbd,td->tb", final.float(), self.heads)


def _with_norms(net: FeatureNet, norm: type[NormSideBySide], tasks: int) -> FeatureNet:
    for name, module in list(net.named_modules()):
        if isinstance(module, NORMS):
            assert isinstance(module, nn.BatchNorm2d)
            replace_module(net, name, norm(module, tasks))
    return net
