"""Calls without I/O, and the cheapest call there is to compare them with."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from bmdb import Backoff

EXAMPLE = Backoff(1.0, 3600.0, 1.1)
PREVIOUS = 40
CALLS = 200_000


class Empty:
    """Has a method that does nothing."""

    def next(self, previous: int) -> None:
        """Nothing."""


def seconds_per_call(method: Callable[[int], object]) -> float:
    """How long one call takes, from CALLS of them in a row."""
    return timeit.timeit("method(previous)", globals={"method": method, "previous": PREVIOUS}, number=CALLS) / CALLS
