"""Exceptions of a user's own strategy, dataset or backbone: shown with their lines, not with ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType

from cliqa_bench.extensions.user_code import is_users_module

HEADING = "Traceback (most recent call last; only the lines of your own code):\n"


def is_users(error: BaseException) -> bool:
    """Tells whether the user's code raised an exception, directly or through a library that it called.

    Where it called us and we raised, it may be a bug of ours.
    """
    whose = [_is_users(frame) for frame in _frames(error) if _is_users(frame) or _is_ours(frame)]
    return bool(whose) and whose[-1]


def format_error(error: BaseException) -> str:
    """Returns the traceback of an exception: the user's lines of one that is theirs, else all of it."""
    if not is_users(error):
        return "".join(traceback.format_exception(error))
    told = traceback.TracebackException.from_exception(error)
    _keep_users_lines(error, told)
    return "".join(told.format()).replace("Traceback (most recent call last):\n", HEADING)


def place_of(error: BaseException) -> str:
    """Returns the user's file and line that an exception came from, "" where it is not theirs."""
    if not is_users(error):
        return ""
    places = [p for p, frame in zip(_summary(error), _frames(error), strict=False) if _is_users(frame)]
    return f"{places[-1].filename} line {places[-1].lineno}"


def _frames(error: BaseException) -> Iterator[FrameType]:
    return (frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _summary(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _is_users(frame: FrameType) -> bool:
    return is_users_module(str(frame.f_globals.get("__name__")), frame.f_code.co_filename)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "cliqa_bench"


def _keep_users_lines(error: BaseException, told: traceback.TracebackException) -> None:
    """Drops the other lines, of what the exception came from too; what has none of the user's stays whole."""
    own = [line for line, frame in zip(told.stack, _frames(error), strict=False) if _is_users(frame)]
    if own:
        told.stack = traceback.StackSummary.from_list(own)
    for cause, its in ((error.__cause__, told.__cause__), (error.__context__, told.__context__)):
        if cause is not None and its is not None:
            _keep_users_lines(cause, its)
