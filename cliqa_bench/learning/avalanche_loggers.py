"""Avalanche's loggers with the numbers of this field: training loss and validation SRCC of every epoch.

`Learner(..., evaluator=quality_evaluator(TensorboardLogger(folder)))`, or `run --log tensorboard`. The
`CSVLogger` of Avalanche has columns for losses and accuracies alone; `SeriesCSV` writes every number.
"""

from __future__ import annotations

import csv
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cliqa_bench.config import LogName
from cliqa_bench.metrics import srcc
from cliqa_bench.system.avalanche_parts import (
    BaseLogger,
    EvaluationPlugin,
    GenericPluginMetric,
    Metric,
    MetricValue,
    PluginMetric,
    TensorboardLogger,
    get_metric_name,
    loss_metrics,
)

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.system.avalanche_parts import SupervisedTemplate


class ValidationSRCC(PluginMetric):
    """SRCC on the validation images after every epoch of our `Learner`; nothing where it is undefined."""

    def __str__(self) -> str:
        """Returns the metric's name."""
        return "SRCC_Val_Epoch"

    def reset(self) -> None:
        """Does nothing: an epoch's value does not depend on the one before."""

    def result(self) -> None:
        """Returns nothing: the learner has the value."""

    def after_training_epoch(self, strategy: Learner) -> list[MetricValue]:
        """Returns the epoch's value, placed at the number of training iterations."""
        value = strategy.history[-1]["val_srcc"]
        if value is None:
            return []
        name = get_metric_name(self, strategy)
        return [MetricValue(self, name, value, strategy.clock.train_iterations)]


class _SRCC(Metric):
    """Collects scores, and says their SRCC."""

    def __init__(self) -> None:
        self.reset()

    def update(self, predicted: Sequence[float], mos: Sequence[float]) -> None:
        self._predicted.extend(predicted)
        self._mos.extend(mos)

    def result(self) -> float:
        return srcc(np.asarray(self._predicted, np.float64), np.asarray(self._mos, np.float64))

    def reset(self) -> None:
        self._predicted: list[float] = []
        self._mos: list[float] = []


class ExperienceSRCC(GenericPluginMetric):
    """SRCC on every experience that `eval` is given: of the newest head, or of a model's only output."""

    def __init__(self) -> None:
        super().__init__(_SRCC(), reset_at="experience", emit_at="experience", mode="eval")

    def __str__(self) -> str:
        """Returns the metric's name."""
        return "SRCC_Exp"

    def update(self, strategy: SupervisedTemplate) -> None:
        """Takes a mini-batch in."""
        newest = strategy.mb_output.detach().float().reshape(len(strategy.mb_y), -1)[:, -1]
        self._metric.update(newest.tolist(), strategy.mb_y.tolist())


def quality_metrics() -> list[Any]:
    """Returns metrics for Avalanche's `EvaluationPlugin`.

    They are `Loss_Epoch` (mean loss of an epoch's mini-batches, penalty included, as Avalanche has it),
    `SRCC_Val_Epoch`, and, of `eval`, `SRCC_Exp`.
    """
    return [*loss_metrics(epoch=True), ValidationSRCC(), ExperienceSRCC()]


def quality_evaluator(*loggers: BaseLogger) -> EvaluationPlugin:
    """Returns an `EvaluationPlugin` with our metrics."""
    return EvaluationPlugin(*quality_metrics(), loggers=list(loggers))


class SeriesCSV(BaseLogger):
    """Writes one row per number: iteration, metric, value.

    Args:
        path: The file; one that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["iteration", "metric", "value"])

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Writes a number; NaN is left out."""
        if isinstance(value, int | float):
            self._rows.writerow([x_plot, name, repr(value)])
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class OfflineWandB(BaseLogger):
    """A run of Weights & Biases that is only written to disk; `wandb sync` uploads it where one wants that.

    Avalanche's `WandBLogger` calls what wandb no longer has (`wandb.util.generate_id`, `wandb.viz`).

    Args:
        folder: Where it goes; its name is the run's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        # it would send telemetry to its makers, offline or not (wandb 0.31.0)
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        self._run = wandb.init(
            project="cliqa_bench",
            name=folder.name,
            dir=folder,
            mode="offline",
            reinit="create_new",
            settings=quiet,
        )

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Logs a number; NaN is left out."""
        if isinstance(value, int | float):
            self._run.log({name: value}, step=x_plot)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


@contextmanager
def logging_to(name: LogName | None, folder: Path) -> Iterator[EvaluationPlugin]:
    """Gives an evaluator that logs one experience, and closes its files at the end.

    Args:
        name: "tensorboard", "csv", "wandb" (offline: nothing is sent), or None for no log.
        folder: Where it goes; what an earlier training of the experience left there is removed.
    """
    if name is None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No loggers specified")
            evaluator = EvaluationPlugin()
        yield evaluator
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logger, close = _opened(name, folder)
    try:
        yield quality_evaluator(logger)
    finally:
        close()


def _opened(name: LogName, folder: Path) -> tuple[BaseLogger, Callable[[], None]]:
    """Returns a logger, and what closes it."""
    if name == "csv":
        series = SeriesCSV(folder / "series.csv")
        return series, series.close
    if name == "tensorboard":
        board = TensorboardLogger(folder)
        return board, board.writer.close
    offline = OfflineWandB(folder)
    return offline, offline.close
