"""What becomes of the work when its function raised."""

from __future__ import annotations

from bmdb._core import Backoff
from bmdb.errors import Retry


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
