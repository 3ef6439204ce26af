"""Continual learning for blind image quality assessment: streams, strategies, tables."""

from cliqa_bench._version import __version__

__all__ = ["__version__"]
