"""Roles with other defaults and fewer rights than the tests' own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import MakeMachines, MakeRole
from tests.processes import eventually_async

import bmdb


async def test_an_ordinary_role_does_everything_but_migrate(role: MakeRole, machines: MakeMachines) -> None:
    offered = machines(1)
    # The schema is there already, so asking for it needs no rights.
    async with (
        await bmdb.AsyncConnection.connect(role(), component="test", migrate=True) as connection,
        await connection.start_session() as session,
    ):
        await (await session.work("UnitTest1", lambda q: offered)).finish(
            lambda q: q.machine_set_hardware_report(offered[0], b"")
        )
        assert await connection.collect() == (0, 0)


async def test_a_role_that_may_not_create_tables_is_told_so(empty_database: str, sql: psycopg.Connection[Any]) -> None:
    name = f"bmdb_role_{uuid.uuid4().hex[:12]}"
    sql.execute(f"CREATE ROLE {name} LOGIN")  # type: ignore[arg-type]
    try:
        with pytest.raises(bmdb.MigrationError, match="as a role that may"):
            await bmdb.AsyncConnection.connect(make_conninfo(empty_database, user=name), component="test", migrate=True)
    finally:
        sql.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting", ["default_transaction_isolation = 'serializable'", "default_transaction_read_only = on"]
)
async def test_the_roles_defaults_do_not_reach_the_heartbeat(
    role: MakeRole, machines: MakeMachines, setting: str
) -> None:
    """A SERIALIZABLE beat would abort the transactions of its own session, which read the row that it writes."""
    offered = machines(1)
    async with (
        await bmdb.AsyncConnection.connect(role(setting), component="test") as connection,
        await connection.start_session(interval=1) as session,
    ):
        runs: list[int] = []

        async def slow(q: bmdb.AsyncQueries) -> None:
            runs.append(1)
            await q.session(session.uuid)
            await asyncio.sleep(1.5)
            await q.machine_set_hardware_report(offered[0], b"")

        await session.transact(slow)
        assert runs == [1]
        assert not session.expired


async def test_a_backend_beyond_reach_does_not_stop_collection(
    role: MakeRole, sql: psycopg.Connection[Any], machines: MakeMachines, connection: bmdb.AsyncConnection
) -> None:
    """Somebody else's holder is stopped in its transaction; others that expired are collected all the same."""
    stopped, other = machines(2)
    lowly = await bmdb.AsyncConnection.connect(role(), component="lowly")
    holder = await connection.start_session(interval=60)
    await holder.work("UnitTest1", lambda q: [stopped])
    lost = await connection.start_session(interval=60)
    await lost.work("UnitTest1", lambda q: [other])

    async def collect_amid(q: bmdb.AsyncQueries) -> Any:
        sql.execute("UPDATE sessions SET session_deadline = now() - interval '1 minute'")
        return await lowly.collect()

    async with lowly:
        assert await holder.transact(collect_amid, isolation="read committed") == (1, 1)

        async def collected() -> bool:
            await lowly.collect()
            return sql.execute("SELECT count(*) FROM work").fetchone() == (0,)

        await eventually_async(collected)


async def test_a_database_that_cannot_hold_every_character_is_refused(
    sql: psycopg.Connection[Any], database: str
) -> None:
    name = f"bmdb_latin_{uuid.uuid4().hex}"
    sql.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")  # type: ignore[arg-type]
    try:
        with pytest.raises(bmdb.MigrationError, match="ENCODING 'UTF8'"):
            await bmdb.AsyncConnection.connect(make_conninfo(database, dbname=name), component="test", migrate=True)
    finally:
        sql.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


async def test_a_role_that_may_not_say_what_it_asks_leases_all_the_same(
    role: MakeRole, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    conninfo = role()
    (name,) = sql.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'bmdb_role_%' ORDER BY oid DESC").fetchone()  # type: ignore[misc]
    sql.execute(f'REVOKE ALL ON process_eligibility FROM "{name}"'.encode())
    async with (
        await bmdb.AsyncConnection.connect(conninfo, component="test") as connection,
        await connection.start_session() as session,
    ):
        work = await session.work("A", bmdb.eligible(lacking=("provided",)))
        assert work.machine == machine
        await work.finish()
    assert sql.execute("SELECT count(*) FROM process_eligibility").fetchone() == (0,)
