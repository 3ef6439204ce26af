"""The conditions under which the rows of the benchmark are measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cliqa_bench.system.hardware import Precision


@dataclass(frozen=True)
class Conditions:
    """What every group of rows is measured with.

    Attributes:
        device: "cpu", "cuda", "cuda:1", ...; settled, never "auto".
        precision: Of the rows that score; "fp32" or "bf16".
        threads: Of PyTorch's computations on a CPU, both sides; set before a group starts.
        repeats: How often each side is measured.
        folder: An empty folder of the group's own, removed when the group is done.
        runs: A folder of finished runs to take models from; None for models made for the purpose.
        scale: Size of the generated data relative to the full one, for the groups that generate much.
        against: Python of an environment with another version of the suite; None where nothing is compared.
    """

    device: str
    precision: Precision
    threads: int
    repeats: int
    folder: Path
    runs: Path | None = None
    scale: float = 1.0
    against: Path | None = None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """float32, and the chosen precision where it is another: what the rows that train measure."""
        return ("fp32",) if self.precision == "fp32" else ("fp32", self.precision)
