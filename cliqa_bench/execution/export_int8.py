"""Convolutions in 8 bits: an ONNX file that scores in a third of the time, and not quite the same.

ONNX Runtime's own tool makes it from the file in float32 (static quantisation): weights get a scale for each
channel, what flows between layers one for each layer, from the ranges that it has on pictures of the user's.
Only convolutions are in 8 bits: pooled features, distances and heads stay in float32. PyTorch's quantised
tensors are not used: they are deprecated. Processors without instructions for 8 bits (VNNI) are slower, and
may round sums off: compare scores on the processor that will be used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.errors import UserError
from cliqa_bench.execution.export_model import Runner, export_onnx, quiet, runner_of_onnx
from cliqa_bench.execution.find_pictures import find_pictures
from cliqa_bench.execution.learned import Learned
from cliqa_bench.execution.own_picture import read_picture
from cliqa_bench.models.exported import INPUT
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.seeds import rng_for

LEAST = 20
"""Pictures that are needed: half of them give the ranges, on the others the scores are compared."""

MOST = 64
"""Pictures that give ranges, and that are compared."""

_MEGAPIXELS = 64.0


class EightBits(NamedTuple):
    """How scores in 8 bits compare with those in float32.

    Attributes:
        pictures: How many were compared; none of them was used for the ranges.
        srcc: Rank correlation of the two, in [-1, 1].
        largest: Largest difference of a score.
    """

    pictures: int
    srcc: float
    largest: float


def export_int8(learned: Learned, to: Path, folder: Path) -> EightBits:
    """Writes an ONNX file whose convolutions are in 8 bits.

    Args:
        learned: The model.
        to: The file.
        folder: Pictures like those that it will score.

    Raises:
        UserError: If there are too few pictures, the extra is missing, or the network cannot be exported.
    """
    pictures = _pictures(folder, learned.facts.protocol.resize)
    with tempfile.TemporaryDirectory() as scratch, atomic_path(to) as temporary:
        whole = Path(scratch) / "whole.onnx"
        export_onnx(learned, whole)
        _quantise(whole, temporary, pictures[::2])
        return _compared(runner_of_onnx(whole), runner_of_onnx(temporary), pictures[1::2])


def _pictures(folder: Path, resize: int) -> list[NDArray[np.uint8]]:
    """Reads pictures of a folder as they are scored; drawn, because neighbours by name often look alike."""
    files = find_pictures([folder]).files
    chosen = [files[i] for i in rng_for("int8").permutation(len(files))[: 2 * MOST]]
    read = [read_picture(path, resize, _MEGAPIXELS).pixels for path in chosen]
    pictures = [pixels for pixels in read if pixels is not None]
    if len(pictures) < LEAST:
        raise UserError(
            f"--int8 {folder} has {len(pictures)} pictures that can be read; at least {LEAST} are needed, "
            "like those that the model will score"
        )
    return pictures


def _quantise(whole: Path, to: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class RangePictures(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{INPUT: pixels[None]} for pixels in pictures])

        def get_next(self) -> Mapping[str, NDArray[np.uint8]] | None:
            return next(self.left, None)

    prepared = whole.with_name("prepared.onnx")
    with quiet():
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            to,
            RangePictures(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # the mean of the pictures' ranges: the widest of all would leave few steps for ordinary pictures
            extra_options={"CalibMovingAverage": True},
        )
    made = onnx.load(to)
    facts = {entry.key: entry.value for entry in onnx.load(whole).metadata_props}
    onnx.helper.set_model_props(made, {**facts, "precision": '"int8"'})
    onnx.save_model(made, to)


def _compared(ours: Runner, theirs: Runner, pictures: Sequence[NDArray[np.uint8]]) -> EightBits:
    found = np.array([[run(pixels[None])[0] for run in (ours, theirs)] for pixels in pictures], np.float64)
    return EightBits(len(pictures), metrics.srcc(*found.T), float(np.abs(np.diff(found, axis=1)).max()))
