"""What a peer's worker does with a unit, and what it tells the harness about it, a line at a time on standard output.

ready            the worker serves from now on
first T          the first unit's function was called (T: CLOCK_MONOTONIC, which all processes of a machine share)
last T           as many were called as were enqueued, or a worker found nothing more
started T        a unit's function was called
released T       a held unit's function returns now
refused T        what it wrote before was refused
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Awaitable, Callable


def tell(word: str, at: float | None = None) -> None:
    """Tell the harness something."""
    sys.stdout.write(f"{word} {time.monotonic() if at is None else at:.6f}\n")
    sys.stdout.flush()


class Unit:
    """The function under each unit. `count` makes it a no-op, `note` tells of each call, `hold` keeps it running.

    Only the first held call is ever released: a worker that takes a unit again must not end it as a new holder. `write`
    holds as many as `count`, each of which, released, writes a row before it returns; `standby` wants no units at all.

    `variant` and `short` say how the adapter is set: `short` asks for the shortest time-outs that it allows.
    """

    def __init__(self, mode: str, count: int, variant: str, short: bool) -> None:
        self.mode, self.count, self.variant, self.short = mode, count, variant, short
        self._calls = itertools.count(1)
        self._released = threading.Event()
        # Where a function that writes does so, if its queue offers no transaction for it.
        self.conninfo = ""
        if mode in ("hold", "write"):
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

    async def run_async(self, write: Callable[[], Awaitable[object]] | None = None) -> None:
        """The unit's work, as a task; `write` writes a row into `late_writes` in whatever the queue offers for that."""
        number = self.called()
        if self.mode not in ("hold", "write"):
            return
        last = 1 if self.mode == "hold" else self.count
        while number > last or not self._released.is_set():
            await asyncio.sleep(0.05)
        if self.mode == "write":
            try:
                await (write or self._write_plainly)()
            except Exception:
                tell("refused")
                raise
        tell("released")

    async def _write_plainly(self) -> None:
        import psycopg

        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute("INSERT INTO late_writes DEFAULT VALUES")

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == "release":
                self._released.set()
