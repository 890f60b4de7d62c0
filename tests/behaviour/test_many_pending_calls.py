"""More calls at once than the queues have places: all of them end, and memory stays within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
import psycopg
from tests.conftest import MakeMachines

import bmdb

CALLS = 24_000
# A task, its coroutines, its future and its place in a queue: some KB for each call.
BYTES_A_CALL = 12 * 1024
UNREPORTED = bmdb.eligible(lacking=("hardware_report",))


class Memory:
    """How much more memory this process takes than it did, at the most so far."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.most = 0

    def look(self) -> None:
        self.most = max(self.most, self._process.memory_info().rss - self._before)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.05)


async def test_finishes(database: str, machines: MakeMachines, sql: psycopg.Connection[Any]) -> None:
    machines(CALLS)
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session(interval=60) as session,
    ):
        works: list[bmdb.AsyncWork] = []
        while len(works) < CALLS:
            works += await session.work_many("UnitTest1", 500, UNREPORTED)
        memory = Memory()
        watching = asyncio.ensure_future(memory.watch())
        answers = await asyncio.gather(*(work.finish() for work in works), return_exceptions=True)
        watching.cancel()
        memory.look()
        assert answers == [None] * CALLS
    counted = sql.execute("SELECT count(*), count(DISTINCT machine_id) FROM work_history WHERE event = 'Finished'")
    assert counted.fetchone() == (CALLS, CALLS)
    assert memory.most < CALLS * BYTES_A_CALL, f"{memory.most / CALLS:.0f} bytes for each call"


async def test_claims_with_little_to_do(database: str, machines: MakeMachines) -> None:
    machines(100)
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session(interval=60) as session,
    ):
        memory = Memory()
        watching = asyncio.ensure_future(memory.watch())
        calls = (session.work("UnitTest1", UNREPORTED) for _ in range(CALLS))
        answers = await asyncio.gather(*(asyncio.ensure_future(call) for call in calls), return_exceptions=True)
        watching.cancel()
        memory.look()
        works = [answer for answer in answers if isinstance(answer, bmdb.AsyncWork)]
        assert len(works) == 100
        assert sum(isinstance(answer, bmdb.NothingToDo) for answer in answers) == CALLS - 100
        assert memory.most < CALLS * BYTES_A_CALL, f"{memory.most / CALLS:.0f} bytes for each call"
