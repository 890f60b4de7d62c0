"""Calls of the core that wait for nothing, awaited by many asyncio tasks: the way to the I/O thread and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import bmdb

TASKS = 256


async def _per_second(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    """How many calls all tasks together have awaited in a second."""
    started = time.perf_counter()
    end = started + seconds
    done = 0

    async def task() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    await asyncio.gather(*(task() for _ in range(TASKS)))
    return done / (time.perf_counter() - started)


def core_calls(conninfo: str, seconds: float) -> float:
    """Looks at a session that lives, which is answered without the database."""

    async def measure() -> float:
        async with (
            await bmdb.AsyncConnection.connect(conninfo, component="benchmark") as connection,
            await connection.start_session(interval=60) as session,
        ):
            return await _per_second(lambda: session.wait_expired(0), seconds)

    return asyncio.run(measure())


def thread_calls(seconds: float) -> float:
    """A function that does nothing, on the threads of asyncio's own executor."""
    return asyncio.run(_per_second(lambda: asyncio.get_running_loop().run_in_executor(None, int), seconds))
