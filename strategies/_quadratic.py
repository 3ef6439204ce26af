"""What SI, MAS and EWC share: important weights are held near where the last task left them.

The penalty is `reg_weight * sum(omega * (theta - anchor)**2)` (published code, `reg_criterion`; without the
1/2 of the papers) over the backbone's parameters. Heads and the statistics of the normalisation are left out.

The published code drops a parameter whose penalty is not a number, and with it the gradient of all those
before it. Here nothing is dropped: a loss that is not finite stops the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.benchmarks.decoded import Batch
    from cliqa_bench.learning.learner import Learner

Named = dict[str, "Tensor"]

IMAGES = 8
"""Images (or pairs, with `training.pairs` "sampled") whose gradients are held at once: one backbone each."""


def numbers_at_once(device: str) -> int:
    """Returns how many numbers of the pairs' gradients are held at once: as many as a core's cache holds."""
    return 1 << 17 if device == "cpu" else 1 << 24


@dataclass
class Quadratic(Strategy):
    """A strategy with a quadratic penalty, whose `importance` says how much each weight matters.

    Attributes:
        reg_weight: Factor of the penalty; at least 0.
    """

    reg_weight: float = 1.0

    def __post_init__(self) -> None:
        """Starts without importances.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("reg_weight", least=0)
        self.omega: Named = {}
        self.anchor: Named = {}

    def importance(self, learner: Learner) -> Named:
        """Returns how much the task just learned needs each parameter; to be defined by the strategy."""
        raise NotImplementedError

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the quadratic penalty, from the second task on."""
        if not self.omega:
            return None
        weights = learning(learner)
        self.omega, self.anchor = match_layout(self.omega, weights), match_layout(self.anchor, weights)
        held = [(weights[name], omega, self.anchor[name]) for name, omega in self.omega.items()]
        return quadratic_penalty(self.reg_weight, *map(list, zip(*held, strict=True)))

    def consolidate(self, learner: Learner) -> None:
        """Adds the task's importances to those of earlier tasks, and remembers its weights."""
        new = self.importance(learner)
        self.omega = fixed({n: self.omega[n] + x if n in self.omega else x for n, x in new.items()})
        self.anchor = fixed(learning(learner))

    def state(self) -> Named:
        """Returns importances and remembered weights."""
        return joined({"omega": self.omega, "anchor": self.anchor})

    def load_state(self, state: Named) -> None:
        """Takes back what `state` returned."""
        self.omega, self.anchor = part(state, "omega"), part(state, "anchor")

    def progress(self) -> Named | None:
        """Returns nothing: between two experiences importances and remembered weights stay as they are."""
        return {}


@dataclass
class OnPairs(Quadratic):
    """A quadratic penalty whose importances are measured on pairs of the task's training images.

    Attributes:
        reg_weight: Factor of the penalty; at least 0.
        pairs: How many pairs the importances are averaged over; 0 for an epoch's pairs (published: all of the
            list), which takes about as long as an epoch of training.
    """

    pairs: int = 0

    def __post_init__(self) -> None:
        """Starts without importances.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("pairs", least=0)


def quadratic_penalty(
    factor: float, weights: list[Tensor], omegas: list[Tensor], anchors: list[Tensor]
) -> Tensor:
    """Returns `factor * sum(omega * (weight - anchor)**2)`; its gradient takes two passes over the weights.

    Left to autograd, every parameter would cost a dozen small operations and several copies of itself.

    Args:
        factor: Of the sum.
        weights: The parameters.
        omegas: Their importances.
        anchors: Where they are held.
    """
    import torch

    class PullBack(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *weights: Tensor) -> Tensor:
            ctx.away = torch._foreach_sub(weights, anchors)
            squares = torch._foreach_mul(ctx.away, ctx.away)
            torch._foreach_mul_(squares, omegas)
            parts = [square.sum() for square in squares]
            return factor * sum(parts[1:], parts[0])

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *grads: Tensor) -> Any:
            pulls = torch._foreach_mul(omegas, 2 * factor * grads[0])
            torch._foreach_mul_(pulls, ctx.away)
            return tuple(pulls)

    result: Tensor = PullBack.apply(*weights)
    return result


def learning(learner: Learner) -> dict[str, nn.Parameter]:
    """Returns the backbone's parameters that learn."""
    return {n: p for n, p in learner.model.net.named_parameters() if p.requires_grad}


def fixed(tensors: Mapping[str, Tensor]) -> Named:
    """Copies tensors, each in the memory layout it has."""
    return {n: t.detach().clone() for n, t in tensors.items()}


def match_layout(tensors: Named, like: Mapping[str, Tensor]) -> Named:
    """Gives tensors that were in a file the memory layout of others, where it is not theirs already.

    Between two layouts arithmetic is several times slower, and sums may have other last bits.
    """
    import torch

    return {
        n: t if t.stride() == like[n].stride() else torch.empty_like(like[n]).copy_(t)
        for n, t in tensors.items()
    }


def joined(groups: Mapping[str, Named]) -> Named:
    """Puts groups of tensors into one dictionary: "group.name" -> tensor."""
    return {f"{group}.{name}": t for group, tensors in groups.items() for name, t in tensors.items()}


def part(state: Named, group: str) -> Named:
    """Takes one group out of what `joined` put together."""
    return {n.removeprefix(f"{group}."): t for n, t in state.items() if n.startswith(f"{group}.")}


# -- importances that are measured on pairs ------------------------------------------------------------------

Value = Callable[["Tensor", "Batch"], "Tensor"]
"""From score differences (p,) and their mini-batch to the sum over the pairs of what is differentiated."""


def mean_pair_gradient(learner: Learner, value: Value, power: int, pairs: int) -> Named:
    """Returns the mean over training pairs of |d value / d theta|**power, for every parameter that learns.

    As published: the new head's, with the length it has in training, normalisation in evaluation mode, random
    crops and flips, float32. Pairs and crops are those of an epoch of their own, that follows the last one.

    Args:
        learner: The learner, at the end of an experience.
        value: What is differentiated.
        power: 1 (MAS) or 2 (EWC).
        pairs: How many pairs to use; 0 for all of the epoch's.
    """
    import torch

    from cliqa_bench.benchmarks.pixels.cache import to_float

    net = learner.model.net
    weights = {
        n: w.detach().clone(memory_format=torch.contiguous_format) for n, w in learning(learner).items()
    }
    head = next(learner.model.heads[learner.task].parameters()).detach()[0]

    def score(parameters: Named, image: Tensor) -> Tensor:
        features = torch.func.functional_call(net, parameters, (image[None],))
        result: Tensor = features.final[0].float() @ head
        return result

    def batches() -> Iterator[tuple[Tensor, Batch]]:
        for b in learner.source.train_batches(learner.training, learner.epoch, learner.seed, IMAGES):
            yield to_float(b.x.to(learner.device)), type(b)(*(t.to(learner.device) for t in b))

    return sum_over_pairs(score, weights, batches(), value, power, pairs)


def sum_over_pairs(
    score: Callable[[Named, Tensor], Tensor],
    weights: Named,
    batches: Iterable[tuple[Tensor, Batch]],
    value: Value,
    power: int,
    pairs: int = 0,
) -> Named:
    """Averages |d value / d theta|**power over pairs.

    The value of a pair depends on the weights through the difference of two scores alone, so its gradient is
    a number times the difference of the two images' gradients: one backward pass per image serves all pairs.

    Args:
        score: From parameters and one image to its score.
        weights: The parameters.
        batches: Images, (n, ...) each, and the pairs among them.
        value: What is differentiated.
        power: 1 or 2.
        pairs: How many pairs to use, 0 for all there are.
    """
    import torch

    total = {n: torch.zeros_like(w) for n, w in weights.items()}
    gradients = torch.func.vmap(torch.func.grad_and_value(score), in_dims=(None, 0))
    used = 0
    for images, batch in batches:
        if pairs:
            keep = pairs - used
            batch = batch._replace(
                first=batch.first[:keep], second=batch.second[:keep], labels=batch.labels[:keep]
            )
        of_image, scores = gradients(weights, images)
        difference = (scores[batch.first] - scores[batch.second]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(value(difference, batch), difference)
        columns = max(1, numbers_at_once(slope.device.type) // len(slope))
        for name, g in of_image.items():
            moved = []
            for part in g.flatten(1).split(columns, dim=1):
                of_pairs = (part[batch.first] - part[batch.second]).mul_(slope[:, None])
                moved.append(of_pairs.abs_().pow_(power).sum(0))
            total[name] += torch.cat(moved).view_as(total[name])
        used += len(slope)
        if used == pairs:
            break
    return {n: t / used for n, t in total.items()}
