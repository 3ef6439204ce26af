"""Tables and figures from finished runs; nothing here needs torch or avalanche."""

from __future__ import annotations

from typing import Any

if __name__ == "reports":  # the folder is at the top level of the checkout, its import name is not
    raise ImportError(
        "import cliqa_bench.reports, not reports: the folder is a part of the package cliqa_bench"
    )

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # pandas and scipy are imported when rows are asked for, not when the package is imported
    if name == "load":
        from cliqa_bench.reports.parts import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
