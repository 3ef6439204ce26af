"""Does the jobs of a plan, each finished atomically in its nodes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.decoded import DecodedDataset, open_source
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.pixels.resident import ResidentImages
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import OutOfMemory
from cliqa_bench.execution.jobs import Job, work_title
from cliqa_bench.execution.plan import N_PICTURES, AnswerWork, GateNormalisation, GateWork, Plan, TrainWork
from cliqa_bench.execution.retrained_prefix import LivePrefix
from cliqa_bench.learning.adaptation import score_adapted
from cliqa_bench.learning.avalanche_loggers import logging_to
from cliqa_bench.learning.checkpoints import Checkpoints
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.models.finished import RunNetworks, centroids_of, remembered, scales_of
from cliqa_bench.models.folding import Scorer, cast_weights
from cliqa_bench.models.gates import fit_centroids, nearest_distance, whitening
from cliqa_bench.models.pretraining_config import DISTORTION_BN
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.part_names import base_of
from cliqa_bench.progress import Tick
from cliqa_bench.results.nodes import CHECKPOINTS, Node, write_answers, write_arrays, write_json
from cliqa_bench.results.weights import write_weights
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.system.compute import (
    deterministic_algorithms,
    explain_out_of_memory,
    limited_threads,
    resolve_device,
    title_of,
)
from cliqa_bench.system.memory import tune_malloc
from cliqa_bench.system.usage import Usage, measured
from cliqa_bench.terminal import plural
from cliqa_bench.types import Subset

PICTURE_SIDE = 320
"""Longest side of the pictures kept for figures, in pixels."""


class Worker:
    """Does jobs of a plan, one after the other.

    Args:
        plan: The plan.
        facts: Versions and the like; go into every node's `done.json`.
        tick: Told about progress.
        say: Told one line about every finished training.
        number: Which of several processes this is.
    """

    def __init__(
        self, plan: Plan, facts: dict[str, Any], tick: Tick, say: Callable[[str], object], number: int = 0
    ) -> None:
        tune_malloc()
        if plan.config.deterministic:  # cuBLAS reads it when it starts
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.plan, self.facts, self.tick, self.say = plan, facts, tick, say
        self.config: RunConfig = plan.config
        self.device = resolve_device(plan.config.device, number)
        self._networks = plan.networks or RunNetworks(
            plan.backbone, plan.config.weights, plan.config.training
        )
        self._sources: dict[str, DecodedDataset] = {}
        self._gate_nets: dict[GateNormalisation, FeatureNet] = {}
        self._alive = LivePrefix(self._new_learner, self._experience, say)

    def do(self, job: Job) -> None:
        """Does one job; what is finished meanwhile, by another run on this folder, is left as it is.

        Raises:
            UserError: If weights or device are wrong, or the disk cannot be written.
            FloatingPointError: If a loss or a score is NaN or infinite; says where.
            OutOfMemory: If memory is used up; says what to lower.
        """
        try:
            self._do(job)
        except OutOfMemory:
            if not self._release_images():
                raise
        else:
            return
        self.say(f"{self.device} is out of memory: starting the job again without keeping images on it")
        torch.cuda.empty_cache()
        self._do(job)

    def _do(self, job: Job) -> None:
        with (
            deterministic_algorithms(self.config.deterministic),
            limited_threads(self.config),
            explain_out_of_memory(*self._lowered(job)),
        ):
            match job.kind:
                case "check":
                    self._networks.start()
                case "gate-net" if job.net:
                    self._gate_net(job.net)
                case "gate" if job.net:
                    self._fit_gates(job.about, job.net)
                case "distances" if job.net:
                    self._answer_gates(job.about, job.net)
                case "train":
                    self._train(self.plan.train[job.about])
                case "scores":
                    self._score(self.plan.train[job.about])
                case "picture":
                    self._keep_pictures(job.about)

    def _lowered(self, job: Job) -> list[str]:
        """Returns the settings that decide how much memory a job needs."""
        known = {"train": ("warmup_batch", "batch", "crop"), "gate-net": ()}
        names = known.get(job.kind, ("resize",))
        return [f"training.{name} (now {getattr(self.config.training, name)})" for name in names]

    def source(self, name: str) -> DecodedDataset:
        """Returns a dataset's decoded images and labels, decoding them if they are not cached."""
        if name not in self._sources:
            material = self.plan.materials[name]
            source = open_source(
                material, self.config.training.resize, max_megapixels=self.config.max_megapixels
            )
            shared = self._pixels_of(material.whole.name, source.cache.keys)
            self._sources[name] = replace(source, cache=shared) if shared else source.on(self.device)
        return self._sources[name]

    def _pixels_of(self, whole: str, keys: list[str]) -> ImageCache | None:
        """Returns the images of a dataset that are on the device already, for another part of it."""
        caches = [source.cache for source in self._sources.values() if base_of(source.name) == whole]
        return next((c for c in caches if isinstance(c, ResidentImages) and c.keys == keys), None)

    def _release_images(self) -> bool:
        """Frees the device memory that the images take; tells whether they took any."""
        caches = [source.cache for source in self._sources.values()]
        taken = [cache.release() for cache in caches if isinstance(cache, ResidentImages)]
        return any(taken)

    @contextmanager
    def _building(self, node: Node, more: dict[str, Any] | None = None) -> Iterator[Path]:
        """As `Node.building`, with facts about the computation; `more` may be extended inside."""
        facts = dict(self.facts, **self._computing)
        start = time.perf_counter()
        with node.building(facts) as folder:
            yield folder
            facts |= more or {}
            facts["seconds"] = round(time.perf_counter() - start, 3)

    @property
    def _computing(self) -> dict[str, Any]:
        """What the last bits of results depend on, besides versions."""
        return {
            "device": str(self.device),
            "device_name": title_of(self.device),
            "threads": torch.get_num_threads(),
            "deterministic": self.config.deterministic,
        }

    # -- gates -----------------------------------------------------------------------------------------------

    def _gate_net(self, kind: GateNormalisation) -> FeatureNet:
        if kind not in self._gate_nets:
            made = DISTORTION_BN[self.config.preset] if kind == "distortion-bn" else None
            net = self._networks.gate(made, self.device, self.tick)
            cast_weights(net, self.config.training.precision)
            self._gate_nets[kind] = net
        return self._gate_nets[kind]

    def _features(self, name: str, subset: Subset, kind: GateNormalisation) -> list[NDArray[np.float32]]:
        """Describes a subset's images: (n, channels) features of each stage."""
        net, sizes = self._gate_net(kind), self.plan.backbone.stage_sizes

        def stages(images: Tensor) -> Tensor:
            return torch.cat(net.gate_features(images), dim=1)

        source, precision = self.source(name), self.config.training.precision
        features = score_images(stages, source, subset, sum(sizes), self.device, precision, self._count)
        return np.split(features, np.cumsum(sizes)[:-1], axis=1)

    def _count(self, images: int) -> None:
        self.tick(images, "", "")

    def _fit_gates(self, dataset: str, kind: GateNormalisation) -> None:
        todo = [g for g in self.plan.missing().gates if (g.dataset, g.net) == (dataset, kind)]
        stages = self._features(dataset, "train", kind) if todo else []
        for gate in todo:
            self._fit_gate(gate, stages)

    def _fit_gate(self, gate: GateWork, stages: list[NDArray[np.float32]]) -> None:
        n = len(stages[0])
        if n < gate.k:
            title = self.source(gate.dataset).title
            self.say(f"gate of {title}: {n} training images, so K = {n} instead of {gate.k}")
        with self._building(gate.node) as folder:
            state = {}
            for s, x in enumerate(stages, 1):
                if gate.space == "standard":
                    scale = whitening(x)
                    state[f"scale{s}"], x = torch.from_numpy(scale), x * scale
                state[f"stage{s}"] = torch.from_numpy(fit_centroids(x, gate.k, gate.dataset, s, gate.seed))
            write_weights(folder / "state.safetensors", state)

    def _answer_gates(self, test: str, kind: GateNormalisation) -> None:
        of_gates = [w for w in self.plan.missing().answers if isinstance(w.of, GateWork)]
        todo = [w for w in of_gates if w.test == test and w.of.net == kind]  # type: ignore[union-attr]
        for subset in dict.fromkeys(work.subset for work in todo):
            with measured(self.device) as usage:
                stages = self._features(test, subset, kind)
            for work in todo:
                if work.subset == subset:
                    distances = distances_to(work.of.node.folder, stages)
                    self._write_answers(work, usage, distances=np.stack(distances, axis=1))

    # -- training --------------------------------------------------------------------------------------------

    def trained(self, work: TrainWork) -> QualityModel:
        """Loads the model that a finished node holds."""
        model = self._networks.trained(work.node.folder, work.strategy, work.seed)
        return model.to(self.device)

    def _learner(self, work: TrainWork, checkpoints: Checkpoints) -> Learner:
        """Continues from where the previous node ended, and from a checkpoint of this one."""
        if not work.strategy.resumable:
            return self._alive.before(work)
        return self._new_learner(work, checkpoints)

    def _checkpoints(self, work: TrainWork) -> Checkpoints:
        facts = dict(self.facts, spec=work.node.spec, **self._computing)
        path = self.config.out / CHECKPOINTS / f"{work.node.id}.safetensors"
        return Checkpoints(path, facts, lambda text: self.say(f"{work_title(self.plan, work)}: {text}"))

    def _new_learner(self, work: TrainWork, *plugins: Checkpoints) -> Learner:
        """Continues from the files of the previous node, if there is one."""
        strategy = replace(work.strategy)  # of its own: nodes share hyper-parameters, not what was learned
        if work.previous is None:
            model, seen = self._networks.untrained(strategy, work.seed), tuple[str, ...]()
        else:
            model, seen = self.trained(work.previous), work.previous.sequence
            strategy.load_state(self._remembered(work.previous.node.folder))
        return Learner(
            model=model, strategy=strategy, training=self.config.training, device=self.device,
            seed=work.seed, tick=self.tick, seen=[self.source(name) for name in seen], plugins=plugins,
        )  # fmt: skip

    def _remembered(self, folder: Path) -> dict[str, Tensor]:
        """Returns what a strategy kept beside the model's weights, on the device; {} for nothing."""
        return {key: tensor.to(self.device) for key, tensor in remembered(folder).items()}

    def _train(self, work: TrainWork) -> None:
        if work.node.done:
            return
        if work.parts:
            self._build(work)
            return
        checkpoints = self._checkpoints(work)
        learner = self._learner(work, checkpoints)
        facts: dict[str, Any] = {}
        with self._building(work.node, facts) as folder:
            with measured(self.device) as usage:
                with logging_to(self.config.log, self.config.out / "logs" / work.node.id) as evaluator:
                    learner.log_to(evaluator)
                    self._experience(learner, work)
                _write_trained(folder, learner)
            facts |= usage.facts()
            if checkpoints.resumed.epochs:
                facts["resumed"] = checkpoints.resumed._asdict()
        checkpoints.remove()
        if not work.strategy.resumable:
            self._alive.keep(work, learner)
        self.say(f"{work_title(self.plan, work)}: validation SRCC {_kept(learner)}, {usage.seconds:.0f} s")

    def _build(self, work: TrainWork) -> None:
        """Builds a model from finished ones; on the CPU, so that it has the same bits everywhere."""
        strategy = replace(work.strategy)
        with self._building(work.node) as folder:
            model = self._networks.untrained(strategy)  # its heads are those of its parts
            parts = [self._networks.trained(part.node.folder, part.strategy) for part in work.parts]
            strategy.build(model, parts)
            write_weights(folder / "state.safetensors", model.own_state())
            write_json(folder / "history.json", [])
        self.say(f"{work_title(self.plan, work)}: built from {plural(len(parts), 'finished model')}")

    def _experience(self, learner: Learner, work: TrainWork) -> None:
        """Lets a learner learn the experience of a node."""
        sources = [self.source(name) for name in work.datasets]
        benchmark = quality_benchmark(
            sources, self.config.training, work.seed, joint=work.joint, first_task=work.first_task
        )
        learner.train(benchmark.train_stream[0], eval_streams=[])

    # -- answers ---------------------------------------------------------------------------------------------

    def _score(self, work: TrainWork) -> None:
        asked = [answer for answer in self.plan.answers.values() if answer.of.node.id == work.node.id]
        todo = [answer for answer in asked if not answer.node.done]
        if not todo:
            return
        model = self.trained(work)
        precision = self.config.training.precision
        scorer, more = Scorer(model), self._extras(work, model)
        cast_weights(scorer.nets, precision)
        for answer in todo:
            source = self.source(answer.test)
            if answer.adapted_by is not None:
                self._score_adapted(answer, answer.adapted_by, model, work.seed)
                continue
            heads = len(scorer.heads)
            with measured(self.device) as usage:
                subset = answer.subset
                scores = score_images(scorer, source, subset, heads, self.device, precision, self._count)
                extras = {
                    name: score_images(network, source, "test", None, self.device, precision)
                    for name, network in more.items()
                    if subset == "test"
                }
            extras |= work.strategy.truths(source) if subset == "test" else {}
            self._write_answers(answer, usage, scores=scores, extras=extras)

    def _score_adapted(self, work: AnswerWork, strategy: Strategy, model: QualityModel, seed: int) -> None:
        source, precision = self.source(work.test), self.config.training.precision
        with measured(self.device) as usage:
            scores = score_adapted(strategy, model, source, seed, self.device, precision, self._count)
        self._write_answers(work, usage, scores=scores, extras={})

    def _extras(self, work: TrainWork, model: QualityModel) -> dict[str, nn.Module]:
        if not work.strategy.overrides("extras"):
            return {}
        strategy = replace(work.strategy)
        strategy.load_state(self._remembered(work.node.folder))
        return {name: network.eval() for name, network in strategy.extras(model).items()}

    def _write_answers(self, work: AnswerWork, usage: Usage, **arrays: Any) -> None:
        source = self.source(work.test)
        facts = {"score_seconds": usage.seconds, **usage.facts("score_")}
        with self._building(work.node, facts) as folder:
            asked = source.indices(work.subset)
            write_answers(
                folder / "answers.npz", np.array(source.keys(work.subset)), source.mos[asked],
                contents=source.contents[asked], **arrays,
            )  # fmt: skip

    def _keep_pictures(self, node_id: str) -> None:
        """Keeps test images of low, middle and high quality, for figures made where the data are not."""
        from PIL import Image

        work = self.plan.pictures[node_id]
        if work.node.done:
            return
        source = self.source(work.test)
        test = source.indices("test")
        by_quality = test[np.argsort(source.mos[test], kind="stable")]
        places = (len(by_quality) - 1) * (2 * np.arange(N_PICTURES) + 1) // (2 * N_PICTURES)
        with self._building(work.node) as folder:
            kept = []
            for number, index in enumerate(by_quality[places]):
                picture = Image.fromarray(source.cache.image(int(index)))
                picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
                picture.save(folder / f"{number}.png")
                kept.append({"file": f"{number}.png", "key": source.ratings[index].key})
            (folder / "keys.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def distances_to(gate: Path, stages: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Returns how far images are from the nearest centroid of a finished gate, (n,) for each stage.

    Args:
        gate: Folder of the gate.
        stages: (n, channels) features of each stage, of unit length.
    """
    if scales := scales_of(gate):
        stages = [x * scale.numpy() for x, scale in zip(stages, scales, strict=True)]
    each = zip(stages, centroids_of(gate), strict=True)
    return [nearest_distance(x, centroids.numpy()) for x, centroids in each]


def _write_trained(folder: Path, learner: Learner) -> None:
    """Writes what a learner has learned in its last experience into the folder of its node."""
    write_weights(folder / "state.safetensors", learner.model.own_state())
    if learned := learner.strategy.state():
        write_weights(folder / "strategy.safetensors", learned)
    if (norm := learner.model.last_statistics(learner.task)) is not None:
        mean, var = (part.double().cpu().numpy() for part in norm)
        write_arrays(folder / "norm.npz", {"mean": mean, "var": var})
    write_json(folder / "history.json", learner.history)


def _kept(learner: Learner) -> str:
    """Returns the validation SRCC of what is kept."""
    last = learner.history[-1]
    if last["stage"] == "skipped":
        return "as before (no opinion scores, so nothing is learned)"
    if last["stage"] == "finish" and (value := last["val_srcc"]) is not None:
        return f"{value:.3f}"
    known = {h["epoch"]: h["val_srcc"] for h in learner.history if h["stage"] != "finish"}
    value = known.get(learner.best_epoch)
    if value is None:
        return "undefined (no opinion scores, constant ones, or a single image)"
    return f"{value:.3f} at epoch {learner.best_epoch}"
