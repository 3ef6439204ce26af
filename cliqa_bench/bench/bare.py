"""Bare training loops: what no implementation of a strategy can leave out, on tensors ready in memory.

They compute what the learner computes: after an epoch on the same mini-batches the weights agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliqa_bench.backbones.staged import NORMS, FeatureNet
from cliqa_bench.benchmarks.decoded import Batch
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import Training
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.models.folding import folded
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.lwf import distillation


class BareLoop:
    """Forward, backward and a fused Adam step over normalisation and head, which is all of TSN-IQA.

    Attributes:
        weights: What learns.

    Args:
        net: The network; it is trained.
        heads: (1, d) weights of every head, the newest last.
        batches: Mini-batches of an epoch, as the learner gets them.
        strategy: Whose rate and state.
        training: The protocol.
        device: Where to train.
    """

    def __init__(
        self,
        net: FeatureNet,
        heads: Sequence[Tensor],
        batches: Sequence[Batch],
        strategy: Strategy,
        training: Training,
        device: torch.device,
    ) -> None:
        self.net, self.heads = net.to(device).train().requires_grad_(False), list(heads)
        self.strategy, self.training, self.device = strategy, training, device
        self.weights = [w.requires_grad_() for w in self.learning()]
        rate = training.lr * strategy.main_rate
        self.adam = torch.optim.Adam(self.weights, rate, weight_decay=training.weight_decay, fused=True)
        kind = torch.bfloat16 if training.precision == "bf16" else torch.float32
        ready = [Batch(*(part.to(device) for part in batch)) for batch in batches]
        self.batches = [batch._replace(x=to_float(batch.x).to(kind)) for batch in ready]

    def learning(self) -> list[Tensor]:
        """Returns the parameters that learn."""
        norms = [m for m in self.net.plastic.modules() if isinstance(m, NORMS)]
        return [*(p for norm in norms for p in norm.parameters()), self.heads[-1]]

    def epoch(self) -> None:
        """Trains an epoch."""
        for batch in self.batches:
            self.adam.zero_grad()
            torch.autograd.backward(self.loss(batch, self.scores(self.net, self.heads, batch.x)))
            self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def scores(self, net: FeatureNet, heads: Sequence[Tensor], images: Tensor) -> Tensor:
        """Returns (B, heads) scores; features in the training's precision, heads in float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            final: Tensor = net(images).final
        scores: Tensor = final @ torch.cat(list(heads)).T
        return scores

    def loss(self, batch: Batch, scores: Tensor) -> Tensor:
        """Returns the fidelity loss of the mini-batch's pairs under the newest head."""
        newest = scores[:, -1]
        told = pair_probability(newest[batch.first], newest[batch.second], self.training.slope)
        return fidelity(told, batch.labels)

    def step(self) -> None:
        """Updates the weights."""
        self.adam.step()


class BareLwF(BareLoop):
    """In addition, the old model's forward pass on the same images; all weights and heads learn."""

    def learning(self) -> list[Tensor]:
        """Returns all weights; takes the copy that teaches, with fixed normalisation, folded."""
        with torch.no_grad():
            self.teacher = folded(self.net)
        self.old = [head.detach().clone() for head in self.heads[:-1]]
        return [*self.net.plastic.parameters(), *self.heads]

    def loss(self, batch: Batch, scores: Tensor) -> Tensor:
        """Adds the distillation loss of the old heads."""
        with torch.no_grad():
            old = self.scores(self.teacher, self.old, batch.x)
        weight = float(self.strategy.training_params()["reg_weight"])
        again = distillation(scores[:, :-1], old, batch.first, batch.second, self.training.slope)
        return super().loss(batch, scores) + weight * again


class BareSI(BareLoop):
    """In addition, the gradient of the quadratic penalty and the update of w, over all weights at once."""

    def learning(self) -> list[Tensor]:
        """Returns all weights and the newest head, the weights first."""
        named = dict(self.net.plastic.named_parameters())
        state, factor = self.strategy.state(), 2 * self.strategy.training_params()["reg_weight"]
        self.held: list[Tensor] = list(named.values())
        self.pull = [torch.empty_like(p).copy_(factor * state[f"omega.{n}"]) for n, p in named.items()]
        self.anchor = [torch.empty_like(p).copy_(state[f"anchor.{n}"]) for n, p in named.items()]
        self.before = [torch.empty_like(p) for p in self.held]
        self.path = [torch.zeros_like(p) for p in self.held]
        return [*self.held, self.heads[-1]]

    @torch.no_grad()
    def step(self) -> None:
        """Updates the weights, and w by what the step did to the loss."""
        gradients = [p.grad for p in self.held if p.grad is not None]
        away = torch._foreach_sub(self.held, self.anchor)
        torch._foreach_mul_(away, self.pull)
        torch._foreach_add_(gradients, away)
        torch._foreach_copy_(self.before, self.held)
        self.adam.step()
        moved = torch._foreach_sub(self.held, self.before)
        torch._foreach_mul_(moved, gradients)
        torch._foreach_sub_(self.path, moved)


LOOPS: dict[str, type[BareLoop]] = {"tsn": BareLoop, "lwf": BareLwF, "si": BareSI}
"""Strategy -> its bare loop."""
