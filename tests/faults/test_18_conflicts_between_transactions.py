"""Row 18: transactions conflict or deadlock, in a statement or at COMMIT.

Promised: the whole callback runs again, on a new snapshot, with full jitter, up to a limit in count and in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.faults.conftest import Connect

SECONDS = 20.0


@pytest.fixture
def sessions(database: str, connect: Connect) -> Iterator[tuple[bmdb.Session, bmdb.Session]]:
    """Two sessions, each of a connection of its own."""
    with (
        connect(database, component="one") as one,
        connect(database, component="two") as two,
        one.start_session(interval=10.0) as first,
        two.start_session(interval=10.0) as second,
    ):
        yield first, second


@pytest.fixture
def shift(sql: psycopg.Connection[Any]) -> None:
    """Two people on call, of whom one must stay."""
    sql.execute("CREATE TABLE shift (name text PRIMARY KEY, on_call bool NOT NULL)")
    sql.execute("INSERT INTO shift VALUES ('ann', true), ('bob', true)")


class Leaving:
    """A callback by which somebody goes off call if another stays. `read` and `wrote` are told each run's number."""

    def __init__(self, name: str, read: Callable[[int], object], wrote: Callable[[int], object]) -> None:
        self.name = name
        self.seen: list[int] = []
        self.returned = 0
        self._read, self._wrote = read, wrote

    def __call__(self, q: bmdb.Queries) -> bool:
        count = q.fetch_value("SELECT count(*) FROM shift WHERE on_call")
        self.seen.append(count)
        run = len(self.seen)
        self._read(run)
        left = count > 1 and q.execute("UPDATE shift SET on_call = false WHERE name = $1", self.name) == 1
        self._wrote(run)
        self.returned += 1
        return left


def nothing(_: int) -> None:
    pass


def test_a_write_skew_found_at_commit_is_run_again_and_sees_the_rivals_change(
    sessions: tuple[bmdb.Session, bmdb.Session], sql: psycopg.Connection[Any], shift: None
) -> None:
    together = threading.Barrier(2)

    def meet(run: int) -> None:
        if run == 1:
            together.wait(SECONDS)

    # Both have read and written before either commits, so it is a COMMIT that is refused.
    leaving = [Leaving("ann", meet, meet), Leaving("bob", meet, meet)]
    with ThreadPoolExecutor() as threads:
        left = list(threads.map(lambda session, fn: session.transact(fn), sessions, leaving))
    assert sorted(left) == [False, True]
    assert sorted(fn.seen for fn in leaving) == [[2], [2, 1]]
    assert sum(fn.returned for fn in leaving) == 3
    assert sql.execute("SELECT count(*) FROM shift WHERE on_call").fetchone() == (1,)


def test_a_write_skew_found_by_a_statement_is_run_again_and_sees_the_rivals_change(
    sessions: tuple[bmdb.Session, bmdb.Session], sql: psycopg.Connection[Any], shift: None
) -> None:
    has_read, rival_done = threading.Event(), threading.Event()

    def wait(run: int) -> None:
        if run == 1:
            has_read.set()
            assert rival_done.wait(SECONDS)

    # The rival commits between this one's reading and its writing, so it is the UPDATE that is refused.
    slow, fast = Leaving("ann", wait, nothing), Leaving("bob", nothing, nothing)
    with ThreadPoolExecutor() as threads:
        slow_left = threads.submit(sessions[0].transact, slow)
        assert has_read.wait(SECONDS)
        assert sessions[1].transact(fast) is True
        rival_done.set()
        assert slow_left.result(SECONDS) is False
    assert slow.seen == [2, 1] and slow.returned == 1
    assert fast.seen == [2]
    assert sql.execute("SELECT name FROM shift WHERE on_call").fetchall() == [("ann",)]


def test_of_two_that_deadlock_the_victim_is_run_again(
    sessions: tuple[bmdb.Session, bmdb.Session], sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
    sql.execute("INSERT INTO account VALUES (1, 0), (2, 0)")
    together = threading.Barrier(2)
    codes: list[str] = []

    def add(session: bmdb.Session, order: tuple[int, int]) -> int:
        runs = 0

        def fn(q: bmdb.Queries) -> None:
            nonlocal runs
            runs += 1
            for number, account in enumerate(order):
                try:
                    q.execute("UPDATE account SET balance = balance + 1 WHERE id = $1", account)
                except bmdb.DatabaseError as error:
                    codes.append(error.sqlstate)
                    raise
                if runs == 1 and number == 0:
                    together.wait(SECONDS)

        session.transact(fn, isolation="read committed")
        return runs

    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(add, sessions, [(1, 2), (2, 1)]))
    assert codes == ["40P01"]
    assert sorted(runs) == [1, 2]
    assert sql.execute("SELECT balance FROM account").fetchall() == [(2,), (2,)]


@pytest.mark.parametrize("allowed", [0, 3])
def test_retries_end_by_count_and_the_error_tells_how_often_and_why(
    session: bmdb.Session, sql: psycopg.Connection[Any], allowed: int
) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")
    runs = 0

    def overtaken(q: bmdb.Queries) -> None:
        nonlocal runs
        runs += 1
        q.fetch_value("SELECT n FROM tally")
        sql.execute("UPDATE tally SET n = n + 1")
        q.execute("UPDATE tally SET n = n + 1000")

    with pytest.raises(bmdb.RetriesExhaustedError) as caught:
        session.transact(overtaken, max_retries=allowed)
    assert runs == caught.value.attempts == allowed + 1
    cause = caught.value.__cause__
    assert isinstance(cause, bmdb.DatabaseError) and cause.sqlstate == "40001"
    # None of the runs has left anything, and the session can go on.
    assert sql.execute("SELECT n FROM tally").fetchone() == (allowed + 1,)
    assert session.transact(lambda q: q.fetch_value("SELECT n FROM tally")) == allowed + 1


def test_the_connection_says_how_often_unless_the_call_does(
    database: str, sql: psycopg.Connection[Any], connect: Connect
) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")

    def overtaken(q: bmdb.Queries) -> None:
        q.fetch_value("SELECT n FROM tally")
        sql.execute("UPDATE tally SET n = n + 1")
        q.execute("UPDATE tally SET n = n + 1000")

    with (
        connect(database, component="test", max_retries=2) as connection,
        connection.start_session() as session,
    ):
        with pytest.raises(bmdb.RetriesExhaustedError) as caught:
            session.transact(overtaken)
        assert caught.value.attempts == 3
        with pytest.raises(bmdb.RetriesExhaustedError) as caught:
            session.transact(overtaken, max_retries=1)
        assert caught.value.attempts == 2


def test_an_exception_that_wraps_a_conflict_is_run_again_and_one_that_does_not_surfaces_as_it_is(
    session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")
    runs = 0

    def wrapping(q: bmdb.Queries) -> None:
        nonlocal runs
        runs += 1
        q.fetch_value("SELECT n FROM tally")
        if runs == 1:
            sql.execute("UPDATE tally SET n = n + 1")
        try:
            q.execute("UPDATE tally SET n = n + 1000")
        except bmdb.DatabaseError as error:
            raise LookupError("in the user's own words") from error

    session.transact(wrapping)
    assert runs == 2
    assert sql.execute("SELECT n FROM tally").fetchone() == (1001,)

    own = LookupError("nothing to do with the database")

    def raising(q: bmdb.Queries) -> None:
        q.execute("UPDATE tally SET n = -1")
        raise own

    with pytest.raises(LookupError) as caught:
        session.transact(raising)
    assert caught.value is own
    assert sql.execute("SELECT n FROM tally").fetchone() == (1001,)
