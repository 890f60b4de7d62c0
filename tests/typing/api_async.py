"""The async twin, used as its types allow. Nothing here runs: mypy --strict and pyright read it.

A callback may be an `async def` or plain: either way `transact` is awaited for what it comes to. Of a lambda, mypy
cannot tell which of the two it is, and says Any; pyright can.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, assert_type
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as OrmSession
from tests.typing.api import State

import bmdb
from bmdb.model import HistoryEvent, Machine, ProvidedMachine, SessionInfo
from bmdb.psycopg import AsyncPsycopgQueries, run_transaction
from bmdb.sqlalchemy import AsyncOrmQueries
from bmdb.statistics import Statistics

# A function for each kind of callback, to see what comes of it.


async def count(q: bmdb.AsyncQueries) -> int:
    return await q.count_machines()


async def nothing(q: bmdb.AsyncQueries) -> None:
    await q.new_machine()


async def perhaps(q: bmdb.AsyncQueries, machine: UUID) -> Machine | None:
    return await q.machine(machine)


def plain(q: bmdb.AsyncQueries) -> str:
    return type(q).__name__


def eventual(q: bmdb.AsyncQueries) -> Awaitable[int]:
    return q.count_machines()


async def retrieve(q: bmdb.AsyncQueries) -> list[ProvidedMachine]:
    return await q.machines_for_agent_start(1, "Equinix")


async def on_psycopg(q: AsyncPsycopgQueries) -> int:
    assert_type(q.connection, psycopg.AsyncConnection[Any])
    return (await q.connection.execute("…")).rowcount


async def on_orm(q: AsyncOrmQueries) -> None:
    assert_type(q.orm, OrmSession)
    await q.orm.flush()


async def on_connection(conn: psycopg.AsyncConnection[Any]) -> str:
    return conn.info.dbname


def of_a_sync_session(q: bmdb.Queries) -> int:
    return q.count_machines()


async def worker(conninfo: str) -> None:
    async with await bmdb.AsyncConnection.connect(conninfo, component="api", migrate=True) as connection:
        assert_type(connection, bmdb.AsyncConnection)
        async with await connection.start_session(interval=2.5) as session:
            assert_type(session, bmdb.AsyncSession)
            async with session.work("Process", retrieve) as work:
                assert_type(work, bmdb.AsyncWork)
                await work.finish()
            async with await session.work("Process", retrieve) as work:
                assert_type(work, bmdb.AsyncWork)


async def connections(connection: bmdb.AsyncConnection, machine: UUID) -> None:
    assert_type(connection.conninfo, str)
    assert_type(connection.closed, bool)
    assert_type(await connection.migrate(to=1), int)
    assert_type(await connection.schema_version(), int)
    assert_type(await connection.history_of(machine), list[HistoryEvent])
    assert_type(await connection.session_info(machine), SessionInfo | None)
    assert_type(await connection.statistics(), Statistics)
    assert_type((await connection.collect()).leases, int)
    assert_type(await connection.tags_of([machine]), dict[UUID, list[str]])
    bmdb.connect(7, component="api")  # type: ignore[arg-type]
    connection.start_session(interval="soon")  # type: ignore[arg-type, unused-coroutine]


async def transactions(session: bmdb.AsyncSession, machine: UUID) -> None:
    assert_type(await session.transact(count), int)
    assert_type(await session.transact(nothing), None)
    assert_type(await session.transact(plain), str)
    assert_type(await session.transact(eventual), int)
    assert_type(await session.transact(partial(perhaps, machine=machine)), Machine | None)
    number: int = await session.transact(lambda q: q.count_machines())
    text: str = await session.transact(lambda q: "plain")
    await session.transact(count, isolation="serializable", max_retries=3)
    print(number, text)
    session.transact(count, isolation=7)  # type: ignore[call-overload]
    await session.transact(of_a_sync_session)  # type: ignore[arg-type]
    # What is not awaited is no answer.
    number = session.transact(count)  # type: ignore[assignment]


async def foreign_transactions(
    session: bmdb.AsyncSession,
    work: bmdb.AsyncWork,
    pg: psycopg.AsyncConnection[Any],
    engine: AsyncEngine,
    sync: psycopg.Connection[Any],
) -> None:
    assert_type(await session.transact(on_psycopg, connection=pg), int)
    assert_type(await session.transact(on_orm, engine=engine), None)
    await work.finish(on_psycopg, connection=pg)
    await work.finish(on_orm, engine=engine)
    await work.fail("cause", commit=on_psycopg, connection=pg)
    await work.cancel(on_orm, engine=engine)
    assert_type(await run_transaction(pg, on_connection), str)
    assert_type(run_transaction(sync, lambda conn: conn.info.dbname), str)
    await session.transact(on_orm, connection=pg)  # type: ignore[arg-type]
    await session.transact(on_psycopg, connection=sync)  # type: ignore[call-overload]
    await session.transact(on_psycopg, connection=pg, engine=engine)  # type: ignore[call-overload]
    await work.finish(on_psycopg)  # type: ignore[arg-type]


async def sessions(session: bmdb.AsyncSession) -> None:
    assert_type(session.uuid, UUID)
    assert_type(session.expired, bool)
    assert_type(session.trusted_for, float)
    assert_type(session.connection, bmdb.AsyncConnection)
    assert_type(await session.wait_expired(1.0), bool)
    session.on_expired(lambda lost: assert_type(lost, bmdb.AsyncSession))
    assert_type(await session.work("Process", retrieve), bmdb.AsyncWork)
    assert_type(await session.work(bmdb.Process("Process"), lambda q: [UUID(int=7)], max_hold=60), bmdb.AsyncWork)
    await session.work(retrieve)  # type: ignore[arg-type]


async def works(work: bmdb.AsyncWork) -> None:
    assert_type(work.machine, UUID)
    assert_type(work.token, int)
    assert_type(work.state, State)
    assert_type(work.lost, bool)
    assert_type(work.session, bmdb.AsyncSession)
    assert_type(work.backoff, bmdb.Backoff | None)
    work.backoff = bmdb.Backoff(60)
    work.check()
    work.touch()
    await work.finish(nothing)
    await work.finish(plain, isolation="read committed")
    await work.fail("cause", bmdb.Backoff(60))
    await work.cancel()
    work.fail(ValueError("cause"))  # type: ignore[call-overload]


async def queries(q: bmdb.AsyncQueries, machine: UUID) -> None:
    assert_type(await q.machine(machine), Machine | None)
    assert_type(await q.provided_machines("Equinix"), list[ProvidedMachine])
    assert_type(await q.execute("…", 1, "two", None), int)
    assert_type(await q.fetch("…"), list[bmdb.Row])
    assert_type(await q.fetch_one("…"), bmdb.Row | None)
    assert_type(await q.fetch_value("…"), Any)
    await q.notify("Process")


async def ambiguity(error: bmdb.AmbiguousCommitError) -> None:
    assert_type(await error.aresolve(timeout=1.0), bool)
