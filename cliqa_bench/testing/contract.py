"""The contract of a strategy, for your own tests: `check_strategy(MyStrategy)`.

Everything is tried on three datasets of a dozen small random pictures with an untrained S-CNN: it takes some
seconds, and needs neither weights nor data.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.config import default_of
from cliqa_bench.learning.adaptation import score_adapted
from cliqa_bench.learning.checkpoints import Checkpoints
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.heads import CosineHead
from cliqa_bench.models.quality import QualityModel, load_tasks
from cliqa_bench.settings.resolve import typed_fields
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.system.avalanche_parts import SupervisedPlugin
from cliqa_bench.testing.tiny import SIDE, TRAINING, learn, new_model, tiny_sources


class _Confident(Learner):
    """Takes the first epoch after the warm-up as the best: with so few pictures it would be chance."""

    def validate(self) -> float:
        return -float(abs(self.epoch - self.training.warmup_epochs))


class _Stopped(BaseException):
    """The epoch is over, and so is the process."""


class _Stop(SupervisedPlugin):
    """Ends a training after every epoch, the last one too."""

    def after_training_epoch(self, strategy: Learner, **kwargs: Any) -> None:
        raise _Stopped


class _Watched:
    """An image cache that notes which images are read."""

    def __init__(self, cache: ImageCache, read: set[int]) -> None:
        self._cache, self._read = cache, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def image(self, index: int) -> NDArray[np.uint8]:
        self._read.add(index)
        return self._cache.image(index)

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        self._read.update(indices.tolist())
        return self._cache.images(indices)

    def crops(self, images: NDArray[np.int64], *more: Any) -> Tensor:
        self._read.update(images.tolist())
        return self._cache.crops(images, *more)


def check_strategy(strategy: type[Strategy] | Strategy, **hyper_parameters: Any) -> None:
    """Checks what every strategy must do.

    It can be made without arguments (but those that have no default), and its fields survive JSON. It learns
    three experiences with finite losses; a penalty, where there is one, is positive and reaches the weights
    on the second. Parameters that do not learn, and in the warm-up all but the head (with the decoder of a
    `TokenNet` before it), keep their bits; so does everything while it consolidates. The same seed gives the
    same bits, another seed does not, and neither does it matter whether it resumes from files (one that is
    not resumable is trained twice instead), or from checkpoints after every epoch (unless its `progress` is
    None). Answers do not depend on the batch; those of a transductive strategy may, but come out the same
    twice, with and without opinion scores, and leave the model as it is. Of earlier datasets it reads no more
    images than its `memory_size`, and keeps none. Of an Avalanche plug-in, what `penalty` and `consolidate`
    do is not seen.

    What is built from another strategy's models has a head for each of them, leaves them as they are, gives
    the same bits again, and does not depend on their order.

    Args:
        strategy: A class, or one made of it, whose hyper-parameters are then those.
        hyper_parameters: Those that differ from the defaults, or from the one given.

    Raises:
        AssertionError: Says which of these is not so.

    Example:
        >>> from cliqa_bench.strategies.naive import Naive
        >>> check_strategy(Naive, heads="single")  # doctest: +SKIP
    """
    _check_dataclass(strategy if isinstance(strategy, type) else type(strategy))
    if isinstance(strategy, Strategy):
        cls = type(strategy)
        hyper_parameters = _changed(strategy) | hyper_parameters
    else:
        cls = strategy
    made = cls(**{f.name: hyper_parameters[f.name] for f in fields(cls) if default_of(f) is MISSING})
    _check_fields(replace(made, **hyper_parameters))
    # in the few steps there are here, nothing would move at a fiftieth of the rate
    hyper_parameters = {"warmup_rate": 1.0, "main_rate": 1.0} | hyper_parameters
    with tiny_sources() as sources:
        watch = _Watch(cls, hyper_parameters, sources)
        if cls(**hyper_parameters).built_from is not None:
            watch.check_built()
            return
        states = watch.straight(seed=0)
        watch.check_penalties()
        watch.check_again(states)
        if watch.drawn:
            other = watch.straight(seed=1)
            assert any(_differs(a, b) for a, b in zip(states, other, strict=True)), (
                f"{cls.name}: the seed has no effect"
            )
        watch.check_warm_up()


def _check_dataclass(cls: type[Strategy]) -> None:
    cls.check_declared()
    for each in cls.__mro__[: cls.__mro__.index(Strategy)]:
        # a class that only gives another one a name has nothing of its own
        if not vars(each).keys() <= {"__module__", "__doc__", "name"}:
            assert "__dataclass_fields__" in vars(each), (
                f"{cls.name}: put @dataclass above class {each.__name__}"
            )


def _changed(strategy: Strategy) -> dict[str, Any]:
    """Returns the hyper-parameters that differ from the defaults."""
    values = {f.name: (getattr(strategy, f.name), default_of(f)) for f in fields(strategy) if f.init}
    return {name: value for name, (value, default) in values.items() if value != default}


def _check_fields(strategy: Strategy) -> None:
    values = json.loads(json.dumps(asdict(strategy)))
    again = type(strategy)(**typed_fields(type(strategy), values, strategy.name))
    assert again == strategy, (
        f"{strategy.name}: its fields do not survive a round trip through JSON: {again} is not {strategy}"
    )
    assert strategy.table_rows(), f"{strategy.name}: it has no row in the tables"


State = dict[str, Tensor]


class _Watch:
    """Trains a strategy in several ways, and checks what it does meanwhile."""

    def __init__(
        self, cls: type[Strategy], params: Mapping[str, Any], sources: Sequence[DecodedDataset]
    ) -> None:
        self.cls, self.params, self.name = cls, dict(params), cls.name
        self.read: list[set[int]] = [set() for _ in sources]
        self.sources = [
            replace(s, cache=cast(ImageCache, _Watched(s.cache, self.read[i]))) for i, s in enumerate(sources)
        ]
        self.penalties: list[float] = []
        self.reached = False
        self.drawn = False  # whether there are epochs, and with them crops and mini-batches

    @property
    def _experiences(self) -> list[list[DecodedDataset]]:
        joint = self.cls(**self.params).depends_on == "set"
        if self.cls.cumulative:
            return [self.sources[:n] for n in range(1, len(self.sources) + 1)]
        return [list(self.sources)] if joint else [[source] for source in self.sources]

    def _strategy(self) -> Strategy:
        """Makes one whose `penalty` and `consolidate` are looked at."""
        strategy = self.cls(**self.params)
        penalty, consolidate = strategy.penalty, strategy.consolidate

        def watched_penalty(learner: Learner) -> Tensor | None:
            value = penalty(learner)
            if value is not None:
                self._note(value, learner)
            return value

        def watched_consolidate(learner: Learner) -> None:
            before = _copy(learner.model.state_dict())
            consolidate(learner)
            assert not _differs(before, learner.model.state_dict()), (
                f"{self.name}: consolidate changes weights"
            )

        setattr(strategy, "penalty", watched_penalty)  # noqa: B010 - mypy: a method is not to be assigned to
        setattr(strategy, "consolidate", watched_consolidate)  # noqa: B010
        return strategy

    def _note(self, value: Tensor, learner: Learner) -> None:
        assert value.isfinite(), f"{self.name}: a penalty of {float(value)}"
        self.penalties.append(float(value.detach()))
        weights = [p for p in learner.model.parameters() if p.requires_grad]
        if value.requires_grad and not self.reached:
            found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            self.reached = any(g is not None and bool(g.any()) for g in found)

    def straight(self, seed: int) -> list[State]:
        """Trains all experiences in one process; returns the model's state after each."""
        strategy, states = self._strategy(), []
        model, seen = new_model(strategy, seed), list[DecodedDataset]()
        learner: Learner | None = None
        for group in self._experiences:
            if strategy.depends_on == "nothing":
                model, seen, learner = new_model(strategy, seed), [], None
            learner = self._learn(strategy, model, group, seed, seen, learner)
            states.append(_state(learner))
            seen += [source for source in group if source not in seen]
            if strategy.transductive:
                self._check_adapted(strategy, model, seed)
            else:
                self._check_answers(model)
            self._check_stored(strategy, model, seed)
        return states

    def _learn(
        self,
        strategy: Strategy,
        model: QualityModel,
        group: list[DecodedDataset],
        seed: int,
        seen: list[DecodedDataset],
        before_it: Learner | None = None,
        plugins: Sequence[SupervisedPlugin] = (),
    ) -> Learner:
        """Trains an experience; what is not resumable continues with the learner that was there before it."""
        before = _copy(model.state_dict())
        for read in self.read:
            read.clear()
        learner = learn(
            strategy, model, group, seed=seed, seen=seen, joint=len(group) > 1, kind=_Confident,
            learner=None if strategy.resumable else before_it, plugins=plugins,
        )  # fmt: skip
        losses = [h["loss"] for h in learner.history if h["stage"] != "finish"]
        assert all(math.isfinite(x) for x in losses), f"{self.name}: losses {losses}"
        self.drawn |= bool(losses)
        self._check_frozen(strategy, model, learner.task, before)
        again = sum(len(self.read[self.sources.index(source)]) for source in seen)
        assert again <= strategy.memory_size, (
            f"{self.name}: it reads {again} images of earlier datasets, and declares {strategy.memory_size}"
        )
        for name, tensor in strategy.state().items():
            assert not (tensor.ndim >= 3 and min(tensor.shape[-2:]) >= TRAINING.crop), (
                f"{self.name}: its state {name} of shape {tuple(tensor.shape)} looks like images"
            )
        return learner

    def _check_frozen(self, strategy: Strategy, model: QualityModel, task: int, before: State) -> None:
        learns = {id(p) for p in strategy.trainable(model, task, False)}
        for name, parameter in model.named_parameters():
            if name in before and id(parameter) not in learns:
                assert torch.equal(parameter, before[name]), (
                    f"{self.name}: {name} changes, but is not trainable"
                )

    def _check_stored(self, strategy: Strategy, model: QualityModel, seed: int) -> None:
        """What is not stored with a model is that of every model of its backbone."""
        again = new_model(strategy, seed)
        load_tasks(again, model.own_state(), Path("memory"))
        for name, tensor in again.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), (
                f"{self.name}: {name} changes, but is not stored with the model"
            )

    def _check_answers(self, model: QualityModel) -> None:
        images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            together, turned = model(images), model(images.flip(0)).flip(0)
            alone = torch.cat([model(image[None]) for image in images])
        # a cosine's direction has length 1; other heads may enlarge what the features differ by in rounding
        others = [head for head in model.heads if not isinstance(head, CosineHead)]
        lengths = [float(p.detach().norm()) for head in others for p in head.parameters()]
        for other in (turned, alone):
            assert torch.allclose(together, other, atol=1e-5 * max(1.0, *lengths, 0.0)), (
                f"{self.name}: an answer depends on the other images in its batch"
            )

    def _check_adapted(self, strategy: Strategy, model: QualityModel, seed: int) -> None:
        """Scores a test set twice, the second time without opinion scores and after another test set."""
        assert not strategy.overrides("extras"), (
            f"{self.name}: it is transductive, so extras is not asked for"
        )
        source, other = self.sources[:2]
        blind = replace(source, ratings=[rating._replace(score=math.nan) for rating in source.ratings])
        before = _copy(model.state_dict())
        first, _, again = (
            score_adapted(strategy, model, tested, seed, "cpu") for tested in (source, other, blind)
        )
        assert np.array_equal(first, again), f"{self.name}: adapting again gives different answers"
        assert not _differs(before, model.state_dict()), f"{self.name}: adapting changes the model"

    def from_files(self, seed: int, interrupted: bool = False) -> list[State]:
        """As `straight`, each experience with new objects, from what the one before left.

        Args:
            seed: Of the training.
            interrupted: Whether after every epoch, too, all things are new, and a checkpoint is what is left.
        """
        saved: tuple[bytes, bytes] | None = None
        states, seen = [], list[DecodedDataset]()
        with tempfile.TemporaryDirectory() as folder:
            for number, group in enumerate(self._experiences):
                if self.cls(**self.params).depends_on != "prefix":
                    saved, seen = None, []
                file = Path(folder) / f"{number}.safetensors" if interrupted else None
                learner = self._learn_on(partial(self._made, seed, saved), group, seed, seen, file)
                states.append(_state(learner))
                seen += [source for source in group if source not in seen]
                saved = (_bytes(learner.model.own_state()), _bytes(learner.strategy.state()))
        return states

    def _made(self, seed: int, saved: tuple[bytes, bytes] | None) -> tuple[Strategy, QualityModel]:
        """Makes strategy and model from what the experience before left."""
        strategy = self._strategy()
        model = new_model(strategy, seed)
        if saved is not None:
            load_tasks(model, load(saved[0]), Path("memory"))
            strategy.load_state(load(saved[1]))
        return strategy, model

    def _learn_on(
        self,
        make: Callable[[], tuple[Strategy, QualityModel]],
        group: list[DecodedDataset],
        seed: int,
        seen: list[DecodedDataset],
        file: Path | None,
    ) -> Learner:
        """Trains an experience in one go, or in as many pieces as it has epochs."""
        if file is None:
            return self._learn(*make(), group, seed, seen)
        while True:
            plugins = [Checkpoints(file, {}, lambda text: None, pause=0), _Stop()]
            with suppress(_Stopped):
                return self._learn(*make(), group, seed, seen, plugins=plugins)

    def check_again(self, states: Sequence[State]) -> None:
        """Training again gives what `straight` gave, and so does resuming where it was interrupted."""
        strategy = self.cls(**self.params)
        if not strategy.resumable:
            _same(states, self.straight(seed=0), f"{self.name}: training again gives different results")
            return
        if strategy.progress() is not None:
            pieces = self.from_files(seed=0, interrupted=True)
            if not any(_differs(a, b) for a, b in zip(states, pieces, strict=True)):
                return  # that was resuming from files, too
            _same(
                states, self.from_files(seed=0), f"{self.name}: resuming from files gives different results"
            )
            _same(states, pieces, f"{self.name}: resuming an interrupted epoch gives different results")
        _same(states, self.from_files(seed=0), f"{self.name}: resuming from files gives different results")

    def check_built(self) -> None:
        """What is built from finished models depends on these alone, and not on their order."""
        parts = [self._part([source]) for source in self.sources]
        before = [_copy(part.state_dict()) for part in parts]
        built = self._built(parts)
        for part, state in zip(parts, before, strict=True):
            assert not _differs(state, part.state_dict()), f"{self.name}: build changes what it is built from"
        complaint = f"{self.name}: building again gives different results"
        _same([built.state_dict()], [self._built(parts).state_dict()], complaint)
        turned = self._built(parts[::-1])
        complaint = f"{self.name}: the order of the datasets changes what is built"
        _same([built.net.state_dict()], [turned.net.state_dict()], complaint)
        heads = [[head.state_dict() for head in model.heads] for model in (built, turned)]
        _same(heads[0], heads[1][::-1], complaint)
        self._built(parts[:1])

    def _part(self, group: list[DecodedDataset]) -> QualityModel:
        parent = self.cls(**self.params).built_from
        assert parent is not None and parent.depends_on == "nothing", (
            f"{self.name}: it is built from a strategy that does not learn every dataset on its own"
        )
        model = new_model(parent)
        learn(parent, model, group)
        return model

    def _built(self, parts: Sequence[QualityModel]) -> QualityModel:
        strategy = self.cls(**self.params)
        model = new_model(strategy)
        strategy.build(model, parts)
        assert model.n_tasks == len(parts), f"{self.name}: {model.n_tasks} heads for {len(parts)} datasets"
        assert all(bool(t.isfinite().all()) for t in model.state_dict().values()), (
            f"{self.name}: a weight is NaN or infinite"
        )
        self._check_answers(model.eval())
        self._check_stored(strategy, model, 0)
        return model

    def check_penalties(self) -> None:
        """A strategy that has a penalty has one that does something."""
        if self.penalties:
            assert max(self.penalties) > 0, f"{self.name}: its penalty is never positive"
            assert self.reached, f"{self.name}: its penalty has no gradient"

    def check_warm_up(self) -> None:
        """In the warm-up only the head learns, with a decoder before it; the normalisation stays fixed."""
        strategy = self._strategy()
        model, fresh = (new_model(strategy) for _ in range(2))
        task = strategy.prepare(fresh)
        learn(
            strategy,
            model,
            self._experiences[0],
            replace(TRAINING, epochs=0),
            joint=strategy.depends_on == "set",
        )
        head = {f"heads.{task}.{name}" for name, _ in model.heads[task].named_parameters()}
        for name, tensor in fresh.state_dict().items():
            may = name in head or name.startswith("net.decoder.")
            assert may or torch.equal(tensor, model.state_dict()[name]), (
                f"{self.name}: {name} changes in the warm-up"
            )


def _state(learner: Learner) -> State:
    """Returns the model's best and last state of an experience."""
    return _copy(learner.model.own_state()) | {f"last {n}": t for n, t in learner.last_state.items()}


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _bytes(state: Mapping[str, Tensor]) -> bytes:
    content: bytes = save({name: tensor.contiguous() for name, tensor in state.items()})
    return content


def _differs(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[k], other[k]) for k in one)


def _same(some: Sequence[State], others: Sequence[State], complaint: str) -> None:
    for number, (one, other) in enumerate(zip(some, others, strict=True), 1):
        assert not _differs(one, other), f"{complaint} (experience {number})"
