"""Row 38: a transaction inside a transaction; `q` used after its end or from another thread.

Promised: a clear error at once, no hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect

PROCESS = "UnitTest1"
AT_ONCE = 1.0

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def work(session: bmdb.Session, machines: MakeMachines) -> bmdb.Work:
    (machine,) = machines(1)
    return session.work(PROCESS, lambda _: [machine])


def refusal(call: Callable[[], object]) -> str:
    """The text of the WorkStateError with which the call is refused at once."""
    started = time.monotonic()
    with pytest.raises(bmdb.WorkStateError) as caught:
        call()
    assert time.monotonic() - started < AT_ONCE
    return str(caught.value)


INNER: dict[str, Callable[[bmdb.Connection, bmdb.Session, bmdb.Work], object]] = {
    "transact": lambda _, session, __: session.transact(lambda q: q.execute("INSERT INTO writes VALUES ('inner')")),
    "work": lambda _, session, __: session.work(PROCESS, lambda q: []),
    "finish": lambda _, __, work: work.finish(),
    "fail": lambda _, __, work: work.fail("because", bmdb.Backoff(1)),
    "history_of": lambda connection, _, work: connection.history_of(work.machine),
    "statistics": lambda connection, _, __: connection.statistics(),
}


@pytest.mark.parametrize("name", INNER)
def test_a_transaction_inside_a_callback_is_refused_and_the_outer_one_may_go_on(
    connection: bmdb.Connection,
    session: bmdb.Session,
    work: bmdb.Work,
    sql: psycopg.Connection[Any],
    writes: str,
    name: str,
) -> None:
    texts: list[str] = []

    def outer(q: bmdb.Queries) -> str:
        q.execute("INSERT INTO writes VALUES ('outer')")
        texts.append(refusal(lambda: INNER[name](connection, session, work)))
        return "done"

    assert session.transact(outer) == "done"
    assert "inside" in texts[0] and "q" in texts[0]
    assert sql.execute("SELECT what FROM writes").fetchall() == [("outer",)]
    assert sql.execute("SELECT token FROM work").fetchall() == [(work.token,)]


@pytest.mark.parametrize("outermost", ["work", "finish"])
def test_the_same_in_the_other_callbacks(
    session: bmdb.Session, work: bmdb.Work, machines: MakeMachines, outermost: str
) -> None:
    (other,) = machines(1)
    texts: list[str] = []

    def callback(_: bmdb.Queries) -> list[Any]:
        texts.append(refusal(lambda: session.transact(lambda _: None)))
        return [other]

    if outermost == "work":
        assert session.work(PROCESS, callback).machine == other
    else:
        work.finish(callback)
    assert len(texts) == 1


def test_a_refusal_that_surfaces_rolls_the_outer_one_back(
    session: bmdb.Session, sql: psycopg.Connection[Any], writes: str
) -> None:
    def outer(q: bmdb.Queries) -> None:
        q.execute("INSERT INTO writes VALUES ('outer')")
        session.transact(lambda _: None)

    refusal(lambda: session.transact(outer))
    assert sql.execute("SELECT what FROM writes").fetchall() == []
    session.transact(lambda _: None)


def test_another_connections_transaction_inside_is_nobodys_business(
    database: str, session: bmdb.Session, sql: psycopg.Connection[Any], writes: str, connect: Connect
) -> None:
    with connect(database, component="other") as other, other.start_session() as beside:

        def outer(q: bmdb.Queries) -> None:
            q.execute("INSERT INTO writes VALUES ('outer')")
            beside.transact(lambda q: q.execute("INSERT INTO writes VALUES ('beside')"))
            # And back again, which is inside the first for all that.
            refusal(lambda: beside.transact(lambda _: session.transact(lambda _: None)))

        session.transact(outer, isolation="read committed")
    assert sql.execute("SELECT what FROM writes ORDER BY what").fetchall() == [("beside",), ("outer",)]


ASK: dict[str, Callable[[bmdb.Queries], object]] = {
    "fetch": lambda q: q.fetch("SELECT 1"),
    "execute": lambda q: q.execute("INSERT INTO writes VALUES ('late')"),
    "typed": lambda q: q.new_machine(),
    "count": lambda q: q.count_machines(),
}


@pytest.mark.parametrize("name", ASK)
@pytest.mark.parametrize("ending", ["returned", "raised"])
def test_q_after_its_callback(
    session: bmdb.Session, sql: psycopg.Connection[Any], writes: str, name: str, ending: str
) -> None:
    kept: list[bmdb.Queries] = []

    def keep(q: bmdb.Queries) -> None:
        kept.append(q)
        if ending == "raised":
            raise LookupError

    if ending == "raised":
        with pytest.raises(LookupError):
            session.transact(keep)
    else:
        session.transact(keep)
    assert "callback" in refusal(lambda: ASK[name](kept[0]))
    # Another transaction on the same connection is not disturbed, nor does q reach into it.
    assert session.transact(lambda q: refusal(lambda: ASK[name](kept[0])))
    assert sql.execute("SELECT what FROM writes").fetchall() == []


def test_q_of_an_earlier_attempt(session: bmdb.Session, sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")
    runs = 0

    def fn(q: bmdb.Queries) -> int:
        nonlocal runs
        runs += 1
        q.fetch_value("SELECT n FROM tally")
        if runs == 1:
            sql.execute("UPDATE tally SET n = n + 1")
        q.execute("UPDATE tally SET n = n + 10")
        return int(q.fetch_value("SELECT n FROM tally"))

    assert session.transact(fn) == 11
    assert runs == 2


@pytest.mark.one_twin
@pytest.mark.parametrize("name", ASK)
def test_q_from_another_thread(session: bmdb.Session, sql: psycopg.Connection[Any], writes: str, name: str) -> None:
    def fn(q: bmdb.Queries) -> str:
        with ThreadPoolExecutor(1) as other:
            text = other.submit(refusal, lambda: ASK[name](q)).result()
        q.execute("INSERT INTO writes VALUES ('mine')")
        return text

    assert "thread" in session.transact(fn)
    assert sql.execute("SELECT what FROM writes").fetchall() == [("mine",)]


def test_q_from_another_thread_while_it_is_in_use(session: bmdb.Session) -> None:
    def fn(q: bmdb.Queries) -> str:
        texts: list[str] = []
        waits: list[float] = []

        def meddle() -> None:
            time.sleep(0.1)
            began = time.monotonic()
            texts.append(refusal(lambda: q.fetch("SELECT 2")))
            waits.append(time.monotonic() - began)

        meddler = threading.Thread(target=meddle)
        meddler.start()
        assert q.fetch_value("SELECT 7 FROM pg_sleep(0.6)") == 7
        meddler.join()
        # Refused, not queued behind the statement that runs.
        assert waits[0] < 0.3
        return texts[0]

    assert session.transact(fn)


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "BEGIN", "  /* x */ end", "ABORT; SELECT 1"])
def test_ending_the_transaction_by_hand(
    session: bmdb.Session, sql: psycopg.Connection[Any], writes: str, statement: str
) -> None:
    def fn(q: bmdb.Queries) -> None:
        q.execute("INSERT INTO writes VALUES ('mine')")
        refusal(lambda: q.execute(statement))

    session.transact(fn)
    assert sql.execute("SELECT what FROM writes").fetchall() == [("mine",)]


@pytest.mark.timeout(8)
@pytest.mark.parametrize("what", ["session", "connection"])
def test_closing_inside_a_callback_is_refused_or_done_but_does_not_hang(connection: bmdb.Connection, what: str) -> None:
    session = connection.start_session(interval=5.0)
    closing: Any = session if what == "session" else connection
    started = time.monotonic()
    with pytest.raises(bmdb.Error):
        session.transact(lambda q: closing.close())
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("way", ["finish", "fail"])
def test_an_end_that_was_refused_inside_a_callback_leaves_the_work_active(
    session: bmdb.Session, machines: MakeMachines, way: str
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda q: [machine])
    kept: list[BaseException] = []

    def outer(_: bmdb.Queries) -> None:
        try:
            work.finish() if way == "finish" else work.fail("because", bmdb.Backoff(1))
        except bmdb.WorkStateError as error:
            # As logging, a debugger or an exception group may.
            kept.append(error)

    session.transact(outer)
    assert len(kept) == 1
    assert work.state == "active"
    work.finish()
