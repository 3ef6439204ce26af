"""Continual learning for blind image quality assessment: streams, strategies, tables."""

from typing import TYPE_CHECKING, Any

from cliqa_bench._version import __version__

if TYPE_CHECKING:
    from cliqa_bench.execution.loaded_model import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports what needs PyTorch only on request: importing the package stays cheap."""
    if name == "load":
        from cliqa_bench.execution.loaded_model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
