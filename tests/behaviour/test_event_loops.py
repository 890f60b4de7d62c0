"""What an event loop has to do with it: context variables, loops that come and go, asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn

import bmdb

PROCESS = "UnitTest1"
REQUEST: ContextVar[str] = ContextVar("request", default="none")

# Closes a loop while statements are in flight, and goes on in another one.
CLOSED_LOOP = """
    import asyncio
    import gc
    import sys
    import time

    import uvloop
    import bmdb

    new_event_loop = {"asyncio": asyncio, "uvloop": uvloop}[sys.argv[2]].new_event_loop
    told = []

    async def begin():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        session = await connection.start_session(interval=60)
        session.on_expired(told.append)
        sleep = lambda q: q.fetch("SELECT pg_sleep(0.5)")
        tasks = [asyncio.ensure_future(session.transact(sleep)) for _ in range(3)]
        tasks.append(asyncio.ensure_future(session.wait_expired()))
        await asyncio.sleep(0.2)
        return connection, session, tasks

    loop = new_event_loop()
    connection, session, tasks = loop.run_until_complete(begin())
    assert not any(task.done() for task in tasks)
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # or asyncio complains, and rightly so
    time.sleep(0.6)  # the answers come, and nobody is there to be told

    async def again():
        print(await session.transact(lambda q: q.fetch_value("SELECT 7")))
        await session.close()  # waits for the transactions that it fences: they were rolled back
        await connection.close()

    loop = new_event_loop()
    loop.run_until_complete(again())
    loop.close()
    del tasks, task
    gc.collect()
"""

# Two programs, one after the other, each with a connection that it does not close.
TWICE = """
    import asyncio
    import sys

    import uvloop
    import bmdb

    new_event_loop = {"asyncio": asyncio, "uvloop": uvloop}[sys.argv[2]].new_event_loop
    kept = []

    async def main():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        session = await connection.start_session(interval=60)
        kept.append((connection, session))
        await session.transact(lambda q: q.new_machine())
        return [await session.transact(lambda q: q.count_machines()) for _, session in kept]

    for _ in range(2):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            print(runner.run(main()))
"""


@pytest.fixture
async def session(database: str) -> AsyncIterator[bmdb.AsyncSession]:
    """A session of an AsyncConnection of its own."""
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session() as started,
    ):
        yield started


@pytest.mark.uvloop
async def test_the_loop_is_the_one_that_the_tests_name_says(request: pytest.FixtureRequest) -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop") == ("uvloop" in request.node.name)


@pytest.mark.uvloop
async def test_callbacks_see_the_callers_context_and_what_they_set_stays_set(
    session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    rack = machines(1)
    seen: list[str] = []

    def plain(q: bmdb.AsyncQueries) -> list[UUID]:
        seen.append(REQUEST.get())
        REQUEST.set(f"{REQUEST.get()}+")
        return rack

    async def coroutine(q: bmdb.AsyncQueries) -> list[UUID]:
        await q.count_machines()
        return plain(q)

    REQUEST.set("7")
    await session.transact(plain)
    await session.transact(coroutine)
    work = await session.work(PROCESS, coroutine)
    await work.finish(coroutine)
    assert seen == ["7", "7+", "7++", "7+++"]
    assert REQUEST.get() == "7++++"


@pytest.mark.uvloop
async def test_tasks_have_contexts_of_their_own(session: bmdb.AsyncSession) -> None:
    async def call(name: str) -> Any:
        REQUEST.set(name)

        async def look(q: bmdb.AsyncQueries) -> str:
            await q.fetch("SELECT pg_sleep(0.01)")
            return REQUEST.get()

        return await session.transact(look, isolation="read committed")

    names = [str(number) for number in range(8)]
    assert await asyncio.gather(*map(call, names)) == names
    assert REQUEST.get() == "none"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_that_is_closed_with_statements_in_flight_hurts_nobody(loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(CLOSED_LOOP, database, loop)
    assert worker.wait() == 0, worker.errors
    assert (worker.lines, worker.errors) == (["7"], [])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_process_may_have_one_loop_after_another(loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(TWICE, database, loop)
    assert worker.wait() == 0, worker.errors
    # In the second loop the first one's session serves, too.
    assert (worker.lines, worker.errors) == (["[1]", "[2, 2]"], [])
