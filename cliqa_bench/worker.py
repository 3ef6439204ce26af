"""Does the work of a plan: gates, trainings and answers, each finished atomically in its node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from cliqa_bench.benchmarks.source import Source, open_source
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.evaluate import score_images
from cliqa_bench.gates import fit_centroids, nearest_distance
from cliqa_bench.learner import Learner
from cliqa_bench.live import LivePrefix
from cliqa_bench.memory import keep_freed_memory
from cliqa_bench.model import QualityModel
from cliqa_bench.planner import AnswerWork, GateWork, Plan, TrainWork, images_of
from cliqa_bench.pretrain import distortion_aware
from cliqa_bench.progress import bar
from cliqa_bench.seeds import seed_for
from cliqa_bench.store import Node, write_answers, write_json
from cliqa_bench.types import Subset


def resolve_device(name: str) -> torch.device:
    """Turns "auto" into a device, and checks any other name.

    Raises:
        UserError: If the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} is not to be had here ({reason}); use cpu or auto") from error
    return device


class Worker:
    """Finishes the nodes of a plan, one after the other.

    Args:
        plan: The plan.
        facts: Versions and the like; go into every node's `done.json`.
    """

    def __init__(self, plan: Plan, facts: dict[str, Any]) -> None:
        keep_freed_memory()
        self.plan, self.facts = plan, facts
        self.config: RunConfig = plan.config
        self.device = resolve_device(plan.config.device)
        self._sources: dict[str, Source] = {}
        self._alive = LivePrefix(self._new_learner, self._experience)
        self._gate_features: dict[tuple[str, Subset], NDArray[np.float32]] = {}

    def open(self) -> None:
        """Opens all that the missing work needs, so that what is wrong is said before anything is trained.

        Raises:
            UserError: If the weights are those of something else, or an image is broken or too small.
        """
        train, gates, answers = self.plan.missing()
        self.plan.backbone.build(self.config.weights)
        names = (
            {d for w in train for d in w.sequence} | {g.dataset for g in gates} | {a.test for a in answers}
        )
        for name in sorted(names):
            self.source(name)
        for name in {name for work in train for name in work.sequence}:
            self.source(name).check_crop(self.config.training.crop)

    def finish(self) -> None:
        """Does all that is missing."""
        train, gates, answers = self.plan.missing()
        of: dict[str, list[AnswerWork]] = {}
        for work in answers:
            of.setdefault(work.of.node.id, []).append(work)
        self._finish_gates(gates, of)
        self._finish_training(train)
        self._finish_scores([w for w in self.plan.train.values() if w.node.id in of], of)

    def source(self, name: str) -> Source:
        """Returns a dataset's decoded images and labels, decoding them if they are not cached."""
        if name not in self._sources:
            material = self.plan.materials[name]
            self._sources[name] = open_source(material, self.config.training.resize)
        return self._sources[name]

    @contextmanager
    def _building(self, node: Node) -> Iterator[Path]:
        """As `Node.building`, with what is worth knowing about the computation."""
        facts = dict(self.facts, device=str(self.device))
        start = time.perf_counter()
        with node.building(facts) as folder:
            yield folder
            facts["seconds"] = round(time.perf_counter() - start, 3)

    # -- gates -----------------------------------------------------------------------------------------------

    @cached_property
    def _gate_net(self) -> nn.Module:
        net = self.plan.backbone.build(self.config.weights, seed_for("backbone") % 2**32)
        if self.plan.backbone.gate_net == "distortion-bn":
            distortion_aware(self.plan.backbone, net, self.config.weights, self.device)
        ready: nn.Module = net.to(self.device).to(memory_format=torch.channels_last).eval()
        return ready

    def _features(self, name: str, subset: Subset, tick: Callable[[int], object]) -> NDArray[np.float32]:
        """Returns (n, all stages' channels) gate features; every image is described once a run."""
        if (name, subset) not in self._gate_features:
            net = self._gate_net

            def stages(images: Tensor) -> Tensor:
                return torch.cat(net(images).stages, dim=1)

            width = sum(self.plan.backbone.stage_sizes)
            source, precision = self.source(name), self.config.training.precision
            features = score_images(stages, source, subset, width, self.device, precision, tick)
            self._gate_features[name, subset] = features
        return self._gate_features[name, subset]

    def _finish_gates(self, gates: list[GateWork], answers: dict[str, list[AnswerWork]]) -> None:
        asked = [w for w in self.plan.gates.values() if w.node.id in answers]
        if not gates and not asked:
            return
        self._gate_net  # noqa: B018 - its pre-training, if any, has a bar of its own
        need: set[tuple[str, Subset]] = {(g.dataset, "train") for g in gates}
        need |= {(a.test, "test") for w in asked for a in answers[w.node.id]}
        total = sum(len(self.source(name).keys(subset)) for name, subset in need)
        with bar(total, "gate: describe images", "image") as shown:
            for name, subset in sorted(need):
                self._features(name, subset, shown.update)
        with bar(len(gates), "gate: K-means", "dataset") as shown:
            for gate in gates:
                self._fit_gate(gate)
                shown.update()
        for work in asked:
            self._gate_answers(work, answers[work.node.id])

    def _split_stages(self, features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return np.split(features, np.cumsum(self.plan.backbone.stage_sizes)[:-1], axis=1)

    def _fit_gate(self, gate: GateWork) -> None:
        stages = self._split_stages(self._features(gate.dataset, "train", lambda n: None))
        n = len(stages[0])
        if n < gate.k:
            tqdm.write(f"gate of {gate.dataset}: {n} training images, so K = {n} instead of {gate.k}")
        with self._building(gate.node) as folder:
            centroids = {
                f"stage{s}": torch.from_numpy(fit_centroids(x, gate.k, gate.dataset, s, gate.seed))
                for s, x in enumerate(stages, 1)
            }
            save_file(centroids, folder / "state.safetensors")

    def _gate_answers(self, gate: GateWork, answers: list[AnswerWork]) -> None:
        centroids = load_file(gate.node.file("state.safetensors"))
        for work in answers:
            stages = self._split_stages(self._features(work.test, "test", lambda n: None))
            distances = [nearest_distance(x, centroids[f"stage{s}"].numpy()) for s, x in enumerate(stages, 1)]
            self._write_answers(work, distances=np.stack(distances, axis=1))

    # -- training --------------------------------------------------------------------------------------------

    def _new_model(self, work: TrainWork) -> QualityModel:
        net = self.plan.backbone.build(self.config.weights, seed_for("backbone") % 2**32)
        model = QualityModel(
            net, self.plan.backbone.feature_size, task_norms=work.strategy.task_norms, seed=work.seed
        )
        return model.to(memory_format=torch.channels_last)

    def _trained(self, work: TrainWork) -> QualityModel:
        """Loads the model that a finished node holds."""
        model = self._new_model(work)
        state = load_file(work.node.file("state.safetensors"))
        for _ in range(sum(name.startswith("heads.") for name in state)):
            model.add_task()
        model.load_own_state(state)
        return model.to(self.device)

    def _finish_training(self, works: list[TrainWork]) -> None:
        total = sum(images_of(self.plan, work) for work in works)
        with bar(total, "train", "image") as shown:
            for number, work in enumerate(works, 1):
                what = f"train {work.strategy.name} on {self._title(work)} ({number}/{len(works)})"
                # refreshed with the next step: before the bar is due it must not appear
                shown.set_description(what, refresh=False)

                def tick(images: int, text: str) -> None:
                    shown.update(images)
                    if text:
                        shown.set_postfix_str(text, refresh=False)

                if not work.node.done:  # another run on this folder may have been faster
                    self._train(work, tick)

    def _title(self, work: TrainWork) -> str:
        titles = [self.source(name).title for name in work.datasets]
        return titles[0] if len(titles) == 1 else f"{len(titles)} datasets together"

    def _learner(self, work: TrainWork, tick: Callable[[int, str], None]) -> Learner:
        """Goes on from where the previous node ended."""
        if not work.strategy.resumable:
            return self._alive.before(work, tick)
        return self._new_learner(work, tick)

    def _new_learner(self, work: TrainWork, tick: Callable[[int, str], None]) -> Learner:
        """Goes on from the files of the previous node."""
        strategy = replace(work.strategy)  # of its own: nodes share hyper-parameters, not what was learned
        if work.previous is None:
            model, seen = self._new_model(work), tuple[str, ...]()
        else:
            model, seen = self._trained(work.previous), work.previous.sequence
            file = work.previous.node.file("strategy.safetensors")
            strategy.load_state(load_file(file, str(self.device)) if file.is_file() else {})
        return Learner(
            model=model, strategy=strategy, training=self.config.training, device=self.device,
            seed=work.seed, tick=tick, seen=[self.source(name) for name in seen],
        )  # fmt: skip

    def _train(self, work: TrainWork, tick: Callable[[int, str], None]) -> None:
        learner = self._learner(work, tick)
        with self._building(work.node) as folder:
            start = time.perf_counter()
            self._experience(learner, work)
            _save(learner.model.own_state(), folder / "state.safetensors")
            if learned := learner.strategy.state():
                _save(learned, folder / "strategy.safetensors")
            write_json(folder / "history.json", learner.history)
        best = max(
            (h for h in learner.history if h["val_srcc"] is not None),
            key=lambda h: h["val_srcc"],
            default=None,
        )
        srcc = (
            "undefined (constant scores)"
            if best is None
            else f"{best['val_srcc']:.3f} at epoch {best['epoch']}"
        )
        seconds = time.perf_counter() - start
        tqdm.write(
            f"{work.strategy.name} on {self._title(work)} (seed {work.seed}): "
            f"validation SRCC {srcc}, {seconds:.0f} s"
        )

    def _experience(self, learner: Learner, work: TrainWork) -> None:
        """Lets a learner learn the experience of a node."""
        sources = [self.source(name) for name in work.datasets]
        benchmark = quality_benchmark(
            sources, self.config.training, work.seed, joint=work.joint, first_task=work.first_task
        )
        learner.train(benchmark.train_stream[0], eval_streams=[])
        if not work.strategy.resumable:
            self._alive.keep(work, learner)

    # -- answers ---------------------------------------------------------------------------------------------

    def _finish_scores(self, works: list[TrainWork], answers: dict[str, list[AnswerWork]]) -> None:
        total = sum(len(self.source(a.test).keys("test")) for w in works for a in answers[w.node.id])
        with bar(total, "score test images", "image") as shown:
            for work in works:
                model = self._trained(work).eval()
                for answer in answers[work.node.id]:
                    source, precision = self.source(answer.test), self.config.training.precision
                    scores = score_images(
                        model, source, "test", model.n_tasks, self.device, precision, shown.update
                    )
                    self._write_answers(answer, scores=scores)

    def _write_answers(self, work: AnswerWork, **arrays: NDArray[np.float32]) -> None:
        source = self.source(work.test)
        with self._building(work.node) as folder:
            mos = source.mos[source.indices("test")]
            write_answers(folder / "answers.npz", np.array(source.keys("test")), mos, **arrays)


def _save(state: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
