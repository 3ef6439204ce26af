"""The settings of a run: data, strategies, orders, and the training protocol with its two presets.

Every field that changes numbers goes into the hash of the work it changes. Each place where the TSN-IQA paper
and its published code disagree is a field, with the paper's choice as the default of the preset `paper`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from cliqa_bench.errors import UserError

PresetName = Literal["quick", "paper"]
LogName = Literal["tensorboard", "csv", "wandb"]

LOCAL, DASK, SLURM = "local", "dask", "slurm"
"""What does the jobs of a run, if no address of a Dask scheduler is given (`--executor`)."""

MAX_MEGAPIXELS = 64.0
"""Largest picture that is decoded by default (`--max-megapixels`), in 10^6 pixels."""


def default_of(setting: Field[Any]) -> Any:
    """Returns the default of a dataclass's field, `MISSING` where it has none."""
    factory = setting.default_factory
    return setting.default if factory is MISSING else factory()


def later(default: Any, since: str, before: Any = MISSING, **metadata: Any) -> Any:
    """Declares a setting that a release after 0.1.0 has added, of `Training` or of a strategy.

    Names of work leave it out while it has the value that does what was done before it was there, so that
    adding it renames no finished work.

    Args:
        default: Its default.
        since: The first release that has it, such as "0.2.0".
        before: The value that does what was done before; the default where none is given. It never changes,
            even if the default does.
        **metadata: More of the field's metadata.
    """
    silent = default if before is MISSING else before
    return field(default=default, metadata={**metadata, "since": since, "before": silent})


def named(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that go into the name of work, as JSON; see `later`.

    Args:
        cls: The dataclass whose fields they are.
        values: Field name -> value, some or all of them.
    """
    silent = {f.name: _plain(f.metadata["before"]) for f in fields(cls) if "since" in f.metadata}
    plain = {name: _plain(value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if name not in silent or value != silent[name]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_AT_LEAST = {
    "crop": 1, "resize": 0, "n_pairs": 1, "warmup_batch": 1, "batch": 1, "warmup_epochs": 0, "epochs": 0,
    "weight_decay": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """The training protocol, shared by all strategies.

    Attributes:
        crop: Side of the random training crop, in pixels.
        resize: An image with both sides at least this long is shrunk until its shorter side has this length,
            in training and in testing (the published code; 0 tests and trains at the original size, which is
            what the paper's IV-A says of testing).
        pairs: "sampled" trains on the dataset's number of random pairs an epoch (the paper); "batch" on all
            pairs of every mini-batch of images.
        n_pairs: With "sampled": "paper" for Table II's number of pairs, "files" for the number in the
            published pair lists, or a number.
        warmup_batch: Pairs (or images, with "batch") in a mini-batch while only the head learns.
        batch: The same once the normalisation (or the whole network) learns.
        warmup_epochs: Epochs in which only the new head learns.
        epochs: Epochs after the warm-up.
        lr: Adam's learning rate.
        decay_epochs: Epochs (counted from the start of the warm-up) at which the rate is divided by ten.
        weight_decay: Adam's weight decay (published code; not in the paper).
        ties: Label of a pair with equal scores: 1 ("paper", Eq. 3) or 0 ("code").
        slope: Probability of a pair: Phi((s1 - s2) / sqrt 2) ("paper", Eq. 4) or Phi(s1 - s2) ("code").
        bn_adapts: Epochs after the warm-up in which normalisation statistics adapt: "all", or only the
            "first" (what the published code does, by accident).
        augment: "crop-flip" (random crop and horizontal flip) or "none" (centre crop).
        precision: "fp32", or "bf16" autocast.
    """

    crop: int = 384
    resize: int = 768
    pairs: Literal["sampled", "batch"] = "sampled"
    n_pairs: Literal["paper", "files"] | int = "paper"
    warmup_batch: int = 128
    batch: int = 32
    warmup_epochs: int = 4
    epochs: int = 8
    lr: float = 1e-3
    decay_epochs: tuple[int, ...] = (8,)
    weight_decay: float = 5e-4
    ties: Literal["paper", "code"] = "paper"
    slope: Literal["paper", "code"] = "paper"
    bn_adapts: Literal["all", "first"] = "all"
    augment: Literal["crop-flip", "none"] = "crop-flip"
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        """Refuses numbers that no training can use.

        Raises:
            UserError: If a number is out of its range.
        """
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, str) and not least <= value < math.inf:
                raise UserError(f"training.{name} must be at least {least}, not {value}")
        if not 0 < self.lr < math.inf:
            raise UserError(f"training.lr must be above 0, not {self.lr}")
        if self.warmup_epochs + self.epochs < 1:
            raise UserError("training.warmup_epochs and training.epochs are both 0: nothing would be learned")


PRESETS: dict[PresetName, Training] = {
    "paper": Training(),
    # A quarter of the paper's lengths, for the generated miniatures. They give a fiftieth of the paper's
    # steps: with its rate a head would stay too short to tell a pair apart. Hence a rate twenty times as
    # high, chosen on the validation sets of two splits.
    "quick": replace(
        Training(), crop=96, resize=192, pairs="batch", warmup_batch=16, batch=16, warmup_epochs=2, epochs=6,
        lr=2e-2, decay_epochs=(6,),
    ),
}  # fmt: skip

PRESET_BACKBONE: dict[PresetName, str] = {"paper": "resnet18", "quick": "scnn"}


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on, after presets, file and flags are resolved.

    Attributes:
        strategy: Names of the strategies.
        orders: Label ("I".."VIII", or the comma-separated sequence) -> dataset names.
        data: Folder of the real datasets; None for generated miniatures.
        backbone: Name of the backbone.
        weights: Path of the backbone's pre-trained weights, "random", or None for the usual places.
        seeds: Seeds of the training.
        split: "1", "2", ... for the seeded split of that number, or a path with published split files.
        splits: Numbers of all splits that are asked for together, of which `split` is one; none for a single
            one. See `each_split`.
        preset: Which preset the training protocol started from.
        training: The protocol.
        params: Strategy name -> hyper-parameters that differ from its defaults.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        out: Folder of the results.
        test_on: Datasets that every strategy is tested on, with all their images, and that none learns.
        include: Files of the user's that define strategies, datasets or backbones, absolute.
        jobs: Number of processes that work side by side, or "auto"; changes no result.
        threads: Threads of a process's computations on a CPU; another number changes last digits of
            results. None for one (on a GPU, for PyTorch's own choice): then no number of cores changes one.
        tables: Tables of the user's that are datasets, as `csv:PATH?OPTIONS`, the path absolute; orders and
            `test_on` have the short names that they go by.
        max_megapixels: Largest image that is decoded, in 10^6 pixels; changes no result.
        srgb: Whether the colour profiles of published datasets are converted to sRGB, as those of your own
            pictures are; the published code ignores them.
        deterministic: Whether a GPU, too, gives the same bits each time; a CPU does anyway.
        log: Logger of loss and validation SRCC during training, into `logs/` of `out`; changes no result.
        orders_as: How `orders` was asked for, where that is shorter ("every:live,csiq,bid"); [] where not.
        executor: What does the jobs: "local", "dask", the address of a Dask scheduler, or "slurm"; changes no
            result, and is written down nowhere.
    """

    strategy: list[str]
    orders: dict[str, list[str]]
    data: Path | None
    backbone: str
    weights: str | None
    seeds: list[int]
    split: str
    preset: PresetName
    training: Training
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    splits: list[int] = field(default_factory=list)
    device: str = "auto"
    out: Path = Path("runs")
    test_on: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    jobs: int | Literal["auto"] = 1
    threads: int | None = None
    srgb: bool = False
    deterministic: bool = False
    log: LogName | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    orders_as: list[str] = field(default_factory=list)
    executor: str = LOCAL

    @property
    def split_folder(self) -> str:
        """The folder of published files that several splits are in; "" for seeded ones."""
        return self.split.rpartition("#")[0] if self.splits else ""


def each_split(config: RunConfig) -> list[RunConfig]:
    """Returns a configuration for each of the splits that are asked for together, else the configuration.

    Each makes the very work that it would make if its split were asked for alone.
    """
    before = f"{config.split_folder}#" if config.split_folder else ""
    return [replace(config, split=f"{before}{number}") for number in config.splits] or [config]
