"""One holder for each (machine, process), within a session and across sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together_async
from tests.conftest import MakeMachines

import bmdb
from bmdb.model import ProcessName

PROCESS = "UnitTest1"
OTHER_PROCESS = "UnitTest2"
Sql = psycopg.Connection[Any]


async def claim(session: bmdb.AsyncSession, machine: UUID, process: str = PROCESS) -> bmdb.AsyncWork:
    return await session.work(process, lambda q: [machine])


def leases(sql: Sql) -> set[tuple[UUID, str, UUID]]:
    return set(sql.execute("SELECT machine_id, process, session_id FROM work").fetchall())


async def test_a_session_excludes_itself(session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    work = await claim(session, machine)
    with pytest.raises(bmdb.WorkConflictError, match=rf"all 1 machines offered.*'{PROCESS}'"):
        await claim(session, machine)
    assert leases(sql) == {(machine, PROCESS, session.uuid)}
    assert work.state == "active"
    await work.finish()


async def test_a_conflict_names_the_process_as_the_database_does(
    session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    await claim(session, machine, ProcessName.UNIT_TEST_1)
    with pytest.raises(bmdb.WorkConflictError, match=f"under process '{PROCESS}'"):
        await claim(session, machine, ProcessName.UNIT_TEST_1)


async def test_sessions_exclude_one_another(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    async with await connection.start_session() as rival:
        work = await claim(session, machine)
        with pytest.raises(bmdb.WorkConflictError):
            await claim(rival, machine)
        assert leases(sql) == {(machine, PROCESS, session.uuid)}
        await work.finish()
        async with await claim(rival, machine):
            assert leases(sql) == {(machine, PROCESS, rival.uuid)}


async def test_connections_exclude_one_another(
    database: str, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    await claim(session, machine)
    async with (
        await bmdb.AsyncConnection.connect(database, component="rival") as connection,
        await connection.start_session() as rival,
    ):
        with pytest.raises(bmdb.WorkConflictError):
            await claim(rival, machine)
        assert leases(sql) == {(machine, PROCESS, session.uuid)}


async def test_another_process_on_the_machine_is_unaffected(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    await claim(session, machine)
    async with await connection.start_session() as rival:
        await claim(session, machine, OTHER_PROCESS)
        await claim(rival, machine, "UnitTest3")
        assert leases(sql) == {
            (machine, PROCESS, session.uuid),
            (machine, OTHER_PROCESS, session.uuid),
            (machine, "UnitTest3", rival.uuid),
        }


async def test_another_machine_is_unaffected(session: bmdb.AsyncSession, machines: MakeMachines) -> None:
    first, second = machines(2)
    assert (await claim(session, first)).machine == first
    assert (await claim(session, second)).machine == second


@pytest.mark.parametrize("ending", ["finish", "fail", "cancel"])
async def test_every_ending_frees_the_machine(
    ending: str, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = await claim(session, machine)
    match ending:
        case "fail":
            await work.fail("no answer", bmdb.Backoff())
        case _:
            await getattr(work, ending)()
    assert leases(sql) == set()
    async with await connection.start_session() as rival, await claim(rival, machine) as next_work:
        assert next_work.token > work.token


async def test_users_of_one_session_share_the_machines_out(session: bmdb.AsyncSession, machines: MakeMachines) -> None:
    rack = machines(12)
    start = asyncio.Barrier(4)
    taken: list[UUID] = []

    async def drain() -> None:
        await start.wait()
        with contextlib.suppress(bmdb.WorkConflictError):
            while True:
                taken.append((await session.work(PROCESS, lambda q: rack)).machine)

    await together_async(*[drain] * 4)
    assert Counter(taken) == Counter(rack)
