"""Functions that are `async def`: each instance is a task of one event loop, which has a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from bmdb._async.connection import AsyncConnection
from bmdb.loops._async.crew import AsyncCrew
from bmdb.loops.loop import Loop
from bmdb.loops.threads import check_schema

T = TypeVar("T")

_SPARE = 2
# How long cancelled functions may take to clean up, in seconds, before their leases are given back under them.
_CLEAN_UP = 1.0


class Tasks:
    """The loops of a runner whose functions are `async def`."""

    def __init__(self, loops: Sequence[Loop[Any]]) -> None:
        self._loops = loops
        self._connection: AsyncConnection | None = None
        self._running: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._turn, name="bmdb-tasks", daemon=True)
        self._thread.start()
        self.crews: list[AsyncCrew] = []

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def open(self, conninfo: str | None, component: str, migrate: bool, changed: Callable[[], object]) -> str:
        """Connects, and returns a connection string for others. Raises as `connect` does."""

        async def connect() -> str:
            size = sum(loop.parallelism for loop in self._loops) + _SPARE
            connection = await AsyncConnection.connect(
                conninfo, component=component, migrate=migrate, pool_size=size, pooler=None
            )
            try:
                check_schema(await connection.schema_version())
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
            self.crews = [AsyncCrew(loop, connection, changed) for loop in self._loops]
            return connection.conninfo

        return self._do(connect())

    def start(self) -> None:
        """Begins to lease."""

        async def begin() -> None:
            for crew in self.crews:
                for number in range(crew.loop.parallelism):
                    name = f"bmdb-{crew.loop.name}-{number}"
                    self._running.append(asyncio.create_task(crew.serve(), name=name))

        self._do(begin())

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """Of its connection."""
        return [] if self._connection is None else self._connection.metrics()

    def release(self) -> None:
        """Cancels the functions that still run, and gives back all leases."""

        async def cancel() -> None:
            for crew in self.crews:
                crew.interrupt()
            if self._running:
                await asyncio.wait(self._running, timeout=_CLEAN_UP)
            for crew in self.crews:
                await crew.release()

        self._do(cancel())

    def close(self) -> None:
        """Ends the connection and the event loop."""

        async def close() -> None:
            if self._connection is not None:
                await self._connection.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others, timeout=0.1)
            await self._loop.shutdown_asyncgens()

        with contextlib.suppress(RuntimeError):
            self._do(close())
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def give_up(self) -> None:
        """The event loop does not answer, as a function blocks it: gives back all leases from here."""
        if self._connection is not None:
            self._connection._close_within(1.0)
