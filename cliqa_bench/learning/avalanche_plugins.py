"""Avalanche's own plug-ins in our `Learner`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from cliqa_bench.errors import UserError
from cliqa_bench.seeds import seed_for
from cliqa_bench.system.avalanche_parts import SupervisedPlugin, plugins

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner


def plugin_class(name: str) -> type[SupervisedPlugin]:
    """Returns a plug-in's class by its name in Avalanche: the one of this module, else Avalanche's."""
    found: type[SupervisedPlugin] = globals().get(name) or getattr(plugins, name)
    return found


class SynapticIntelligencePlugin(plugins.SynapticIntelligencePlugin):
    """Avalanche's, with the weights really copied, and the path of the weights that are kept.

    On a CPU, what it keeps as the weights before a step and at the start of an experience are views of the
    weights themselves (avalanche-lib 0.6.0, `extract_weights`): they never differ from them, every importance
    is 0 and so is the penalty. And since the best epoch's weights come back at the end, what later epochs
    added to the path is taken back, too.
    """

    def before_training_exp(self, strategy: Learner, **kwargs: Any) -> None:
        """Copies the weights at the start of the experience."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])
        self._path = self._trajectory()

    def before_training_iteration(self, strategy: Learner, **kwargs: Any) -> None:
        """Copies the weights before the step."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])

    def after_training_epoch(self, strategy: Learner, **kwargs: Any) -> None:
        """Keeps the path of the best epoch so far."""
        super().after_training_epoch(strategy, **kwargs)
        if strategy.best_epoch == strategy.epoch:
            self._path = self._trajectory()

    def after_training_exp(self, strategy: Learner, **kwargs: Any) -> None:
        """Consolidates the path of the weights that are kept."""
        for name, path in self._path.items():
            self.syn_data["trajectory"][name].data = path
        super().after_training_exp(strategy, **kwargs)

    def _trajectory(self) -> dict[str, torch.Tensor]:
        return {name: kept.data.clone() for name, kept in self.syn_data["trajectory"].items()}


def _copy(weights: dict[str, Any]) -> None:
    for kept in weights.values():
        kept.data = kept.data.clone()


class AGEMPlugin(plugins.AGEMPlugin):
    """Avalanche's, with a reference gradient of pairs within a dataset, under the head of their dataset.

    Avalanche's puts the images of all memories into one loss under the newest head: scores of different
    datasets, in different units, would be compared, and earlier heads not be protected. It also puts the
    network into training mode for good, so that statistics move which the protocol holds still (`bn_adapts`);
    here the network is in evaluation mode for the memory.

    Args:
        patterns_per_experience: Images of each experience in the memory.
        sample_size: Images of the memory in a reference gradient, an equal share of each experience.

    Raises:
        UserError: If one is less than a pair.
    """

    def __init__(self, patterns_per_experience: int, sample_size: int) -> None:
        if min(patterns_per_experience, sample_size) < 2:
            raise UserError("AGEMPlugin: patterns_per_experience and sample_size must be at least 2 (a pair)")
        super().__init__(patterns_per_experience, sample_size)

    def before_training_iteration(self, strategy: Learner, **kwargs: Any) -> None:
        """Takes the reference gradient."""
        if self.buffers:
            self.reference_gradients = _gradient(strategy, self.sample_from_memory())

    def after_backward(self, strategy: Learner, **kwargs: Any) -> None:
        """Projects the gradient; Avalanche's assumes that its parts are contiguous, which fails on a GPU."""
        for weight in strategy.model.parameters():
            if weight.grad is not None:
                weight.grad = weight.grad.contiguous()
        super().after_backward(strategy, **kwargs)

    def update_memory(self, dataset: Any, num_workers: int = 0, **kwargs: Any) -> None:
        """Adds images of an experience to the memory.

        Raises:
            UserError: If a reference gradient would have less than a pair of each experience.
        """
        if self.sample_size < 2 * (n := len(self.buffers) + 1):
            raise UserError(
                f"AGEMPlugin: a sample_size of {self.sample_size} has no pair of each of {n} datasets; "
                f"set it to at least {2 * n}"
            )
        super().update_memory(dataset, num_workers, **kwargs)


class GEMPlugin(plugins.GEMPlugin):
    """Avalanche's, with gradients of pairs under the head of their dataset, and SciPy's solver.

    Avalanche's scores the images of earlier datasets with the newest head. Its projection is a quadratic
    problem with one unknown for each earlier experience, for which it needs the package quadprog. It can also
    be written as non-negative least squares, which SciPy solves.

    Args:
        patterns_per_experience: Images of each experience in the memory.
        memory_strength: The smallest weight that a memory's gradient gets; 0.5 in the paper.

    Raises:
        UserError: If an experience has less than a pair in the memory.
    """

    def __init__(self, patterns_per_experience: int, memory_strength: float) -> None:
        if patterns_per_experience < 2:
            raise UserError("GEMPlugin: patterns_per_experience must be at least 2 (a pair)")
        super().__init__(patterns_per_experience, memory_strength)

    def before_training_iteration(self, strategy: Learner, **kwargs: Any) -> None:
        """Takes the gradient of every earlier experience."""
        if self.memory_x:
            parts = (self.memory_x, self.memory_y, self.memory_tid)
            memories = zip(*(part.values() for part in parts), strict=True)
            self.G = torch.stack([_gradient(strategy, memory) for memory in memories])

    def solve_quadprog(self, g: Tensor) -> Tensor:
        """Projects a gradient."""
        projected = project(g.double().cpu().numpy(), self.G.double().cpu().numpy(), self.memory_strength)
        return torch.from_numpy(projected).float()


def project(
    gradient: NDArray[np.float64], memories: NDArray[np.float64], margin: float
) -> NDArray[np.float64]:
    """Projects a gradient so that it goes along those of memories (Lopez-Paz and Ranzato, 2017, Eq. 11).

    The dual problem is min v' P v / 2 + (G g)' v for v >= margin, with P = G G' + 0.001. For v = margin + u
    and a Cholesky factor L of P, that is the least squares of L' u + L^-1 (G g + P margin) for u >= 0.

    Args:
        gradient: (p,) g.
        memories: (t, p) G, one row a memory.
        margin: The smallest weight of a memory's gradient.

    Returns:
        (p,) the gradient with v times the memories' added.
    """
    P = memories @ memories.T + 1e-3 * np.eye(len(memories))
    L = np.linalg.cholesky(P)
    least = np.full(len(memories), margin)
    weights = least + nnls(L.T, -np.linalg.solve(L, memories @ gradient + P @ least))[0]
    projected: NDArray[np.float64] = gradient + weights @ memories
    return projected


def _gradient(learner: Learner, memory: Sequence[Tensor]) -> Tensor:
    """Returns the gradient (p,) of a memory's loss; 0 for what does not learn.

    It leaves no trace: no gradient, and no image of an earlier dataset in the statistics of normalisation.
    """
    training = [module for module in learner.model.net.modules() if module.training]
    learner.model.net.eval()
    learner.optimizer.zero_grad()
    learner.memory_loss(memory).backward()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.model.parameters()]
    learner.optimizer.zero_grad()
    for module in training:
        module.training = True
    return torch.cat([part.reshape(-1) for part in parts])


class EarlyStoppingPlugin(SupervisedPlugin):
    """Ends an experience when the validation SRCC has not risen for some epochs after the warm-up.

    Avalanche's waits for an evaluation during training, which the learner does not make. The best epoch is
    what stays in any case: this saves time, and nothing else.

    Args:
        patience: Epochs to wait for a better one.

    Raises:
        UserError: If that is less than one.
    """

    def __init__(self, patience: int) -> None:
        super().__init__()
        if patience < 1:
            raise UserError(f"EarlyStoppingPlugin: patience must be at least 1, not {patience}")
        self.patience = patience

    def before_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Stops instead of beginning an epoch."""
        since = strategy.epoch - max(strategy.best_epoch, strategy.training.warmup_epochs)
        if since >= self.patience:
            strategy.stop_training()


class AfterWarmUp:
    """Lets an Avalanche plug-in see only what comes after the warm-up of every experience.

    In the warm-up a new head finds its place and nothing else learns. A plug-in would take that for the
    learning of the experience, and `SynapticIntelligencePlugin` would not know what learns later. So
    `before_training_exp` comes with the first epoch after the warm-up (without one, at the end), and
    nothing that happens in the epochs before is passed on.

    Where plug-ins draw random numbers they use the global generators; these are seeded again for every
    experience, from names, so that a run that trains an experience again gets the same bits.

    Args:
        plugin: The plug-in.
    """

    def __init__(self, plugin: SupervisedPlugin) -> None:
        self.plugin = plugin
        self._begun = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Passes on whatever else Avalanche calls, unless it belongs to the warm-up."""
        if not name.startswith(("before_", "after_")):
            raise AttributeError(name)

        def passed_on(learner: Learner, **kwargs: Any) -> None:
            if not learner.warming_up:
                getattr(self.plugin, name)(learner, **kwargs)

        return passed_on

    def before_training_exp(self, learner: Learner, **kwargs: Any) -> None:
        """Waits for the end of the warm-up."""
        self._begun = False

    def before_training_epoch(self, learner: Learner, **kwargs: Any) -> None:
        """Begins with the first epoch after the warm-up."""
        if not learner.warming_up:
            self._begin(learner, **kwargs)
            self.plugin.before_training_epoch(learner, **kwargs)

    def after_training_exp(self, learner: Learner, **kwargs: Any) -> None:
        """Lets the plug-in consolidate what was learned; the best weights are back by then."""
        self._begin(learner, **kwargs)
        # ReplayPlugin calls what Avalanche deprecates, and says so whatever the filters are
        with warnings.catch_warnings(record=True) as said:
            self.plugin.after_training_exp(learner, **kwargs)
        for warning in said:
            if not issubclass(warning.category, DeprecationWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _begin(self, learner: Learner, **kwargs: Any) -> None:
        if not self._begun:
            self._begun = True
            names = [source.name for source in learner.sources]
            seed = seed_for("plug-in", type(self.plugin).__name__, *names, learner.seed)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            self.plugin.before_training_exp(learner, **kwargs)
