# Generated from tests/behaviour/async_/test_statements.py by tools/generate_sync.py: do not edit.
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
def test_a_call_that_cannot_be_sent_is_refused_at_once(
    session: bmdb.Session, sql: str, params: tuple[object, ...]
) -> None:
    runs: list[int] = []

    def fn(q: bmdb.Queries) -> None:
        runs.append(1)
        q.fetch(sql, *params)

    with pytest.raises(ValueError, match=r"parameters|NUL"):
        session.transact(fn)
    assert runs == [1]


def test_the_transaction_goes_on_after_a_call_that_was_refused(session: bmdb.Session) -> None:
    def fn(q: bmdb.Queries) -> Any:
        with pytest.raises(ValueError, match="parameters"):
            q.fetch("SELECT $1::int")
        return q.fetch_value("SELECT 2")

    assert session.transact(fn) == 2


@pytest.mark.direct("what would stay in the session is refused: tests/faults/test_31_pooler.py")
@pytest.mark.parametrize(
    "statement", ["SET search_path = pg_catalog", "CREATE TEMP TABLE sessions (a int)", "SET TimeZone = 'Asia/Tokyo'"]
)
def test_what_a_statement_leaves_behind_goes_with_its_connection(database: str, statement: str) -> None:
    with (
        bmdb.connect(database, component="test", pool_size=1) as connection,
        connection.start_session() as session,
    ):
        zone = session.transact(lambda q: q.fetch_value("SHOW TimeZone"))
        session.transact(lambda q: q.execute(statement))
        assert session.transact(lambda q: q.fetch_value("SHOW TimeZone")) == zone
        assert session.transact(lambda q: q.count_machines()) == 0


def test_set_local_keeps_the_connection(database: str) -> None:
    with (
        bmdb.connect(database, component="test", pool_size=1) as connection,
        connection.start_session() as session,
    ):
        pid = session.transact(lambda q: q.fetch_value("SELECT pg_backend_pid()"))
        session.transact(lambda q: q.execute("SET LOCAL TimeZone = 'Asia/Tokyo'"))
        assert session.transact(lambda q: q.fetch_value("SELECT pg_backend_pid()")) == pid


def test_a_table_that_changed_under_a_prepared_statement_is_asked_again(
    session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE growing (a int)")
    sql.execute("INSERT INTO growing VALUES (1)")
    read = "SELECT * FROM growing"
    assert session.transact(lambda q: q.fetch(read)) == [(1,)]
    sql.execute("ALTER TABLE growing ADD COLUMN b int")
    assert session.transact(lambda q: q.fetch(read)) == [(1, None)]


def test_a_statement_that_somebody_deallocated_is_prepared_again(session: bmdb.Session) -> None:
    session.transact(lambda q: q.fetch_value("SELECT 7"))
    session.transact(lambda q: q.execute("DEALLOCATE ALL"))
    assert session.transact(lambda q: q.fetch_value("SELECT 7")) == 7
