"""Statements of the user's that go wrong, or that would outlive their transaction.

On bmdb's own connections alone: on a psycopg connection parameters are counted by the server, which aborts the
transaction, and what a statement leaves behind is the user's.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import bmdb


@pytest.mark.parametrize(
    ("sql", "params"),
    [("SELECT $1::int", ()), ("SELECT 1", (1,)), ("SELECT '\0'", ()), ("SELECT $1::text", ("\0",))],
    ids=["too few", "too many", "NUL in the text", "NUL in a value"],
)
async def test_a_call_that_cannot_be_sent_is_refused_at_once(
    session: bmdb.AsyncSession, sql: str, params: tuple[object, ...]
) -> None:
    runs: list[int] = []

    async def fn(q: bmdb.AsyncQueries) -> None:
        runs.append(1)
        await q.fetch(sql, *params)

    with pytest.raises(ValueError, match=r"parameters|NUL"):
        await session.transact(fn)
    assert runs == [1]


async def test_the_transaction_goes_on_after_a_call_that_was_refused(session: bmdb.AsyncSession) -> None:
    async def fn(q: bmdb.AsyncQueries) -> Any:
        with pytest.raises(ValueError, match="parameters"):
            await q.fetch("SELECT $1::int")
        return await q.fetch_value("SELECT 2")

    assert await session.transact(fn) == 2


@pytest.mark.direct("what would stay in the session is refused: tests/faults/test_31_pooler.py")
@pytest.mark.parametrize(
    "statement", ["SET search_path = pg_catalog", "CREATE TEMP TABLE sessions (a int)", "SET TimeZone = 'Asia/Tokyo'"]
)
async def test_what_a_statement_leaves_behind_goes_with_its_connection(database: str, statement: str) -> None:
    async with (
        await bmdb.AsyncConnection.connect(database, component="test", pool_size=1) as connection,
        await connection.start_session() as session,
    ):
        zone = await session.transact(lambda q: q.fetch_value("SHOW TimeZone"))
        await session.transact(lambda q: q.execute(statement))
        assert await session.transact(lambda q: q.fetch_value("SHOW TimeZone")) == zone
        assert await session.transact(lambda q: q.count_machines()) == 0


async def test_set_local_keeps_the_connection(database: str) -> None:
    async with (
        await bmdb.AsyncConnection.connect(database, component="test", pool_size=1) as connection,
        await connection.start_session() as session,
    ):
        pid = await session.transact(lambda q: q.fetch_value("SELECT pg_backend_pid()"))
        await session.transact(lambda q: q.execute("SET LOCAL TimeZone = 'Asia/Tokyo'"))
        assert await session.transact(lambda q: q.fetch_value("SELECT pg_backend_pid()")) == pid


async def test_a_table_that_changed_under_a_prepared_statement_is_asked_again(
    session: bmdb.AsyncSession, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE growing (a int)")
    sql.execute("INSERT INTO growing VALUES (1)")
    read = "SELECT * FROM growing"
    assert await session.transact(lambda q: q.fetch(read)) == [(1,)]
    sql.execute("ALTER TABLE growing ADD COLUMN b int")
    assert await session.transact(lambda q: q.fetch(read)) == [(1, None)]


async def test_a_statement_that_somebody_deallocated_is_prepared_again(session: bmdb.AsyncSession) -> None:
    await session.transact(lambda q: q.fetch_value("SELECT 7"))
    await session.transact(lambda q: q.execute("DEALLOCATE ALL"))
    assert await session.transact(lambda q: q.fetch_value("SELECT 7")) == 7
