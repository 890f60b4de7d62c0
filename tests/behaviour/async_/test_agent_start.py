"""The original's first workflow, whole: machines of a provider get an agent; and several workers share a fleet."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together_async

import bmdb
from bmdb.model import Event, ProcessName, Provider

Sql = psycopg.Connection[Any]
START, RECOVERY = ProcessName.SHEPHERD_AGENT_START, ProcessName.SHEPHERD_RECOVERY


async def provide(session: bmdb.AsyncSession, count: int, provider: str = Provider.EQUINIX) -> list[UUID]:
    """So many machines that the provider has, nothing else known about them."""

    async def make(q: bmdb.AsyncQueries) -> list[UUID]:
        rack = [(await q.new_machine()).machine_id for _ in range(count)]
        for machine in rack:
            await q.machine_add_provided(machine, provider, f"id-{machine}")
        return rack

    return await session.transact(make)


async def for_start(q: bmdb.AsyncQueries) -> list[Any]:
    return list(await q.machines_for_agent_start(10, Provider.EQUINIX))


async def for_recovery(q: bmdb.AsyncQueries) -> list[Any]:
    return list(await q.machines_for_agent_recovery(10, Provider.EQUINIX))


async def started(q: bmdb.AsyncQueries, machine: UUID) -> None:
    await q.machine_set_agent_started(machine, datetime.now(UTC), b"key")


async def test_an_agent_is_started_once_and_history_tells_it(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession
) -> None:
    (machine,) = await provide(session, 1)
    work = await session.work(START, for_start)
    assert work.machine == machine and work.process == START
    assert await session.transact(for_start) == []
    await work.finish(lambda q: started(q, work.machine))
    with pytest.raises(bmdb.NothingToDo):
        await session.work(START, for_start)
    assert await session.transact(lambda q: q.authenticate_agent(machine, b"key")) is not None
    events = await connection.history_of(machine)
    assert [(event.event, event.process) for event in events] == [(Event.STARTED, START), (Event.FINISHED, START)]
    for event in events:
        assert (event.machine_id, event.session_id, event.component) == (machine, session.uuid, "test")
        assert event.token == work.token
        assert event.failed_cause is None
    assert events[0].timestamp < events[1].timestamp


async def test_a_failed_start_keeps_the_machine_off_until_its_backoff_has_passed(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, sql: Sql
) -> None:
    (machine,) = await provide(session, 1)
    await (await session.work(START, for_start)).fail("connection refused", bmdb.Backoff(300, 4 * 3600, 1.2))
    with pytest.raises(bmdb.NothingToDo):
        await session.work(START, for_start)
    sql.execute("UPDATE work_backoff SET until = clock_timestamp() - interval '1 s'")
    work = await session.work(START, for_start)
    assert work.previous_backoff == 300
    await work.fail("connection refused again", bmdb.Backoff(300, 4 * 3600, 1.2))
    assert [event.failed_cause for event in await connection.history_of(machine) if event.event == Event.FAILED] == [
        "connection refused",
        "connection refused again",
    ]
    row = sql.execute("SELECT last_interval_seconds FROM work_backoff").fetchone()
    assert row == (360,)


async def test_start_and_recovery_exclude_one_another(session: bmdb.AsyncSession, sql: Sql) -> None:
    """The lease itself is per process; it is the queries that leave out what another Shepherd works on."""
    (machine,) = await provide(session, 1)
    silent = "UPDATE machine_agent_started SET agent_started_at = clock_timestamp() - interval '1 hour'"
    starting = await session.work(START, for_start)
    # Even a machine that recovery would want is left alone while a start is on its way.
    await session.transact(lambda q: started(q, machine))
    sql.execute(silent)
    with pytest.raises(bmdb.NothingToDo):
        await session.work(RECOVERY, for_recovery)
    await starting.finish()
    recovering = await session.work(RECOVERY, for_recovery)
    assert recovering.machine == machine
    sql.execute("DELETE FROM machine_agent_started")
    with pytest.raises(bmdb.NothingToDo):
        await session.work(START, for_start)
    await recovering.finish()
    assert (await session.work(START, for_start)).machine == machine


async def test_three_workers_share_six_machines(database: str, session: bmdb.AsyncSession, sql: Sql) -> None:
    """No worker may lease its second machine before each has its first, so all of them must be seen."""
    rack = await provide(session, 6)
    everyone_has_one = asyncio.Barrier(3)
    done: list[tuple[str, UUID]] = []

    async def work(name: str) -> None:
        try:
            async with (
                await bmdb.AsyncConnection.connect(database, component=name) as connection,
                await connection.start_session() as own,
            ):
                first = True
                while True:
                    try:
                        work = await own.work(START, for_start)
                    except bmdb.WorkConflictError:
                        # All that was offered went to the others just now: ask again.
                        continue
                    if first:
                        await everyone_has_one.wait()
                        first = False
                    await work.finish(partial(started, machine=work.machine))
                    done.append((name, work.machine))
        except bmdb.NothingToDo:
            pass
        except BaseException:
            await everyone_has_one.abort()
            raise

    await together_async(*(partial(work, f"worker-{number}") for number in range(3)))
    assert {name for name, _ in done} == {"worker-0", "worker-1", "worker-2"}
    assert Counter(machine for _, machine in done) == Counter(rack)
    finished = sql.execute("SELECT machine_id, component FROM work_history WHERE event = 'Finished'").fetchall()
    assert sorted(finished) == sorted((machine, name) for name, machine in done)
