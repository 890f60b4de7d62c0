"""Row 19: a callback swallows a database error.

Promised: it is tried again if that helps, else that error is raised: never a silent success.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines

PROCESS = "UnitTest1"


@pytest.fixture(autouse=True)
def tally(sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE tally (id int PRIMARY KEY, n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (1, 0)")


def value(sql: psycopg.Connection[Any]) -> int:
    row = sql.execute("SELECT n FROM tally WHERE id = 1").fetchone()
    assert row is not None
    return int(row[0])


class Overtaken:
    """Meets 40001 in its first run, swallows it, and runs no further statement."""

    def __init__(self, sql: psycopg.Connection[Any]) -> None:
        self.sql = sql
        self.swallowed: list[str] = []
        self.runs = 0

    def __call__(self, q: bmdb.Queries) -> str:
        self.runs += 1
        q.fetch_value("SELECT n FROM tally")
        if self.runs == 1:
            self.sql.execute("UPDATE tally SET n = n + 1")
        try:
            q.execute("UPDATE tally SET n = n + 1000")
        except bmdb.DatabaseError as error:
            self.swallowed.append(error.sqlstate)
        return "done"


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_a_swallowed_conflict_is_run_again(session: bmdb.Session, sql: psycopg.Connection[Any], isolation: str) -> None:
    fn = Overtaken(sql)
    assert session.transact(fn, isolation=isolation) == "done"
    assert fn.swallowed == ["40001"]
    assert fn.runs == 2
    assert value(sql) == 1001


def test_a_conflict_swallowed_each_time_exhausts_the_retries(
    session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    def overtaken(q: bmdb.Queries) -> None:
        q.fetch_value("SELECT n FROM tally")
        sql.execute("UPDATE tally SET n = n + 1")
        with contextlib.suppress(bmdb.DatabaseError):
            q.execute("UPDATE tally SET n = n + 1000")

    with pytest.raises(bmdb.RetriesExhaustedError) as caught:
        session.transact(overtaken, max_retries=2)
    assert isinstance(caught.value.__cause__, bmdb.DatabaseError)
    assert caught.value.__cause__.sqlstate == "40001"
    assert value(sql) == 3


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("INSERT INTO tally VALUES (1, 0)", "23505"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT * FROM missing", "42P01"),
        ("SELEKT", "42601"),
    ],
)
def test_any_other_swallowed_error_is_raised_and_nothing_lands(
    session: bmdb.Session, sql: psycopg.Connection[Any], statement: str, sqlstate: str
) -> None:
    runs = 0

    def fn(q: bmdb.Queries) -> str:
        nonlocal runs
        runs += 1
        q.execute("UPDATE tally SET n = 5")
        with contextlib.suppress(Exception):
            q.fetch(statement)
        return "as if nothing had happened"

    with pytest.raises(bmdb.DatabaseError) as caught:
        session.transact(fn)
    assert caught.value.sqlstate == sqlstate
    assert runs == 1
    assert value(sql) == 0
    # The connection is as good as before.
    session.transact(lambda q: q.execute("UPDATE tally SET n = 7"))
    assert value(sql) == 7


def test_a_swallowed_end_of_the_connection_is_run_again_on_another(
    session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    backends: list[int] = []

    def fn(q: bmdb.Queries) -> None:
        backends.append(q.fetch_value("SELECT pg_backend_pid()"))
        q.execute("UPDATE tally SET n = n + 10")
        if len(backends) == 1:
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [backends[0]])
            with contextlib.suppress(bmdb.Error):
                q.fetch("SELECT 1")

    session.transact(fn)
    assert len(set(backends)) == 2
    assert value(sql) == 10


def test_an_error_that_the_callback_undid_by_a_savepoint_counts_for_nothing(
    session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    def fn(q: bmdb.Queries) -> None:
        q.execute("UPDATE tally SET n = 5")
        q.execute("SAVEPOINT attempt")
        with contextlib.suppress(bmdb.DatabaseError):
            q.execute("INSERT INTO tally VALUES (1, 0)")
        q.execute("ROLLBACK TO SAVEPOINT attempt")

    session.transact(fn)
    assert value(sql) == 5


def test_an_error_swallowed_in_finish_leaves_the_work_active_and_its_lease_in_place(
    session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine])

    def commit(q: bmdb.Queries) -> None:
        with contextlib.suppress(bmdb.DatabaseError):
            q.execute("INSERT INTO tally VALUES (1, 0)")

    with pytest.raises(bmdb.DatabaseError) as caught:
        work.finish(commit)
    assert caught.value.sqlstate == "23505"
    assert sql.execute("SELECT token FROM work").fetchall() == [(work.token,)]
    assert work.state == "active"
    work.finish(lambda q: q.execute("UPDATE tally SET n = 9"))
    assert value(sql) == 9
    assert sql.execute("SELECT event FROM work_history ORDER BY timestamp").fetchall() == [("Started",), ("Finished",)]


def test_a_conflict_swallowed_in_finish_is_run_again(
    session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine])
    fn = Overtaken(sql)
    work.finish(fn)
    assert fn.runs == 2 and work.state == "finished"
    assert value(sql) == 1001


class Swallowing:
    """Meets 40001 in its first run, swallows it, then asks once more; what that raises it swallows too, or not."""

    def __init__(self, sql: psycopg.Connection[Any], swallow_next: bool, answer: Any = None) -> None:
        self.sql, self.swallow_next, self.answer = sql, swallow_next, answer
        self.codes: list[str] = []
        self.runs = 0

    def __call__(self, q: bmdb.Queries) -> Any:
        self.runs += 1
        q.fetch_value("SELECT n FROM tally")
        if self.runs == 1:
            self.sql.execute("UPDATE tally SET n = n + 1")
        with contextlib.suppress(bmdb.DatabaseError):
            q.execute("UPDATE tally SET n = n + 1000")
        with contextlib.suppress(bmdb.DatabaseError) if self.swallow_next else contextlib.nullcontext():
            q.fetch("SELECT 1")
        return self.answer


@pytest.mark.parametrize("swallow_next", [True, False], ids=["and the next too", "but not the next"])
def test_a_swallowed_conflict_followed_by_a_statement_is_run_again(
    session: bmdb.Session, sql: psycopg.Connection[Any], swallow_next: bool
) -> None:
    fn = Swallowing(sql, swallow_next)
    session.transact(fn)
    assert fn.runs == 2
    assert sql.execute("SELECT n FROM tally").fetchone() == (1001,)


def test_a_conflict_swallowed_in_a_retrieval_is_run_again(
    session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    # The claim itself is the statement that follows.
    (machine,) = machines(1)
    runs = 0

    def retrieve(q: bmdb.Queries) -> Any:
        nonlocal runs
        runs += 1
        q.fetch_value("SELECT n FROM tally")
        if runs == 1:
            sql.execute("UPDATE tally SET n = n + 1")
        with contextlib.suppress(bmdb.DatabaseError):
            q.execute("UPDATE tally SET n = n + 1000")
        return [machine]

    assert session.work(PROCESS, retrieve).machine == machine
    assert runs == 2


def test_of_several_swallowed_errors_the_first_is_raised(session: bmdb.Session) -> None:
    def fn(q: bmdb.Queries) -> None:
        for _ in range(3):
            with contextlib.suppress(bmdb.DatabaseError):
                q.execute("INSERT INTO tally VALUES (1, 0)")

    with pytest.raises(bmdb.DatabaseError) as caught:
        session.transact(fn)
    assert caught.value.sqlstate == "23505"
