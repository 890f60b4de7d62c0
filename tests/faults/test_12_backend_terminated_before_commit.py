"""Row 12: an administrator ends the backend before COMMIT (57P01).

Promised: the whole callback runs again elsewhere, and that is counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import bmdb

Terminate = Callable[[bmdb.Queries, psycopg.Connection[Any]], object]


def by_itself(q: bmdb.Queries, _: psycopg.Connection[Any]) -> None:
    q.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def from_outside(q: bmdb.Queries, sql: psycopg.Connection[Any]) -> None:
    """The next statement finds the connection closed."""
    pid = q.fetch_value("SELECT pg_backend_pid()")
    assert sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
    q.execute("INSERT INTO writes VALUES ('never')")


def unnoticed(q: bmdb.Queries, sql: psycopg.Connection[Any]) -> None:
    """No statement follows, so the loss is found when COMMIT is due. It was never sent, so there is no doubt."""
    pid = q.fetch_value("SELECT pg_backend_pid()")
    assert sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)


def swallowed(q: bmdb.Queries, sql: psycopg.Connection[Any]) -> None:
    """The callback hides the error and returns as if all were well."""
    with contextlib.suppress(bmdb.Error):
        from_outside(q, sql)


def wrapped(q: bmdb.Queries, sql: psycopg.Connection[Any]) -> None:
    """The callback raises its own exception, caused by the loss of the connection."""
    try:
        from_outside(q, sql)
    except bmdb.Error as error:
        raise LookupError("no answer") from error


@pytest.mark.parametrize("terminate", [by_itself, from_outside, unnoticed, swallowed, wrapped])
def test_the_whole_callback_runs_again(
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    metric: Callable[..., float],
    terminate: Terminate,
) -> None:
    backends: list[int] = []

    def write(q: bmdb.Queries) -> str:
        backends.append(q.fetch_value("SELECT pg_backend_pid()"))
        q.execute("INSERT INTO writes VALUES ($1)", f"run {len(backends)}")
        if len(backends) == 1:
            terminate(q, sql)
        return f"result {len(backends)}"

    assert session.transact(write) == "result 2"
    assert len(set(backends)) == 2
    assert sql.execute("SELECT what FROM writes").fetchall() == [("run 2",)]
    assert metric(connection, "bmdb_transaction_executed") == 1
    assert metric(connection, "bmdb_transaction_retried") == 1
    assert metric(connection, "bmdb_transaction_failed") == 0


def test_it_gives_up_in_the_end(session: bmdb.Session, sql: psycopg.Connection[Any]) -> None:
    runs: list[int] = []

    def suicide(q: bmdb.Queries) -> None:
        runs.append(1)
        q.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(bmdb.RetriesExhaustedError) as caught:
        session.transact(suicide, max_retries=3)
    assert caught.value.attempts == len(runs) == 4
    assert isinstance(caught.value.__cause__, bmdb.DatabaseError | bmdb.ConnectionFailedError)
