"""Resuming after the last epoch: what an experience that is being learned leaves in one file.

`<out>/checkpoints/<node id>.safetensors` holds the model's own state, Adam's, the best epoch's, and what the
strategy remembers; as metadata a JSON text with history, epoch, what it all depends on, and a hash of
everything. It replaces its predecessor in one step, so any number of processes may write it: on a CPU they
write the same. It goes when the experience is done. A file that is damaged, or of another version of anything
that bits depend on, is not used, and that is said.

Random numbers need no place in it: what an epoch draws depends on its number alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cliqa_bench.errors import UserError
from cliqa_bench.learning.learner import Best, Learner
from cliqa_bench.results.nodes import atomic_path, canonical
from cliqa_bench.results.weights import write_weights
from cliqa_bench.system.avalanche_parts import SupervisedPlugin
from cliqa_bench.system.signals import raise_if_stopped
from cliqa_bench.types import Json

Tensors = dict[str, Tensor]

PAUSE = 10.0
"""Seconds between two checkpoints, at least; `CLIQA_CHECKPOINT_SECONDS` says otherwise, 0 for every epoch."""
SHARE = 0.01
"""Largest part of the time that writing them may take."""
_SPEED = 2e8
"""Bytes hashed and written in a second, on a slow disk."""


class Unusable(Exception):
    """Says why a checkpoint is not used."""


# -- the file ------------------------------------------------------------------------------------------------


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], body: Mapping[str, Json]) -> None:
    """Writes tensors and JSON as one file, atomically.

    Args:
        path: The file.
        tensors: Of any device, shape and dtype; those that are one tensor under several names are one in the
            file, too.
        body: What goes with them.

    Raises:
        UserError: If it cannot be written.
    """
    kept: Tensors = {}
    same: dict[str, str] = {}
    places: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and places.setdefault(place, name) != name:
            same[name] = places[place]
        else:
            kept[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    text = canonical({**body, "same": same})
    with atomic_path(path) as temporary:
        write_weights(temporary, kept, {"body": text, "sha256": _digest(kept, text)})


def read_checkpoint(path: Path) -> tuple[Tensors, dict[str, Json]]:
    """Reads what `write_checkpoint` wrote.

    Raises:
        Unusable: If the file is damaged, or is something else.
    """
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise Unusable(f"which cannot be read ({error})") from error
    text = found.get("body", "")
    if found.get("sha256") != _digest(tensors, text):
        raise Unusable("which is damaged")
    body: dict[str, Json] = json.loads(text)
    tensors |= {name: tensors[other] for name, other in body.pop("same").items()}
    return tensors, body


def _digest(tensors: Tensors, text: str) -> str:
    hashed = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


# -- what of a learner goes into it --------------------------------------------------------------------------


def progress_of(learner: Learner) -> tuple[Tensors, dict[str, Json]] | None:
    """Returns all that the epochs to come depend on; None if the strategy cannot give its part."""
    remembered = learner.strategy.progress()
    if remembered is None:
        return None
    adam = {
        f"{number}.{key}": value
        for number, values in learner.optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None  # SGD without momentum
    }
    if not all(isinstance(value, Tensor) for value in adam.values()):  # an optimiser of the strategy's own
        return None
    groups = {
        "model": learner.model.own_state(),
        "adam": adam,
        "strategy": learner.strategy.state(),
        "progress": remembered,
        "best": learner.best.weights,
        "learned": learner.best.learned,
    }
    tensors = {f"{group}/{name}": t for group, part in groups.items() for name, t in part.items()}
    facts = ("epoch", "best_epoch", "history", "images")
    return tensors, {name: getattr(learner, name) for name in facts}


def restore(learner: Learner, tensors: Tensors, body: Mapping[str, Json]) -> None:
    """Lets a learner that is about to learn an experience resume after the epoch of a checkpoint.

    Args:
        learner: A new one, its task added and its optimiser made.
        tensors: As `progress_of` returned them.
        body: The same.
    """

    def group(name: str) -> Tensors:
        return {n.partition("/")[2]: t for n, t in tensors.items() if n.partition("/")[0] == name}

    done = body["epoch"] - learner.epoch
    learner.model.load_own_state(group("model"))
    learner.epoch, learner.best_epoch = body["epoch"], body["best_epoch"]
    learner.history = body["history"]
    learner.images = body["images"]
    learner.tick(learner.images, "", "earlier")
    learner.train_epochs -= done
    # what comes after the last epoch looks at what learned in it
    learner.warming_up = learner.epoch <= learner.training.warmup_epochs
    learner.model.train_only(learner.strategy.trainable(learner.model, learner.task, learner.warming_up))
    _put_back_adam(learner, group("adam"))
    on_device = {n: t.to(learner.device) for n, t in group("strategy").items()}
    learner.strategy.load_state(on_device)
    learner.strategy.load_progress(group("progress"), learner)
    # none if no epoch so far may stay
    value = next((h["val_srcc"] for h in learner.history if h["epoch"] == learner.best_epoch), None)
    learned = {n: t.to(learner.device) for n, t in group("learned").items()}
    learner.best = Best(-math.inf if value is None else value, group("best"), learned)


def _put_back_adam(learner: Learner, saved: Tensors) -> None:
    parameters = [p for g in learner.optimizer.param_groups for p in g["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        number, _, key = name.partition(".")
        like = parameters[int(number)]
        # in the layout of the weights: fused Adam reads all of a parameter's tensors in that of the parameter
        value = (
            torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
        )
        state.setdefault(int(number), {})[key] = value
    learner.optimizer.load_state_dict({**learner.optimizer.state_dict(), "state": state})


# -- when it is written and read -----------------------------------------------------------------------------


class Resumed(NamedTuple):
    """What was done of an experience before it was interrupted; 0 and 0 where it was not.

    Attributes:
        epochs: How many of the experience's epochs.
        seconds: How long they took.
    """

    epochs: int = 0
    seconds: float = 0.0


class Checkpoints(SupervisedPlugin):
    """Writes a checkpoint after an epoch, and resumes from the one that an interrupted run has left.

    Args:
        path: The file.
        facts: What the bits depend on; one with other facts is not used.
        say: Told one line where a checkpoint is used, or is not, or cannot be written.
        pause: Seconds between two, at least; 0 for one after every epoch, whatever that costs.

    Attributes:
        resumed: What an interrupted run had done of the experience.
    """

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, Json],
        say: Callable[[str], object],
        pause: float | None = None,
    ) -> None:
        super().__init__()
        self.path, self.facts, self._say = path, dict(facts), say
        self._pause = checkpoint_pause() if pause is None else pause
        self.resumed = Resumed()
        self._took = 0.0
        self._start = self._last = time.perf_counter()

    def before_training_exp(self, strategy: Learner, **kwargs: Any) -> None:
        """Resumes from a checkpoint, if there is one that fits."""
        self._start = self._last = time.perf_counter()
        if not self.path.is_file():
            return
        first = strategy.epoch
        try:
            tensors, body = read_checkpoint(self.path)
            self._check(body)
            restore(strategy, tensors, body)
        except Unusable as why:
            self._say(f"ignoring {self.path}, {why}: the experience starts over")
            self.remove()
            return
        except Exception:
            raise_if_stopped()
            self.remove()  # a strategy that cannot load it must not fail for ever
            raise
        self.resumed = Resumed(body["epoch"] - first, body["seconds"])
        n = self.resumed.epochs
        self._say(f"resuming after epoch {n} of {n + strategy.train_epochs}")

    def _check(self, body: Mapping[str, Json]) -> None:
        was = body["facts"]
        # as they come back from JSON
        now = json.loads(canonical(self.facts))
        if others := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
            raise Unusable(f"which was made with other {', '.join(others)}")

    def after_training_epoch(self, strategy: Learner, **kwargs: Any) -> None:
        """Writes a checkpoint, if the last one is long enough ago."""
        waited = time.perf_counter() - self._last
        if waited < self._pause:
            return
        progress = progress_of(strategy)
        if progress is None:
            self._pause = math.inf
        elif not self._pause or waited > self._cost_of(progress[0].values()) / SHARE:
            self._write(*progress)

    def _cost_of(self, tensors: Iterable[Tensor]) -> float:
        """Guesses how many seconds it takes to write tensors."""
        return max(self._took, sum(tensor.nbytes for tensor in tensors) / _SPEED)

    def _write(self, tensors: Tensors, body: dict[str, Json]) -> None:
        start = time.perf_counter()
        seconds = self.resumed.seconds + start - self._start
        try:
            write_checkpoint(self.path, tensors, {**body, "facts": self.facts, "seconds": seconds})
        except UserError as error:
            self._say(f"{error}; continuing without checkpoints")
            self._pause = math.inf
        self._last = time.perf_counter()
        self._took = self._last - start

    def remove(self) -> None:
        """Removes the file, when the experience is done."""
        self.path.unlink(missing_ok=True)


def checkpoint_pause() -> float:
    """Returns the least number of seconds between two checkpoints.

    Raises:
        UserError: If the environment's CLIQA_CHECKPOINT_SECONDS is not a number from 0.
    """
    text = os.environ.get("CLIQA_CHECKPOINT_SECONDS", str(PAUSE))
    try:
        pause = float(text)
    except ValueError:
        pause = math.nan
    if not pause >= 0:
        raise UserError(f"the environment's CLIQA_CHECKPOINT_SECONDS must be 0 or more, not {text!r}")
    return pause
