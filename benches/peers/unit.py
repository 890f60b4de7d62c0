"""What a peer's worker does with a unit, and what it tells the harness about it, a line at a time on standard output.

ready            the worker serves from now on
first T          the first unit's function was called (T: CLOCK_MONOTONIC, which all processes of a machine share)
last T           as many were called as were enqueued, or a worker found nothing more
started T        a unit's function was called
released T       a held unit's function returns now
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time

MODES = ("count", "note", "hold")


def tell(word: str, at: float | None = None) -> None:
    """Tell the harness something."""
    sys.stdout.write(f"{word} {time.monotonic() if at is None else at:.6f}\n")
    sys.stdout.flush()


class Unit:
    """The function under each unit. `count` makes it a no-op, `note` tells of each call, `hold` keeps it running.

    Only the first held call is ever released: a worker that takes a unit again must not end it as a new holder.

    `variant` and `short` say how the adapter is set: `short` asks for the shortest time-outs that it allows.
    """

    def __init__(self, mode: str, count: int, variant: str, short: bool) -> None:
        self.mode, self.count, self.variant, self.short = mode, count, variant, short
        self._calls = itertools.count(1)
        self._released = threading.Event()
        if mode == "hold":
            threading.Thread(target=self._listen, daemon=True).start()

    def called(self) -> int:
        """Note a call, and do nothing else. Returns its number."""
        number = next(self._calls)
        if self.mode == "count":
            if number == 1:
                tell("first")
            if number == self.count:
                tell("last")
        else:
            tell("started")
        return number

    def run(self) -> None:
        """The unit's work, on a thread."""
        number = self.called()
        if self.mode == "hold":
            self._released.wait()
            if number > 1:
                threading.Event().wait()
            tell("released")

    async def run_async(self) -> None:
        """The unit's work, as a task."""
        number = self.called()
        if self.mode == "hold":
            while number > 1 or not self._released.is_set():
                await asyncio.sleep(0.05)
            tell("released")

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == "release":
                self._released.set()
