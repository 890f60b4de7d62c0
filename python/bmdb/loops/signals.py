"""SIGTERM and SIGINT while loops run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

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
