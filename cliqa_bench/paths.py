"""Where things that can be made again are kept: decoded images, generated data, downloaded weights."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Returns `$CLIQA_CACHE`, or `~/.cache/cliqa_bench` where that is not set. Nothing is created."""
    named = os.environ.get("CLIQA_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cliqa_bench"
