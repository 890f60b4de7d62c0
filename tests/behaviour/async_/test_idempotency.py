"""Transactions with an idempotency key are committed once, whoever calls and how often."""

from __future__ import annotations

# async only
import asyncio

# end async only
# sync only
# import threading
# end sync only
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import bmdb

Sql = psycopg.Connection[Any]


@pytest.fixture
def written(sql: Sql) -> str:
    """A table for what transactions write."""
    sql.execute("CREATE TABLE written (what text)")
    return "SELECT what FROM written ORDER BY what"


async def write(q: bmdb.AsyncQueries) -> str:
    return str(await q.fetch_value("INSERT INTO written VALUES ('once') RETURNING what"))


async def test_what_is_committed_under_a_key_is_not_done_again(
    session: bmdb.AsyncSession, written: str, sql: Sql
) -> None:
    assert await session.transact(write, idempotency_key="bill 7") == "once"
    with pytest.raises(bmdb.AlreadyCommittedError, match="'bill 7'|\"bill 7\""):
        await session.transact(write, idempotency_key="bill 7")
    assert await session.transact(write, idempotency_key="bill 8") == "once"
    assert sql.execute(written).fetchall() == [("once",)] * 2
    rows = sql.execute("SELECT idempotency_key, session_id, component FROM transaction_key ORDER BY 1").fetchall()
    assert rows == [("bill 7", session.uuid, "test"), ("bill 8", session.uuid, "test")]


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
async def test_what_came_to_nothing_may_be_done_under_the_same_key(
    session: bmdb.AsyncSession, written: str, sql: Sql, isolation: str
) -> None:
    async def fail(q: bmdb.AsyncQueries) -> None:
        await write(q)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await session.transact(fail, idempotency_key="key", isolation=isolation)
    assert sql.execute("SELECT count(*) FROM transaction_key").fetchone() == (0,)
    assert await session.transact(write, idempotency_key="key", isolation=isolation) == "once"
    with pytest.raises(bmdb.AlreadyCommittedError):
        await session.transact(write, idempotency_key="key", isolation=isolation)
    assert sql.execute(written).fetchall() == [("once",)]


async def test_a_conflict_runs_it_again_and_what_the_last_run_returned_is_returned(
    session: bmdb.AsyncSession, written: str, sql: Sql
) -> None:
    runs: list[int] = []

    async def conflict(q: bmdb.AsyncQueries) -> int:
        runs.append(len(runs) + 1)
        await write(q)
        if len(runs) < 3:
            raise bmdb.DatabaseError("a conflict", "40001")
        return runs[-1]

    assert await session.transact(conflict, idempotency_key="key") == 3
    assert sql.execute(written).fetchall() == [("once",)]


@pytest.mark.parametrize("isolation", ["serializable", "read committed"])
async def test_of_two_at_once_one_does_it(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, written: str, sql: Sql, isolation: str
) -> None:
    other = await connection.start_session()
    # async only
    inside = asyncio.Event()

    async def slow(q: bmdb.AsyncQueries) -> str:
        inside.set()
        value = await write(q)
        await asyncio.sleep(0.3)
        return value

    first = asyncio.create_task(session.transact(slow, idempotency_key="key", isolation=isolation))
    await inside.wait()
    with pytest.raises(bmdb.AlreadyCommittedError):
        await other.transact(write, idempotency_key="key", isolation=isolation)
    assert await first == "once"
    # end async only
    # sync only
    # inside, go_on, returned = threading.Event(), threading.Event(), []
    #
    # def slow(q: bmdb.Queries) -> str:
    #     inside.set()
    #     value = write(q)
    #     go_on.wait(0.3)
    #     return value
    #
    # def call() -> None:
    #     returned.append(session.transact(slow, idempotency_key="key", isolation=isolation))
    #
    # first = threading.Thread(target=call)
    # first.start()
    # inside.wait()
    # with pytest.raises(bmdb.AlreadyCommittedError):
    #     other.transact(write, idempotency_key="key", isolation=isolation)
    # first.join()
    # assert returned == ["once"]
    # end sync only
    assert sql.execute(written).fetchall() == [("once",)]


async def test_on_a_connection_of_psycopgs(session: bmdb.AsyncSession, database: str, written: str, sql: Sql) -> None:
    async with await psycopg.AsyncConnection.connect(database) as theirs:
        assert await session.transact(write, idempotency_key="key", connection=theirs) == "once"
        with pytest.raises(bmdb.AlreadyCommittedError, match="key"):
            await session.transact(write, idempotency_key="key", connection=theirs)
        # It is given back as it was found.
        assert theirs.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert sql.execute(written).fetchall() == [("once",)]


@pytest.mark.parametrize(
    ("key", "problem"),
    [("", "is empty"), ("a\0b", "NUL"), ("k" * 513, "513 bytes, and 512"), ("ü" * 257, "514 bytes")],
    ids=["empty", "NUL", "long", "long in bytes"],
)
async def test_a_key_that_cannot_be_one_is_refused(session: bmdb.AsyncSession, key: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        await session.transact(write, idempotency_key=key)


async def test_a_session_that_is_gone_leaves_no_key(session: bmdb.AsyncSession, written: str, sql: Sql) -> None:
    sql.execute("DELETE FROM sessions")
    with pytest.raises(bmdb.SessionExpiredError):
        await session.transact(write, idempotency_key="key")
    assert sql.execute("SELECT count(*) FROM transaction_key").fetchone() == (0,)


async def test_keys_are_forgotten_after_a_week(database: str, sql: Sql) -> None:
    sql.execute(
        "INSERT INTO transaction_key SELECT 'old ' || n, gen_random_uuid(), %s, 'test', now() - interval '8 days'"
        " FROM generate_series(1, 6000) AS n",
        [uuid4()],
    )
    sql.execute(
        "INSERT INTO transaction_key VALUES ('young', gen_random_uuid(), %s, 'test', now() - interval '6 days')",
        [uuid4()],
    )
    async with await bmdb.AsyncConnection.connect(database, component="test") as connection:
        await connection.collect()
    assert sql.execute("SELECT idempotency_key FROM transaction_key").fetchall() == [("young",)]
