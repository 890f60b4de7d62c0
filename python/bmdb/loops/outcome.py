"""What becomes of the work by what its function returned or raised."""

from __future__ import annotations

from typing import Any

from bmdb._core import Backoff, Change
from bmdb.errors import Retry


def parts_of(answer: object) -> tuple[Any, ...]:
    """What `finish` is given for what the function returned; TypeError for anything else."""
    if answer is None:
        return ()
    parts = answer if isinstance(answer, tuple) else (answer,)
    for part in parts:
        if not isinstance(part, Change) and not callable(part):
            raise TypeError(
                "the function must return what finishes the work (a callback, bmdb.set_tag(…), bmdb.clear_tag(…), or a"
                f" tuple of these), or None, not {type(part).__name__}"
            )
    return parts


def cause_of(error: BaseException) -> str:
    """The cause that history keeps: "TypeName: text", without what the database would refuse."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be made)"
    return clean(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def clean(cause: str) -> str:
    """The text without NUL and lone surrogates, which stand there as escapes instead."""
    return cause.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def wished(retry: Retry) -> Backoff | None:
    """The backoff that fails the work for exactly as long as wished; None when nothing was."""
    return None if retry.after is None else Backoff(retry.after)
