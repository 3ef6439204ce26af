"""What failed in an output folder and has not been done since: a small file each, for `status`."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from pathlib import Path

from cliqa_bench.errors import UserError
from cliqa_bench.results.nodes import FAILED, read_json, write_json
from cliqa_bench.types import Json

_KEYS = ("title", "reason", "when", "where")


def note_failure(out: Path, claim: str, title: str, reason: str) -> None:
    """Records that a piece of work failed; a full disk does not stop the run here.

    Args:
        out: Folder of the results.
        claim: Its name, see `nodes.claim_name`.
        title: What it is, for people.
        reason: What went wrong, in one line.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    where = f"process {os.getpid()} on {platform.node()}"
    with contextlib.suppress(UserError):
        body = dict(zip(_KEYS, (title, reason, now, where), strict=True))
        write_json(out / FAILED / f"{claim}.json", body, lasting=False)


def forget_failure(out: Path, claim: str) -> None:
    """Removes what was written down about a piece of work that is done now, and the folder with the last."""
    path = out / FAILED / f"{claim}.json"
    with contextlib.suppress(OSError):
        path.unlink()
        path.parent.rmdir()


def read_failures(out: Path) -> dict[str, Json]:
    """Returns what failed: name of the claim -> title, reason, when (ISO 8601, UTC) and where."""
    found: dict[str, Json] = {}
    for path in sorted((out / FAILED).glob("[!.]*.json")):
        with contextlib.suppress(UserError):  # removed meanwhile, or without an owner
            body = read_json(path)
            if isinstance(body, dict):
                found[path.stem] = {key: str(body.get(key, "")) for key in _KEYS}
    return found
