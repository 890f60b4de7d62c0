"""SIGTERM and SIGINT while loops run."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from bmdb import logs

_LOGGER = logs.logger("bmdb.loops")

# Seconds until a signal that met another thread is seen.
_TICK = 0.5

HANDLED = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def handled(receive: Callable[[int], object]) -> Iterator[None]:
    """Within the block, gives these signals to `receive`, and the handlers before it back at the end.

    Off the main thread, where Python allows no handlers, it does nothing. `receive` may be called amid anything that
    the main thread does, also itself, so it must take no lock that is not reentrant.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        for number in HANDLED:
            signal.signal(number, lambda received, _: receive(received))
        yield
    finally:
        for number, handler in before.items():
            # None: set by something other than Python, which cannot be put back.
            if handler is not None:
                signal.signal(number, handler)


class Stoppable(Protocol):
    """A Runner."""

    def start(self) -> Any: ...

    def stop(self, *, now: bool = False) -> None: ...

    def wait(self, timeout: float | None = None) -> bool: ...


def attend(runner: Stoppable) -> None:
    """Starts the runner, and waits for its end or for the signals that ask for it.

    Raises what the runner raises, and SystemExit after a second signal.
    """
    # Its `put` may interrupt itself, which no lock of Python's may.
    received: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with handled(received.put):
        runner.start()
        threading.Thread(target=_announce, args=(runner, received), name="bmdb-end", daemon=True).start()
        signals = last = 0
        while (number := _next(received)) is not None:
            signals, last = signals + 1, number
            _LOGGER.info("signal %d: %s", number, "stopping" if signals == 1 else "giving back and exiting now")
            runner.stop(now=signals > 1)
        runner.wait()
    if signals > 1:
        raise SystemExit(128 + last)


def _next(received: queue.SimpleQueue[int | None]) -> int | None:
    while True:
        # A signal that met another thread does not end the wait of this one, which runs the handlers.
        with contextlib.suppress(queue.Empty):
            return received.get(timeout=_TICK)


def _announce(runner: Stoppable, received: queue.SimpleQueue[int | None]) -> None:
    # Whoever is told asks again, and then sees what was raised.
    with contextlib.suppress(BaseException):
        runner.wait()
    received.put(None)
