"""Waiting in tests: until something holds, and no longer than that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition did not come true") -> T:
    """Wait until `condition()` is true, and return what it returned; asked about every 10 ms.

    Raises TimeoutError, with the text `what`, after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} within {timeout} s")
        time.sleep(0.01)
    return result
