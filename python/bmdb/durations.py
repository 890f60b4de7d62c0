"""Lengths of time as callers give them: seconds, or a timedelta."""

from __future__ import annotations

import math
from datetime import timedelta


def positive_seconds(name: str, given: object) -> float | None:
    """`given` in seconds; None stays None, and means no limit.

    Raises TypeError, naming the argument, for what is neither a number nor a timedelta, and ValueError unless it is
    finite and more than zero.
    """
    if given is None:
        return None
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{name} must be seconds, a timedelta or None, not {type(given).__name__}")
    if not math.isfinite(given) or given <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {given}")
    return float(given)
