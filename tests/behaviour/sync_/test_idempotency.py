# Generated from tests/behaviour/async_/test_idempotency.py by tools/generate_sync.py: do not edit.
"""Transactions with an idempotency key are committed once, whoever calls and how often."""

from __future__ import annotations

import threading
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


def write(q: bmdb.Queries) -> str:
    return str(q.fetch_value("INSERT INTO written VALUES ('once') RETURNING what"))


def test_what_is_committed_under_a_key_is_not_done_again(session: bmdb.Session, written: str, sql: Sql) -> None:
    assert session.transact(write, idempotency_key="bill 7") == "once"
    with pytest.raises(bmdb.AlreadyCommittedError, match="'bill 7'|\"bill 7\""):
        session.transact(write, idempotency_key="bill 7")
    assert session.transact(write, idempotency_key="bill 8") == "once"
    assert sql.execute(written).fetchall() == [("once",)] * 2
    rows = sql.execute("SELECT idempotency_key, session_id, component FROM transaction_key ORDER BY 1").fetchall()
    assert rows == [("bill 7", session.uuid, "test"), ("bill 8", session.uuid, "test")]


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
def test_what_came_to_nothing_may_be_done_under_the_same_key(
    session: bmdb.Session, written: str, sql: Sql, isolation: str
) -> None:
    def fail(q: bmdb.Queries) -> None:
        write(q)
        raise LookupError("no")

    with pytest.raises(LookupError):
        session.transact(fail, idempotency_key="key", isolation=isolation)
    assert sql.execute("SELECT count(*) FROM transaction_key").fetchone() == (0,)
    assert session.transact(write, idempotency_key="key", isolation=isolation) == "once"
    with pytest.raises(bmdb.AlreadyCommittedError):
        session.transact(write, idempotency_key="key", isolation=isolation)
    assert sql.execute(written).fetchall() == [("once",)]


def test_a_conflict_runs_it_again_and_what_the_last_run_returned_is_returned(
    session: bmdb.Session, written: str, sql: Sql
) -> None:
    runs: list[int] = []

    def conflict(q: bmdb.Queries) -> int:
        runs.append(len(runs) + 1)
        write(q)
        if len(runs) < 3:
            raise bmdb.DatabaseError("a conflict", "40001")
        return runs[-1]

    assert session.transact(conflict, idempotency_key="key") == 3
    assert sql.execute(written).fetchall() == [("once",)]


@pytest.mark.parametrize("isolation", ["serializable", "read committed"])
def test_of_two_at_once_one_does_it(
    connection: bmdb.Connection, session: bmdb.Session, written: str, sql: Sql, isolation: str
) -> None:
    other = connection.start_session()
    inside, go_on, returned = threading.Event(), threading.Event(), []

    def slow(q: bmdb.Queries) -> str:
        inside.set()
        value = write(q)
        go_on.wait(0.3)
        return value

    def call() -> None:
        returned.append(session.transact(slow, idempotency_key="key", isolation=isolation))

    first = threading.Thread(target=call)
    first.start()
    inside.wait()
    with pytest.raises(bmdb.AlreadyCommittedError):
        other.transact(write, idempotency_key="key", isolation=isolation)
    first.join()
    assert returned == ["once"]
    assert sql.execute(written).fetchall() == [("once",)]


def test_on_a_connection_of_psycopgs(session: bmdb.Session, database: str, written: str, sql: Sql) -> None:
    with psycopg.connect(database) as theirs:
        assert session.transact(write, idempotency_key="key", connection=theirs) == "once"
        with pytest.raises(bmdb.AlreadyCommittedError, match="key"):
            session.transact(write, idempotency_key="key", connection=theirs)
        # It is given back as it was found.
        assert theirs.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert sql.execute(written).fetchall() == [("once",)]


@pytest.mark.parametrize(
    ("key", "problem"),
    [("", "is empty"), ("a\0b", "NUL"), ("k" * 513, "513 bytes, and 512"), ("ü" * 257, "514 bytes")],
    ids=["empty", "NUL", "long", "long in bytes"],
)
def test_a_key_that_cannot_be_one_is_refused(session: bmdb.Session, key: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        session.transact(write, idempotency_key=key)


def test_a_session_that_is_gone_leaves_no_key(session: bmdb.Session, written: str, sql: Sql) -> None:
    sql.execute("DELETE FROM sessions")
    with pytest.raises(bmdb.SessionExpiredError):
        session.transact(write, idempotency_key="key")
    assert sql.execute("SELECT count(*) FROM transaction_key").fetchone() == (0,)


def test_keys_are_forgotten_after_a_week(database: str, sql: Sql) -> None:
    sql.execute(
        "INSERT INTO transaction_key SELECT 'old ' || n, gen_random_uuid(), %s, 'test', now() - interval '8 days'"
        " FROM generate_series(1, 6000) AS n",
        [uuid4()],
    )
    sql.execute(
        "INSERT INTO transaction_key VALUES ('young', gen_random_uuid(), %s, 'test', now() - interval '6 days')",
        [uuid4()],
    )
    with bmdb.connect(database, component="test") as connection:
        connection.collect()
    assert sql.execute("SELECT idempotency_key FROM transaction_key").fetchall() == [("young",)]
