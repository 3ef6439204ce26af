"""SI: weights are important as far as they lowered the loss on their way (Zenke et al., ICML 2017).

As in the code of TSN-IQA (protocol of the -KG baselines), after each optimiser step of the main stage
`w -= gradient * (theta_new - theta_old)`; at the end of a task `omega += w / ((theta - theta_start)**2 +
damping)`, where w belongs to the best epoch, as theta does. Where the best epoch lies in the warm-up nothing
moved and w is 0; the published code crashes there. Its mixed-precision steps can turn w into nan for good (an
overflown gradient times a skipped step); bfloat16 needs no loss scale, so there are no such steps here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.strategies._quadratic import Named, Quadratic, fixed, joined, learning, match_layout, part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.learning.learner import Learner


@dataclass
class SI(Quadratic):
    """Synaptic intelligence.

    Attributes:
        reg_weight: Factor of the penalty (published code).
        damping: Keeps the division finite; above 0 (published code).
        gradient: Which one w adds up: of the "total" loss (published code), or of the "task" loss, without
            the penalty (Zenke et al.).
        clamp: Whether a negative importance counts as 0; not so in the published code.
    """

    rows: ClassVar[dict[str, str]] = {"last": "SI", "gate": "SI-KG", "oracle": "SI-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "F. Zenke, B. Poole, S. Ganguli: Continual learning through synaptic intelligence. ICML 2017",
        "W. Zhang, D. Li, C. Ma, G. Zhai, X. Yang, K. Ma: Continual learning for blind image quality "
        "assessment. IEEE TPAMI 45(3), 2864-2878, 2023",
    )

    reg_weight: float = 1000.0
    damping: float = 0.1
    gradient: Literal["total", "task"] = "total"
    clamp: bool = False

    def __post_init__(self) -> None:
        """Starts without importances.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("damping", above=0)
        self._path: Named = {}
        self._start: Named = {}
        self._last: Named = {}

    def after_warmup(self, learner: Learner) -> None:
        """Remembers where the way starts: the backbone has not moved yet."""
        self._start, self._last = fixed(learning(learner)), fixed(learning(learner))

    def after_step(self, learner: Learner) -> None:
        """Adds what the step did to the loss, to first order."""
        import torch

        weights = learning(learner)
        self._path = match_layout(self._path, weights) or {n: torch.zeros_like(w) for n, w in weights.items()}
        self._last = match_layout(self._last, weights)
        weights = {n: w for n, w in weights.items() if w.grad is not None}
        names, now = list(weights), [w.detach() for w in weights.values()]
        path, before = [self._path[n] for n in names], [self._last[n] for n in names]
        if not names:
            return
        raised = torch._foreach_sub(now, before)
        torch._foreach_mul_(raised, self._gradients(weights, before))
        torch._foreach_sub_(path, raised)
        torch._foreach_copy_(before, now)

    def _gradients(self, weights: Mapping[str, nn.Parameter], before: list[Tensor]) -> list[Tensor]:
        """Returns the gradients that w adds up: the parameters hold those of the total loss."""
        gradients = [w.grad for w in weights.values() if w.grad is not None]
        if self.gradient == "total" or not self.omega:
            return gradients
        factor = 2 * self.reg_weight
        pulls = [factor * self.omega[n] * (b - self.anchor[n]) for n, b in zip(weights, before, strict=True)]
        return [gradient - pull for gradient, pull in zip(gradients, pulls, strict=True)]

    def importance(self, learner: Learner) -> Named:
        """Returns w over the squared way, damped; the weights are those of the best epoch."""
        weights, path = learning(learner), self._path
        self._path = {}
        new = {
            name: path.get(name, 0 * start) / ((weights[name].detach() - start) ** 2 + self.damping)
            for name, start in self._start.items()
        }
        return {n: o.clamp(min=0) for n, o in new.items()} if self.clamp else new

    def state(self) -> Named:
        """Returns importances, remembered weights, and w while a task is being learned."""
        return super().state() | joined({"path": fixed(self._path)})

    def load_state(self, state: Named) -> None:
        """Takes back what `state` returned."""
        super().load_state(state)
        self._path = fixed(part(state, "path"))

    def progress(self) -> Named | None:
        """Returns where the way started."""
        return joined({"start": self._start})

    def load_progress(self, progress: Named, learner: Learner) -> None:
        """Takes back where the way started; the last step led to where the weights are."""
        self._start = {n: t.to(learner.device) for n, t in part(progress, "start").items()}
        self._last = fixed(learning(learner))
