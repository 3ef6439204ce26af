"""The scores of a mini-batch, which cannot be broadcast by mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from cliqa_bench.errors import UserError


class OpinionScores(torch.Tensor):
    """Mean opinion scores as targets (B,), which cannot be compared with predictions (B, 1).

    A network that ends in `Linear(..., 1)` gives (B, 1). PyTorch would compare each of these with each of
    the (B,) scores and teach it their mean; its losses warn of it, plain arithmetic does not. Here it is an
    error. An operation on scores alone gives scores, so that moving, slicing, joining and pickling keep the
    guard, and `y[:, None] - y` is allowed; one on scores and other tensors gives a plain tensor.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls a function of PyTorch.

        Raises:
            UserError: If it would compare every score with every prediction.
        """
        kwargs = kwargs or {}
        tensors = list(_tensors([*args, *kwargs.values()]))
        others = [tensor for tensor in tensors if not isinstance(tensor, cls)]
        if not others:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        loss = getattr(func, "__module__", None) == "torch.nn.functional"
        for scores in tensors:
            if isinstance(scores, cls) and scores.is_floating_point():  # not an index or a mask
                _check_shapes(tuple(scores.shape), others, loss)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> OpinionScores:
        """Copies the scores; PyTorch's own way does not know what subclass to make."""
        copied: OpinionScores = memo.setdefault(id(self), self.clone())
        return copied


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _check_shapes(scores: tuple[int, ...], others: Iterable[torch.Tensor], loss: bool) -> None:
    n = scores[0] if scores else 1
    for other in others:
        shape = tuple(other.shape)
        each_with_each = {scores, shape} == {(n,), (n, 1)} or (loss and scores == (n,) and shape == (n, n))
        if n > 1 and each_with_each:
            raise UserError(
                f"predictions of shape {shape} cannot be compared with opinion scores of shape {scores}: "
                f"each prediction would be compared with every score. Let the network return ({n},): "
                "put torch.nn.Flatten(0) after its last layer, or return scores.squeeze(1)"
            )
