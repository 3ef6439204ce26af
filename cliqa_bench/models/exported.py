"""A model as one network for other programs: pixels in; score, weights, heads and distances out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cliqa_bench.benchmarks.pixels.cache import MEAN, STD
from cliqa_bench.models.gated import Gate, GatedScorer

INPUT = "pixels"
"""Name of what goes in."""


class WholeModel(nn.Module):
    """What a `GatedScorer` computes, as a graph without choices: every head runs, all in float32.

    Args:
        scorer: The model.

    Attributes:
        outputs: Names of what `forward` returns.
    """

    scale: Tensor
    shift: Tensor
    centre: Tensor
    unit: Tensor

    def __init__(self, scorer: GatedScorer) -> None:
        super().__init__()
        self.heads = nn.ModuleList(scorer.heads)
        self.gate = None if scorer.gate is None else _GateGraph(scorer.gate)
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None])
        self.register_buffer("shift", (-mean / std)[:, None, None])
        known = [v.astype(np.float64) for v in scorer.validation]  # see `readouts.standardised`
        self.standard = bool(known)
        self.register_buffer("centre", torch.tensor([v.mean() for v in known]).float())
        self.register_buffer("unit", torch.tensor([v.std() or 1.0 for v in known]).float())
        self.outputs = ["score", "weights", "heads", *(["distances"] if self.gate else [])]
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Scores images.

        Args:
            pixels: (N, H, W, 3) uint8, red, green, blue.

        Returns:
            score (N,), weights (N, tasks), heads (N, tasks) and, with a gate, distances (N, tasks, stages);
            float32.
        """
        images = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        first: Any = self.heads[0]
        fixed = first.fixed(images)
        said = torch.cat([head(images, fixed) for head in self.heads], dim=1)
        if self.standard:
            said = (said - self.centre) / self.unit
        if self.gate is None:  # the newest head
            weights = torch.cat([torch.zeros_like(said[:, :-1]), torch.ones_like(said[:, -1:])], dim=1)
            return said[:, -1], weights, said
        weights, distances = self.gate(images)
        return (weights * said).sum(dim=1), weights, said, distances


class _GateGraph(nn.Module):
    """What a `Gate` computes, in float32 and with operations that every runtime has."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.net, self.stages, self.tau, self.tasks = gate.net, gate.stages, gate.tau, len(gate.centroids)
        for task, of_stages in enumerate(gate.centroids):
            for stage in self.stages:
                self.register_buffer(self._name(task, stage), of_stages[stage].float())
                if gate.scales:
                    self.register_buffer(f"scales_{task}_{stage}", gate.scales[task][stage].float())
        self.scaled = bool(gate.scales)

    @staticmethod
    def _name(task: int, stage: int) -> str:
        return f"centroids_{task}_{stage}"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns weights (N, tasks) and distances (N, tasks, stages) of images (N, 3, H, W)."""
        features: Sequence[Tensor] = self.net.gate_features(images)
        per_stage = []
        for stage in self.stages:
            x = features[stage][:, None]
            near = []
            for task in range(self.tasks):
                centroids: Tensor = getattr(self, self._name(task, stage))
                told = x * getattr(self, f"scales_{task}_{stage}") if self.scaled else x
                near.append((told - centroids).square().sum(dim=2).sqrt().amin(dim=1))
            per_stage.append(torch.stack(near, dim=1))
        distances = torch.stack(per_stage, dim=2)
        return torch.softmax(-self.tau * distances, dim=1).mean(dim=2), distances
