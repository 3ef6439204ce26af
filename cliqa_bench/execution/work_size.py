"""How large work is, and what a strategy costs: images that pass through a network, values kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.benchmarks.labelled import LabelledDataset
from cliqa_bench.benchmarks.pairs import images_in_step_epoch, n_pairs_for
from cliqa_bench.config import Training
from cliqa_bench.part_names import is_unlabelled
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Subset

if TYPE_CHECKING:
    from cliqa_bench.execution.plan import Plan, TrainWork


def cost(backbone: type[Backbone], strategy: Strategy, tasks: int) -> dict[str, Any]:
    """Returns what a strategy costs after so many tasks.

    Returns:
        `task_parameters`: learnable values added per task; `centroid_values`: numbers the gate keeps per
        task; `backbone_parameters`: of the whole backbone, shared; `gmacs_224`: billions of multiply-adds of
        a pass at 224 x 224, `fixed_gmacs_224` those of the part that all tasks share;
        `passes`: readout -> network passes per image. The gate describes an image in a pass of its own; heads
        that share their normalisation share a pass, and a hard gate needs one head.
    """
    one = strategy.passes
    heads = (tasks if strategy.own_features else 1) * one
    passes = {"gate": heads + 1, "gate-hard": one + 1, "oracle": one, "last": one, "merged": heads}
    stages = strategy.stages or backbone.gate_stages
    gated = "gate" in strategy.table_rows()
    return {
        "task_parameters": strategy.added_parameters(backbone),
        "centroid_values": strategy.centroids * sum(backbone.stage_sizes[s - 1] for s in stages) * gated,
        "backbone_parameters": backbone.n_parameters,
        "gmacs_224": backbone.gmacs,
        "fixed_gmacs_224": backbone.fixed_gmacs,
        "passes": {readout: passes[readout] for readout in strategy.table_rows()},
    }


def memory_cost(plan: Plan, strategy: Strategy, order: Sequence[str]) -> dict[str, int]:
    """Returns how many training images a strategy may see again, and how many numbers it keeps with them.

    The latter is left out where it is not counted.
    """
    every = sum(size_of(plan, name, "train") for name in order)
    images, each = min(strategy.memory_size, every), strategy.values_per_image
    return {"memory_images": images} | ({} if each is None else {"memory_values": each * images})


def size_of(plan: Plan, name: str, subset: Subset) -> int:
    """Returns how many images a subset of a dataset has."""
    return len(plan.materials[name].split.keys(subset))


def images_of(plan: Plan, work: TrainWork) -> int:
    """Returns how many images pass through the network while an experience is trained."""
    return sum(images_by_part(plan, work).values())


def images_by_part(plan: Plan, work: TrainWork) -> dict[str, int]:
    """Returns the same for the parts of a training: "warm-up", "main" (the other epochs), "validation"."""
    if work.parts or work.strategy.skips(not any(map(is_unlabelled, work.datasets))):
        return {"warm-up": 0, "main": 0, "validation": 0}
    training = work.strategy.trained_under(plan.config.training)
    warmup_epochs = training.warmup_epochs
    if work.previous is not None and work.strategy.single_head and training.epochs:
        warmup_epochs = 0  # its head needs none
    materials = [plan.materials[name] for name in work.datasets]
    n_val = sum(len(material.split.keys("val")) for material in materials)
    n_train = _images_of_epoch(work.strategy, training, materials)
    if not work.strategy.by_gradient:  # it looks at them once, and again at the validation images
        return {"warm-up": 0, "main": 0, "validation": n_train + 2 * n_val}
    epochs = warmup_epochs + training.epochs
    return {
        "warm-up": warmup_epochs * n_train,
        "main": training.epochs * n_train,
        "validation": (epochs + work.strategy.overrides("finish")) * n_val,
    }


def _images_of_epoch(strategy: Strategy, training: Training, materials: Sequence[LabelledDataset]) -> int:
    """Returns how many images are learned from in an epoch, each as often as it is."""
    images = [len(material.split.keys("train")) for material in materials]
    in_step = strategy.in_step(images, training.batch) if len(images) > 1 else None
    if in_step is not None and training.pairs == "batch":
        return images_in_step_epoch(images, in_step)
    if training.pairs == "batch":
        return sum(images)
    each = zip(materials, images, strict=True)
    return sum(2 * n_pairs_for(material.dataset, training.n_pairs, n) for material, n in each)
