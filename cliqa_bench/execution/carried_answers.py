"""The answers that a model file carries: what its heads predicted for its test images, as tensors.

Of the K-th test set of `ModelFacts.answered` there are `answers.K.`

| tensor | what it is |
|---|---|
| `keys` | names of the images: JSON, as bytes |
| `mos` | (n,) float64, opinion scores, higher is better |
| `scores` | (n, heads) float32, of the heads that answered, from the first |
| `distances` | (n, heads, stages) float32, to the nearest centroid of each task, where there is a gate |
| `contents` | (n,) int64, one number for all images of a reference, where it is known |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cliqa_bench.types import Answers

_KINDS = {
    "keys": (1, torch.uint8),
    "mos": (1, torch.float64),
    "scores": (2, torch.float32),
    "distances": (3, torch.float32),
    "contents": (1, torch.int64),
}
_NEEDED = {"keys", "mos", "scores"}


def answer_tensors(answers: Answers) -> dict[str, Tensor]:
    """Returns the answers to one test set as a file has them."""
    found = {
        "keys": torch.frombuffer(bytearray(json.dumps(answers.keys.tolist()).encode()), dtype=torch.uint8),
        "mos": torch.from_numpy(np.asarray(answers.mos, np.float64)),
        "scores": torch.from_numpy(np.asarray(answers.scores, np.float32)),
    }
    if answers.distances is not None:
        found["distances"] = torch.from_numpy(np.asarray(answers.distances, np.float32))
    if answers.contents is not None:
        found["contents"] = torch.from_numpy(np.asarray(answers.contents, np.int64))
    return found


def answers_of(tensors: Mapping[str, Tensor], tau: float) -> Answers:
    """Returns the answers to one test set that a file carries.

    Args:
        tensors: As `answer_tensors` gave them; `wrong_carried` has found nothing.
        tau: Temperature of the gate by which they are read.
    """
    more = {name: tensors[name].numpy() for name in ("distances", "contents") if name in tensors}
    mos, scores = tensors["mos"].numpy(), tensors["scores"].numpy()
    return Answers(_keys(tensors), mos, scores, more.get("distances"), contents=more.get("contents"), tau=tau)


def trimmed(tensors: Mapping[str, Tensor], heads: Sequence[int]) -> dict[str, Tensor]:
    """Returns the answers to one test set of some heads alone.

    Args:
        tensors: As `answer_tensors` gave them.
        heads: Columns to keep, in this order; those that have not answered are left out.
    """
    kept = [head for head in heads if head < tensors["scores"].shape[1]]
    return {
        name: tensor[:, kept].clone() if name in ("scores", "distances") else tensor
        for name, tensor in tensors.items()
    }


def wrong_carried(tensors: Mapping[str, Tensor], heads: int) -> str:
    """Returns why tensors of a file are not answers of so many heads; "" if they are."""
    if not tensors.keys() >= _NEEDED or not tensors.keys() <= _KINDS.keys():
        return "answers without keys, MOS or scores"
    wrong = [n for n, t in tensors.items() if (t.ndim, t.dtype) != _KINDS[n]]
    if wrong:
        return f"answers whose {wrong[0]} are of another kind"
    try:
        count = len(_keys(tensors))
    except (ValueError, TypeError):
        return "answers whose names of images are damaged"
    if any(len(tensor) != count for name, tensor in tensors.items() if name != "keys"):
        return "answers of different lengths"
    columns = {tensors[name].shape[1] for name in ("scores", "distances") if name in tensors}
    return "" if columns == {heads} else "answers of another number of heads"


def _keys(tensors: Mapping[str, Tensor]) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    names = json.loads(tensors["keys"].numpy().tobytes())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(names)
    return np.array(names, np.str_)
