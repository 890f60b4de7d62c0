"""Closing what is still open when the interpreter exits."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Protocol

from bmdb import _core

# All connections together may take this long at exit, in seconds; what is not released by then is collected later.
EXIT_LIMIT = 1.0


class Closable(Protocol):
    """A connection, as seen from here."""

    _owner: int

    def _close_within(self, seconds: float) -> None: ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()

# Registered first, so that it runs last: after the connections have been closed.
atexit.register(_core.stop_completions)
atexit.register(_core.stop_canary)


def track(connection: Closable) -> None:
    """Closes `connection` at exit if it is still open then."""
    _open.add(connection)
    # Registered anew, so that it runs before what was registered earlier: an embedded server must outlive it.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def untrack(connection: Closable) -> None:
    """Forgets `connection`."""
    _open.discard(connection)


def connections() -> list[Closable]:
    """Those that are open."""
    return list(_open)


def _close_all() -> None:
    # A forked child leaves its parent's connections alone.
    ours = [connection for connection in _open if connection._owner == os.getpid()]
    end = time.monotonic() + EXIT_LIMIT
    for connection in ours:
        # Only begun, so that all close at once.
        connection._close_within(0.0)
    for connection in ours:
        connection._close_within(max(0.0, end - time.monotonic()))
