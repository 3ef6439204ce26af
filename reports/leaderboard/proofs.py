"""Proofs: what came out when nodes of a bundle were trained again, a line of JSON each, beside the bundle."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cliqa_bench.results.nodes import file_digest

SUFFIX = ".proofs.jsonl"

# Where bits differ: at most three times the largest difference that tests/prove_tolerances.py found when it
# trained tsn and lwf on three miniatures again (S-CNN, preset quick) under ten settings of an AMD EPYC with
# AVX2, six with other bits. Readouts are computed from heads and distances, and need none of their own.
HEAD_TOLERANCE = 1e-3
"""Of a head's score, which lies in [-1, 1]; 3.5e-4 seen: lwf, ATEN_CPU_CAPABILITY=default (tsn: 9e-8)."""
GATE_TOLERANCE = 6e-6
"""Of a gate's distance, relative to it; 2.1e-6 seen: no AVX in any library. K-means may jump further."""


@dataclass(frozen=True)
class Proof:
    """One node that was trained again and compared.

    Attributes:
        bundle: SHA-256 of the bundle's file.
        node: Name of the train node.
        seed: Of the draw that chose it.
        who: Who says so.
        when: ISO time.
        versions: Package -> version of the machine that trained it again.
        machine: Its processor or GPU.
        scores: Largest difference of a head's score over all test images; 0 for the same bits.
        distances: Largest relative difference of a gate's distance, nan where none was fitted again.
        tolerance: What `scores` was allowed to be.
        gate_tolerance: What `distances` was allowed to be.
    """

    bundle: str
    node: str
    seed: int
    who: str
    when: str
    versions: dict[str, str]
    machine: str
    scores: float
    distances: float
    tolerance: float
    gate_tolerance: float

    @property
    def wrong(self) -> str:
        """What differs by more than is allowed, in a few words; "" if nothing does."""
        found = []
        if not self.scores <= self.tolerance:
            found.append(f"scores differ by up to {self.scores:.2g}, {self.tolerance:.2g} is allowed")
        if self.distances > self.gate_tolerance:
            far = f"{self.distances:.2g} of their size, {self.gate_tolerance:.2g} is allowed"
            found.append(f"the gate's distances differ by up to {far}")
        return "; ".join(found)

    @property
    def holds(self) -> bool:
        """Whether the differences are small enough."""
        return not self.wrong


def proofs_file(bundle: Path) -> Path:
    """Returns where the proofs of a bundle are."""
    return bundle.with_name(bundle.name + SUFFIX)


def append_proof(bundle: Path, proof: Proof) -> None:
    """Adds a line; what was written before stays.

    Raises:
        OSError: If it cannot be written.
    """
    body = {name: None if value != value else value for name, value in asdict(proof).items()}
    with proofs_file(bundle).open("a", encoding="utf-8") as file:
        file.write(json.dumps(body, sort_keys=True, allow_nan=False) + "\n")


def read_proofs(bundle: Path) -> tuple[list[Proof], list[str]]:
    """Reads the proofs of a bundle.

    Returns:
        Those of this very file, and a line for each that is of another file or cannot be read.
    """
    path = proofs_file(bundle)
    if not path.is_file():
        return [], []
    digest, found, odd = file_digest(bundle), [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            proof = _proof(json.loads(line))
        except (ValueError, TypeError, KeyError):
            odd.append(f"{path.name}:{number} is not a proof")
            continue
        if proof.bundle == digest:
            found.append(proof)
        else:
            odd.append(f"{path.name}:{number} is about another version of {bundle.name}")
    return found, odd


def _proof(body: Any) -> Proof:
    if not isinstance(body, dict):
        raise ValueError
    body.setdefault("gate_tolerance", body["tolerance"])  # one for both, in the first lines that were written
    if set(body) != set(Proof.__dataclass_fields__):
        raise ValueError
    read: dict[str, Any] = {name: str(body[name]) for name in ("bundle", "node", "who", "when", "machine")}
    for name in ("scores", "distances", "tolerance", "gate_tolerance"):
        read[name] = math.nan if body[name] is None else float(body[name])
    versions = {str(name): str(value) for name, value in dict(body["versions"]).items()}
    return Proof(seed=int(body["seed"]), versions=versions, **read)
