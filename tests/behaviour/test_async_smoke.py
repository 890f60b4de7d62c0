"""The asyncio twin does what the sync API does; the core beneath is the same, so one pass over each act is enough."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

PROCESS = "UnitTest1"
pytestmark = pytest.mark.uvloop
Sql = psycopg.Connection[Any]


@pytest.fixture
async def twin(database: str) -> AsyncIterator[bmdb.AsyncConnection]:
    async with await bmdb.AsyncConnection.connect(database, component="twin") as connection:
        yield connection


@pytest.fixture
async def session(twin: bmdb.AsyncConnection) -> AsyncIterator[bmdb.AsyncSession]:
    async with await twin.start_session(interval=5) as started:
        yield started


def events(sql: Sql, machine: UUID) -> list[str]:
    query = 'SELECT event FROM work_history WHERE machine_id = %s ORDER BY "timestamp"'
    return [event for (event,) in sql.execute(query, [machine])]


async def test_it_connects_migrates_and_closes(empty_database: str) -> None:
    async with await bmdb.AsyncConnection.connect(empty_database, component="twin", migrate=True) as connection:
        assert await connection.schema_version() == 6
        assert await connection.migrate() == 6
        assert (await connection.statistics()).machines == 0
        before = connection.closed
    assert (before, connection.closed) == (False, True)
    await connection.close()


async def test_a_session_lives_and_is_closed(twin: bmdb.AsyncConnection) -> None:
    async with await twin.start_session(interval=1) as session:
        assert not await session.wait_expired(1.5)
        info = await twin.session_info(session.uuid)
        assert info is not None and info.session_live and info.session_component_name == "twin"
        assert 0 < session.trusted_for <= 0.8
    assert session.expired
    assert await twin.session_info(session.uuid) is None
    with pytest.raises(bmdb.SessionExpiredError):
        await session.transact(lambda q: q.count_machines())


async def test_callbacks_may_be_async_or_return_an_awaitable(session: bmdb.AsyncSession) -> None:
    async def write(q: bmdb.AsyncQueries) -> UUID:
        machine = (await q.new_machine()).machine_id
        await q.machine_set_hardware_report(machine, b"x")
        return machine

    machine = await session.transact(write)
    found = await session.transact(lambda q: q.fetch_value("SELECT machine_id FROM machines"))
    assert found == machine
    assert await session.transact(functools.partial(read, name="count_machines")) == 1


async def read(q: bmdb.AsyncQueries, *, name: str) -> Any:
    return await getattr(q, name)()


async def test_a_plain_callback_may_return_a_plain_value(session: bmdb.AsyncSession, machines: MakeMachines) -> None:
    rack = machines(1)
    value = object()
    returned: Any = await session.transact(lambda q: value)
    assert returned is value
    work = await session.work(PROCESS, lambda q: rack)
    assert work.machine == rack[0]
    await work.cancel()


async def test_its_own_exception_surfaces_and_nothing_lands(session: bmdb.AsyncSession, sql: Sql) -> None:
    error = RuntimeError("mine")

    async def fail(q: bmdb.AsyncQueries) -> None:
        await q.new_machine()
        raise error

    with pytest.raises(RuntimeError) as caught:
        await session.transact(fail)
    assert caught.value is error
    assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)


async def test_work_is_leased_failed_and_finished(
    twin: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)

    async def offer(q: bmdb.AsyncQueries) -> list[bmdb.Row]:
        return await q.fetch("SELECT machine_id FROM machines")

    async with await session.work(PROCESS, offer) as work:
        with pytest.raises(bmdb.WorkConflictError):
            await session.work(PROCESS, offer)
        await work.fail("no answer", bmdb.Backoff(1, 5, 2.0))
        assert work.state == "failed"
    work = await session.work(PROCESS, offer)
    assert (work.machine, work.process, work.previous_backoff) == (machine, PROCESS, 1)

    async def refuse(q: bmdb.AsyncQueries) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work.finish(refuse)
    states = [work.state]
    await work.finish(lambda q: q.machine_set_hardware_report(machine, b"done"))
    assert [*states, work.state] == ["active", "finished"]
    async with await session.work(PROCESS, offer) as work:
        pass
    assert work.state == "canceled"
    await work.cancel()
    expected = ["Started", "Failed", "Started", "Finished", "Started", "Canceled"]
    assert events(sql, machine) == expected
    assert [event.event for event in await twin.history_of(machine)] == expected
    assert sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone() == (1,)


async def test_a_finish_inside_another_transaction_is_refused(
    session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    rack = machines(1)
    work = await session.work(PROCESS, lambda q: rack)
    with pytest.raises(bmdb.WorkStateError) as caught:
        await session.transact(lambda q: work.finish())
    # Also while the exception holds the frames that it passed through.
    assert caught.value.__traceback__ is not None
    assert work.state == "active"
    await work.finish()


async def test_nothing_to_do(session: bmdb.AsyncSession) -> None:
    async def nothing(q: bmdb.AsyncQueries) -> list[UUID]:
        return []

    with pytest.raises(bmdb.NothingToDo):
        await session.work(PROCESS, nothing)


async def test_tasks_run_side_by_side(session: bmdb.AsyncSession) -> None:
    """While one transaction waits in the database, the event loop and the other transactions go on."""

    async def wait(q: bmdb.AsyncQueries) -> None:
        await q.execute("SELECT pg_sleep(0.5)")

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(session.transact(wait, isolation="read committed") for _ in range(4)))
    assert loop.time() - began < 1.5


async def test_a_loss_wakes_and_is_told_on_the_loop(twin: bmdb.AsyncConnection, sql: Sql) -> None:
    told: asyncio.Queue[tuple[bmdb.AsyncSession, asyncio.AbstractEventLoop]] = asyncio.Queue()
    async with await twin.start_session(interval=1) as session:
        session.on_expired(lambda lost: told.put_nowait((lost, asyncio.get_running_loop())))
        waiting = asyncio.create_task(session.wait_expired())
        await asyncio.sleep(0)
        sql.execute("DELETE FROM sessions")
        assert await asyncio.wait_for(waiting, 3)
        assert await asyncio.wait_for(told.get(), 3) == (session, asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        assert told.empty()


async def test_closing_is_no_loss_to_tell_of(database: str) -> None:
    told: list[bmdb.AsyncSession] = []
    async with await bmdb.AsyncConnection.connect(database, component="twin") as connection:
        session = await connection.start_session(interval=60)
        session.on_expired(told.append)
    await asyncio.sleep(0.1)
    assert told == []


async def test_collection(twin: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql) -> None:
    rack = machines(1)
    async with await twin.start_session(interval=60) as session:
        await session.work(PROCESS, lambda q: rack)
        sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 s'")
        assert await twin.collect() == (1, 1)
    assert events(sql, rack[0]) == ["Started", "Lost"]


async def test_a_generator_function_is_refused(session: bmdb.AsyncSession) -> None:
    async def generate(q: bmdb.AsyncQueries) -> AsyncIterator[int]:
        yield await q.count_machines()

    with pytest.raises(TypeError, match="generator function"):
        await session.transact(generate)  # type: ignore[arg-type]


async def test_so_is_a_generator_returned(session: bmdb.AsyncSession, sql: Sql) -> None:
    """It would run after its transaction."""

    async def write(q: bmdb.AsyncQueries) -> Iterator[int]:
        await q.new_machine()
        return (number for number in [1])

    with pytest.raises(TypeError, match="returned a generator"):
        await session.transact(write)
    assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)
