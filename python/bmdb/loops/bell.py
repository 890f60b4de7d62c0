"""What the instances of a loop wait on: threads and tasks alike, woken from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from bmdb.identity import Unique


class Bell(Unique):
    """Rung when it may be worth looking again, and once for good when the runner stops.

    A ring between reading `rings` and waiting is not missed: the wait then ends at once.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._rings = 0
        self._stopped = False
        self._tasks: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def rings(self) -> int:
        """How often it has been rung."""
        return self._rings

    @property
    def stopped(self) -> bool:
        """Whether the runner stops."""
        return self._stopped

    def ring(self) -> None:
        """Wakes all who wait."""
        with self._news:
            self._wake()

    def stop(self) -> None:
        """Wakes all who wait or sleep, now and from now on."""
        with self._news:
            self._stopped = True
            self._wake()

    def wait(self, seen: int, seconds: float) -> None:
        """Waits until the bell is rung more often than `seen`, for so long at most."""
        with self._news:
            self._news.wait_for(lambda: self._stopped or self._rings != seen, seconds)

    async def wait_async(self, seen: int, seconds: float) -> None:
        """The same for a task."""
        await self._wait(seconds, seen)

    def sleep(self, seconds: float) -> bool:
        """Waits so long; only a stop ends it early. Whether there was none."""
        with self._news:
            return not self._news.wait_for(lambda: self._stopped, seconds)

    async def sleep_async(self, seconds: float) -> bool:
        """The same for a task."""
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            await self._wait(left, self._rings)
        return not self._stopped

    async def _wait(self, seconds: float, seen: int) -> None:
        loop = asyncio.get_running_loop()
        waiter = (loop, loop.create_future())
        with self._news:
            if self._stopped or self._rings != seen:
                return
            self._tasks.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter[1]
        finally:
            with self._news:
                self._tasks.discard(waiter)

    def _wake(self) -> None:
        self._rings += 1
        self._news.notify_all()
        for loop, future in self._tasks:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(_resolve, future)
        self._tasks.clear()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
