"""A model for other programs: ONNX, and PyTorch's exported programs (`.pt2`), checked once they are written.

Both come from one graph of `torch.export`. ONNX is written by PyTorch's newer exporter (`dynamo=True`): it
takes that graph, names the axes of every output, and is the one that PyTorch maintains; the older one, ten
times as quick, is deprecated since PyTorch 2.9.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import Learned
from cliqa_bench.execution.model_file import facts_for_others
from cliqa_bench.models.exported import INPUT, WholeModel
from cliqa_bench.models.gated import GatedScorer
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.seeds import rng_for
from cliqa_bench.system.signals import raise_if_stopped

LEAST_SIDE = 64
"""Shortest side that an exported program promises to take, in pixels: two of the largest strides."""

TOLERANCE = 1e-4
"""How far scores of an exported model may be from ours."""

SIZES = ((64, 96), (97, 131), (128, 128), (200, 64), (224, 320))
"""Heights and widths of the pictures on which an exported model is checked."""

OPSET = 18
"""Of ONNX; what every runtime of the last years reads."""

EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(learned: Learned, to: Path) -> float:
    """Writes an ONNX file.

    Args:
        learned: The model.
        to: The file.

    Returns:
        The largest difference of a score from ours on pictures of `SIZES`.

    Raises:
        UserError: If the extra is missing, the network cannot be exported, or the file gives other scores.
    """
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise UserError(
            f'ONNX needs {", ".join(missing)}: pip install "cliqa_bench[onnx]"; '
            "--to model.pt2 needs nothing more"
        )
    scorer = learned.scorer(torch.device("cpu"))
    whole, program = _program(learned, scorer)
    with atomic_path(to) as temporary:
        _write_onnx(whole, program, learned, temporary)
        return _checked(learned, scorer, runner_of_onnx(temporary))


def export_program(learned: Learned, to: Path) -> float:
    """Writes a `.pt2` file, which `torch.export.load` reads; else as `export_onnx`."""
    scorer = learned.scorer(torch.device("cpu"))
    _, program = _program(learned, scorer)
    with atomic_path(to) as temporary:
        told = {"cliqa_bench.json": json.dumps(facts_for_others(learned.measured()), sort_keys=True)}
        with _export_errors(learned):  # not all that can be a graph can be a file
            torch.export.save(program, temporary, extra_files=told)
        return _checked(learned, scorer, runner_of_program(temporary))


def _program(learned: Learned, scorer: GatedScorer) -> tuple[WholeModel, Any]:
    """Returns the network, and its graph for any number of images of any height and width."""
    if any(getattr(head, "windows", None) is not None for head in scorer.heads):
        raise UserError(
            f"{learned.name} looks at a picture in windows, whose number depends on its size, and cannot be "
            "exported like this; use --to model.safetensors"
        )
    whole = WholeModel(scorer)
    pixels = torch.zeros(2, 3 * LEAST_SIDE, 2 * LEAST_SIDE, 3, dtype=torch.uint8)
    with _export_errors(learned):
        return whole, torch.export.export(whole, (pixels,), dynamic_shapes=_axes())


def _axes() -> dict[str, dict[int, Any]]:
    """Returns which axes of the input may have any length, and what they are called."""
    dim = torch.export.Dim
    return {INPUT: {0: dim("n", min=1), 1: dim("height", min=LEAST_SIDE), 2: dim("width", min=LEAST_SIDE)}}


@contextlib.contextmanager
def _export_errors(learned: Learned) -> Iterator[None]:
    """Reports in one line that a network cannot be exported, and hides the exporters' other output."""
    try:
        with quiet():
            yield
    except Exception as error:  # torch raises many kinds of errors for what it cannot trace
        raise_if_stopped()
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(
            f"the network of {learned.name} ({learned.facts.backbone}) cannot be exported by PyTorch "
            f"{torch.__version__} ({said:.300}); use --to model.safetensors"
        ) from error


def _write_onnx(whole: WholeModel, program: Any, learned: Learned, to: Path) -> None:
    import onnx

    with _export_errors(learned):
        made = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=_axes(),  # once more, or axes are called s77
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=whole.outputs,
            verbose=False,
        )
        proto = made.model_proto  # type: ignore[union-attr]
    facts = {
        name: json.dumps(what, sort_keys=True) for name, what in facts_for_others(learned.measured()).items()
    }
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, to)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what the exporters print about their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Takes pixels (N, H, W, 3) to scores (N,)."""


def runner_of_onnx(file: Path, threads: int = 1) -> Runner:
    """Returns what scores pixels with an ONNX file, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(["score"], {INPUT: pixels})[0])


def runner_of_program(file: Path) -> Runner:
    """Returns what scores pixels with a `.pt2` file."""
    with quiet():
        network = torch.export.load(file).module()

    def score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(pixels))[0].numpy())

    return score


def _checked(learned: Learned, scorer: GatedScorer, run: Runner) -> float:
    """Returns the largest difference of scores from ours.

    Raises:
        UserError: If one is larger than `TOLERANCE`, or not a number.
    """
    from cliqa_bench.benchmarks.pixels.cache import to_float

    worst, rng = 0.0, rng_for("export")
    for number, (height, width) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (1 + number % 2, height, width, 3), np.uint8)
        with torch.inference_mode():
            ours = scorer(to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))).scores
        worst = float(np.maximum(worst, np.abs(ours - run(pixels)).max()))  # nan stays
        if not worst <= TOLERANCE:
            raise UserError(
                f"{learned.name}, exported, scores a picture of {height} x {width} pixels {worst:.2g} off; "
                "it was not written"
            )
    return worst
