"""What a strategy is: hyper-parameters, and what it does before, during and after an experience.

A strategy imports no Avalanche: importing that costs about five seconds, which `list`, `plan` and a run with
nothing left to do must not pay. The learner (or any Avalanche template) takes it as `strategy.as_plugin()`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cliqa_bench.config import default_of
from cliqa_bench.errors import UserError
from cliqa_bench.part_names import is_unlabelled
from cliqa_bench.types import Dependence, GateSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.benchmarks.pixels.windows import Windows
    from cliqa_bench.config import Training
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.models.views import TaskView
    from cliqa_bench.seeds import Rng
    from cliqa_bench.system.avalanche_parts import SupervisedPlugin


def reading(default: Any) -> Any:
    """Declares a hyper-parameter that only matters when answers are read: no training depends on it."""
    return field(default=default, metadata={"reading": True})


def answering(default: Any) -> Any:
    """Declares a hyper-parameter of a transductive strategy that its answers depend on, and no training."""
    return field(default=default, metadata={"reading": True, "answering": True})


@dataclass
class Strategy:
    """A way of learning one dataset after the other. Its fields are its hyper-parameters.

    Class attributes:
        cumulative: Whether an experience is all datasets so far, the new one last, instead of one dataset.
        resumable: Whether `state` is all that later experiences need besides the weights. Where it is not,
            what was learned lives in memory alone, and a resumed run trains earlier experiences again.
        skips_unlabelled: Whether it leaves the model as it is where a dataset has no opinion scores for
            training. Without it, and without `targets`, an order with such a dataset is refused.
        by_gradient: Whether it learns in epochs of gradient steps; where not, `finish` does it all.
        transductive: Whether it adapts to the test images, without their labels, before it scores them; see
            `adapt`. Its answers may depend on the batch then, and its rows have sections of their own.
        passes: Passes through the network behind the answer of one head.
        rows: Readout -> the name of its row in the tables; see `table_rows`.
        citation: What `cite` prints for it: `A. Author, B. Author: Title. Venue, 2026`, or several.

    Attributes:
        centroids: K of the gate's K-means.
        tau: Temperature of the gate's softmin (Eq. 8).
        stages: Stages whose distances the gate averages (Eq. 9), counted from 1; none for the backbone's own
            choice, the paper's 3 and 4 where it has them.
        gate_bn: Normalisation of the gate's features: "distortion" (distortion-aware, Section III-C) or
            "imagenet" (as the backbone was pre-trained; an ablation of Table VII). Where the backbone itself
            was pre-trained on distortions, as S-CNN was, both are the same.
        warmup_rate: Factor of the protocol's learning rate in the warm-up; above 0.
        main_rate: The same after the warm-up. The paper gives the rate of TSN-IQA alone (1e-3); what trains
            the whole network has 2e-4 and, after the warm-up, 2e-5 in the published code.

    Example:
        >>> from cliqa_bench.strategies.lwf import LwF
        >>> LwF(reg_weight=1.0).variant()
        'reg_weight=1.0'
        >>> LwF().table_rows()
        {'last': 'LwF', 'gate': 'LwF-KG', 'oracle': 'LwF-O'}
    """

    cumulative: ClassVar[bool] = False
    resumable: ClassVar[bool] = True
    skips_unlabelled: ClassVar[bool] = False
    by_gradient: ClassVar[bool] = True
    transductive: ClassVar[bool] = False
    passes: ClassVar[int] = 1
    rows: ClassVar[dict[str, str]]
    citation: ClassVar[str | tuple[str, ...]] = ""
    name: ClassVar[str]

    centroids: int = reading(128)
    tau: float = reading(32.0)
    stages: tuple[int, ...] = reading(())
    gate_bn: Literal["distortion", "imagenet"] = reading("distortion")
    warmup_rate: float = 0.2
    main_rate: float = 0.02

    def __init_subclass__(cls) -> None:
        """Names the strategy after its file.

        Raises:
            UserError: If it says what is said differently since 0.1.0.
        """
        super().__init_subclass__()
        cls.name = cls.__module__.rpartition(".")[2]
        if "task_norms" in vars(cls):
            raise UserError(f"{cls.__name__}.task_norms: since 0.2.0 it is own_features; rename it")

    def __post_init__(self) -> None:
        """Checks the learning rates.

        Raises:
            UserError: If one is not above 0.
        """
        self.require("warmup_rate", above=0)
        self.require("main_rate", above=0)

    def require(
        self,
        name: str,
        *,
        least: float = -math.inf,
        above: float = -math.inf,
        below: float | None = None,
        why: str = "",
    ) -> None:
        """Checks a hyper-parameter; for `__post_init__`.

        Args:
            name: The field.
            least: The smallest value that will do.
            above: A lower bound that will not do itself.
            below: An upper bound that will not do itself; None for none.
            why: Said after the bound.

        Raises:
            UserError: If the value is out of range, or not a number.
        """
        value = getattr(self, name)
        if not value >= least:
            raise UserError(f"{self.name}.{name} must be at least {least}{why}, not {value}")
        if not value > above:
            raise UserError(f"{self.name}.{name} must be above {above}{why}, not {value}")
        if below is not None and not value < below:
            raise UserError(f"{self.name}.{name} must be below {below}{why}, not {value}")

    @classmethod
    def check_declared(cls) -> None:
        """Checks that what looks like a hyper-parameter is one.

        Raises:
            UserError: If a class declares some and has no `@dataclass`: they would be ignored.
        """
        for each in cls.__mro__:
            for name, text in vars(each).get("__annotations__", {}).items():
                if name not in cls.__dataclass_fields__ and "ClassVar" not in str(text):
                    raise UserError(
                        f"{cls.name}: {each.__name__}.{name} is not a hyper-parameter: put @dataclass above "
                        "the class, or declare it as ClassVar"
                    )

    def overrides(self, verb: str) -> bool:
        """Tells whether it overrides the default of a method."""
        return getattr(type(self), verb) is not getattr(Strategy, verb)

    def skips(self, labelled: bool) -> bool:
        """Tells whether it learns nothing in an experience whose images have opinion scores, or have none."""
        return not labelled and self.skips_unlabelled and not self.overrides("targets")

    def check_labels(self, label: str, order: Sequence[str]) -> None:
        """Refuses an order with a dataset that it cannot learn without opinion scores.

        Args:
            label: The order's label.
            order: The datasets' names.

        Raises:
            UserError: Names the dataset, and what to do.
        """
        unlabelled = next(filter(is_unlabelled, order), None)
        if unlabelled is None or self.overrides("targets"):
            return
        if not self.skips_unlabelled:
            raise UserError(
                f"{self.name} learns from opinion scores, and {unlabelled} of the order {label} has none for "
                "training; choose a strategy that makes its own targets, or naive, which skips such a dataset"
            )
        if unlabelled == order[0]:
            raise UserError(
                f"{self.name} skips datasets without opinion scores, and the order {label} begins with one, "
                f"{unlabelled}; put a labelled one first"
            )

    def training_params(self) -> dict[str, Any]:
        """Returns the hyper-parameters that the trained weights depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("reading")}

    def experience_params(self, place: int) -> dict[str, Any]:
        """Returns those that an experience depends on; all, unless overridden.

        Fewer let runs that differ in the others alone share the experience.

        Args:
            place: How many datasets of the order come before it, as far as it depends on them.
        """
        return self.training_params()

    def table_rows(self) -> dict[str, str]:
        """Returns readout -> name of its row; to be overridden where that depends on a hyper-parameter."""
        return dict(self.rows)

    def trained_as(self) -> Strategy:
        """Returns the strategy that trains its models; another one, where it only answers otherwise."""
        return self

    @property
    def depends_on(self) -> Dependence:
        """What the training on a dataset depends on besides the dataset itself."""
        return "prefix"

    @property
    def own_features(self) -> bool:
        """Whether every task has features of its own; `view` says how."""
        return False

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head, instead of having one each."""
        return False

    @property
    def gate_space(self) -> GateSpace:
        """In which space the gate measures distances, see `models.gates`."""
        return "unit"

    @property
    def reading_rules(self) -> dict[str, str]:
        """What is chosen or fitted on validation images when answers are read, see `readouts.RULES`."""
        return {}

    @property
    def reads_aspects(self) -> bool:
        """Whether it learns scenes or distortions: datasets of which none are known are refused."""
        return False

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        return 0

    @property
    def values_per_image(self) -> int | None:
        """Numbers that are kept with each of these images: position, stored scores; None if not counted."""
        return None if self.memory_size else 0

    @property
    def crops(self) -> int:
        """How many crops of each image a mini-batch holds; see `pool`."""
        return 1

    def variant(self) -> str:
        """Names the hyper-parameters that differ from the defaults: "tau=16, stages=(4,)"; "" for none.

        One without a default is always named.
        """
        changed = [f for f in fields(self) if f.init and getattr(self, f.name) != default_of(f)]
        return ", ".join(f"{f.name}={getattr(self, f.name)}" for f in changed)

    @property
    def adapts_statistics(self) -> bool:
        """Whether the statistics of the normalisation follow the images after the warm-up."""
        return True

    def check_length(self, tasks: int) -> None:
        """Checks that it can learn so many datasets one after the other.

        Raises:
            UserError: If it has no room for them.
        """

    def check_backbone(self, backbone: type[Backbone]) -> None:
        """Checks that it can work with a backbone.

        Raises:
            UserError: If the backbone lacks what it needs.
        """

    # -- how a model and its training are made ---------------------------------------------------------------

    def view(self) -> TaskView | None:
        """Returns how tasks come by features of their own: unless overridden, each owns its normalisation."""
        from cliqa_bench.models.views import TaskNorms

        return TaskNorms() if self.own_features else None

    def new_head(self, features: int) -> nn.Module | None:
        """Makes the head of a new task; None for a cosine.

        Args:
            features: Length d of an image's features, which have unit length.

        Returns:
            A module from features (B, d) float32 to scores (B,), higher is better, or one that says more, a
            `models.heads.RichHead`. The global generator is seeded when this is called.
        """
        return None

    def windows(self, training: Training) -> Windows | None:
        """Returns in which windows a model looks at an image; None for the whole image in testing.

        With windows, crops are drawn from their grid, and a head reads all windows, or crops, of an image at
        once: it takes features (B, U, d) to what it says, and `pool` is not called.

        Args:
            training: The protocol under which it learns; its crop should be the windows' size.
        """
        return None

    def added_parameters(self, backbone: type[Backbone]) -> int:
        """Returns how many learnable values a task adds to what is kept, for the tables of costs."""
        if self.own_features:
            return backbone.task_parameters()
        if self.depends_on == "nothing":  # a network for every dataset
            return backbone.n_parameters + backbone.feature_size
        return 0 if self.single_head else backbone.feature_size

    def protocol(self, training: Training) -> Training:
        """Returns the protocol under which it learns, changed where the method has one of its own.

        `resize` and `precision` are not to be changed: other work shares them.
        """
        return training

    def trained_under(self, training: Training) -> Training:
        """Returns what `protocol` makes of the run's protocol.

        Raises:
            UserError: If it changes what other work shares.
        """
        own = self.protocol(training)
        if (own.resize, own.precision) != (training.resize, training.precision):
            raise UserError(
                f"{self.name}.protocol must not change resize or precision: other jobs share them"
            )
        return own

    def optimiser(self, parameters: list[nn.Parameter], training: Training) -> Optimizer:
        """Returns a new optimiser, for each experience.

        `rate` sets the rate of all its groups of parameters; one with a "scale" has that many times as much.

        Args:
            parameters: All of the model; those that do not learn have no gradient.
            training: The protocol.
        """
        import torch

        fused = parameters[0].device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, training.lr, weight_decay=training.weight_decay, fused=fused)

    def rate(self, training: Training, epoch: int, warmup: bool) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        factor = self.warmup_rate if warmup else self.main_rate
        return training.lr * factor * 0.1 ** sum(epoch >= decay for decay in training.decay_epochs)

    def in_step(self, images: Sequence[int], batch: int) -> list[int] | None:
        """Returns how many images of each dataset every step sees; None for one dataset a step.

        Asked for an experience of several datasets. An epoch then has as many steps as the dataset with the
        most mini-batches needs; the others start again.

        Args:
            images: Training images of each dataset.
            batch: Images in a mini-batch of the protocol.
        """
        return None

    # -- what is put together instead of learned -------------------------------------------------------------

    @property
    def built_from(self) -> Strategy | None:
        """The strategy, with its hyper-parameters, whose finished models it is made of; None if it learns.

        That one learns every dataset for itself (`depends_on` is "nothing"), and is trained where it has not
        been yet. Of this one no experience is trained: `build` makes the model after each dataset. The set of
        the datasets so far decides what comes out, so `depends_on` is "set".
        """
        return None

    def build(self, model: QualityModel, parts: Sequence[QualityModel]) -> None:
        """Makes a model out of finished ones, if there is `built_from`; reads no image.

        Args:
            model: As it comes from the backbone, without tasks; is to have a head for each part, in their
                order.
            parts: What `built_from` learned of each dataset, in the alphabetical order of their names; must
                stay as they are. All are on the CPU.
        """
        raise NotImplementedError

    # -- the verbs, in the order in which the learner calls them ---------------------------------------------

    def prepare(self, model: QualityModel) -> int:
        """Prepares the model for a new task and returns the index of its head."""
        return 0 if self.single_head and model.n_tasks else model.add_task()

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the parameters that learn: in the warm-up the new head, after it the backbone too.

        Heads of earlier tasks stay as they are, as in the published code, where no gradient reaches them.
        """
        head = list(model.heads[task].parameters())
        return head if warmup else [*model.net.plastic.parameters(), *head]

    def before_epoch(self, learner: Learner) -> None:
        """Is called before every epoch, in the warm-up too; `learner.epoch` is its number, from 0."""

    def after_warmup(self, learner: Learner) -> None:
        """Is called before the first epoch that follows the warm-up."""

    def targets(self, learner: Learner, source: DecodedDataset) -> NDArray[np.float64] | None:
        """Returns what is learned instead of opinion scores, for datasets that have none.

        It is called before the first epoch of an experience.

        Args:
            learner: The learner. Its model is that of the experience before, with the new head already added;
                it has no mini-batch yet.
            source: A dataset of the experience.

        Returns:
            (n,) for all images of the dataset, higher is better; nan for those that are not to be used, which
            must not be training images. None for the scores that the dataset has.
        """
        return None

    def pool(self, scores: Tensor) -> Tensor:
        """Returns one score an image, (n, heads), from those of its crops, (n, crops, heads)."""
        return scores.mean(dim=1)

    def loss(self, learner: Learner) -> Tensor:
        """Returns the loss of the mini-batch, in the warm-up too."""
        return learner.pair_loss()

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns what is added to the loss of the current mini-batch after the warm-up, if anything."""
        return None

    def after_step(self, learner: Learner) -> None:
        """Is called after every optimiser step following the warm-up."""

    def may_stay(self, learner: Learner) -> bool:
        """Tells whether the weights after the epoch that is just over may be those that stay.

        Of the epochs whose weights may, the best by validation stays; without any, the last.
        """
        return True

    def finish(self, learner: Learner) -> None:
        """Is called once the best weights of an experience are back in the model; may change what learns.

        What it leaves in the parameters that `trainable` names after the warm-up, and in the statistics of
        the normalisation, is the model that answers, and that the next experience starts from. That model is
        validated once more.
        """

    def consolidate(self, learner: Learner) -> None:
        """Is called after `finish`, when the model is what it will be; must not change it."""

    def extras(self, model: QualityModel) -> dict[str, nn.Module]:
        """Returns further predictions for a test image, beside the scores of its heads: name -> network.

        A network takes images (B, 3, H, W), ImageNet-normalised, to (B, k); it is put into evaluation mode,
        and `load_state` was called before. Its answers are kept with the heads'. The one called "merged"
        gives a single score, which the readout "merged" reads.
        """
        return {}

    def truths(self, source: DecodedDataset) -> dict[str, NDArray[np.float32]]:
        """Returns what is true of a dataset's test images, to be stored beside the predictions of `extras`.

        Args:
            source: The dataset.

        Returns:
            Name -> (n, k) float32, in the order of `source.keys("test")`; no name of `extras`.
        """
        return {}

    @property
    def adaptation_batch(self) -> int:
        """How many test images a transductive strategy adapts to at a time, at most."""
        return 1

    def adaptation(self) -> dict[str, Any]:
        """Returns what the answers of a transductive strategy depend on besides the model and the test set.

        It goes into their names: the hyper-parameters declared by `answering`, unless overridden.
        """
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("answering")}

    def adapt(self, model: QualityModel, images: Tensor, rng: Rng) -> None:
        """Fits a model to test images without labels; called only for a transductive strategy's answers.

        The model is a copy that scores these images and is then thrown away: the next ones meet the model as
        it was trained. `learning.adaptation` says which images come together. `extras` is not asked for.

        Args:
            model: On the device, in evaluation mode; to be left in it.
            images: (B, 3, H, W) uint8, on the device; what `pixels.cache.to_float` makes of them is scored.
                Where their shapes differ, the middles of the images.
            rng: Randomness that depends on the test set, the seed and the batch alone.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Returns what a strategy has learned beyond the weights: name -> tensor.

        The learner asks for it when an epoch is the best so far, and gives it back with that epoch's weights
        before `consolidate`; after that it goes into a file, and from there to the next experience. A tensor
        that was handed out is not to be changed in place.
        """
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""

    def progress(self) -> dict[str, Tensor] | None:
        """Returns what is remembered in the middle of an experience, besides `state`: name -> tensor.

        It is asked for after an epoch, and given back with `load_progress` if the run was interrupted, which
        then resumes with the next epoch. {} says that there is nothing more; None that this is not known, and
        then an interrupted experience starts over. None is the default of a strategy that defines one of the
        verbs called in the middle of an experience; of others it is {}.
        """
        verbs = ("before_epoch", "after_warmup", "penalty", "after_step")
        return None if any(map(self.overrides, verbs)) else {}

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Takes back what `progress` returned, on the CPU; model, `state` and epoch are back by then."""

    def as_plugin(self) -> SupervisedPlugin:
        """Returns the strategy as an Avalanche plug-in, for our `Learner`."""
        from cliqa_bench.learning.learner import StrategyPlugin

        return StrategyPlugin(self)
