"""Row 37: Rust code panics.

Promised: whoever called gets an ordinary exception, at once, also under asyncio and when others share the call; what
else there is goes on. In the heartbeat: the session is lost, and that is reported.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb import _core
from tests.conftest import MakeMachines
from tests.faults.figures import Figure
from tests.processes import eventually

PROCESS = "Panics"
ANY = bmdb.eligible(where="true")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No point is left armed."""
    yield
    _core.fail_at(None)


@pytest.fixture
def session(connection: bmdb.Connection) -> bmdb.Session:
    return connection.start_session(interval=30)


def test_in_a_statement_it_is_an_exception_and_nothing_is_written(
    connection: bmdb.Connection, session: bmdb.Session, writes: str, sql: psycopg.Connection[Any], figure: Figure
) -> None:
    def write(q: bmdb.Queries) -> None:
        q.fetch("INSERT INTO writes VALUES ('before') RETURNING what")
        _core.fail_at("statement")
        q.fetch("INSERT INTO writes VALUES ('never') RETURNING what")

    with pytest.raises(bmdb.Error, match='a bug in bmdb.*\'?asked for at "statement"') as caught:
        session.transact(write)
    assert type(caught.value) is bmdb.Error
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1, "the session goes on"
    figure("ordinary exceptions", 1, of=1)


def test_amid_commit_it_leaves_the_outcome_open_and_that_is_said(
    session: bmdb.Session, writes: str, sql: psycopg.Connection[Any]
) -> None:
    def write(q: bmdb.Queries) -> None:
        q.execute("INSERT INTO writes VALUES ('once')")
        _core.fail_at("commit")

    with pytest.raises(bmdb.AmbiguousCommitError, match="a bug in bmdb") as caught:
        session.transact(write)
    assert caught.value.resolve(timeout=10) is False
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1


@pytest.mark.parametrize("point", ["claim", "end"])
def test_where_calls_are_shared_nobody_waits_for_ever(
    session: bmdb.Session, machines: MakeMachines, point: str
) -> None:
    machines(8)
    held = [session.work(PROCESS, ANY) for _ in range(4)]
    calls = [lambda: session.work(PROCESS, ANY)] * 4 if point == "claim" else [work.finish for work in held]
    outcomes: list[object] = []

    def call(number: int) -> None:
        try:
            outcomes.append(calls[number]())
        except bmdb.Error as error:
            outcomes.append(error)

    _core.fail_at(point)
    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 4, "somebody still waits"
    failed = [outcome for outcome in outcomes if isinstance(outcome, bmdb.Error)]
    assert failed and all("a bug in bmdb" in str(error) for error in failed)
    # The next calls are served as ever.
    session.work(PROCESS, ANY).finish()


def test_in_the_heartbeat_the_session_is_lost_and_that_is_reported(
    connection: bmdb.Connection, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    caplog.set_level(logging.INFO, "bmdb")
    session = connection.start_session(interval=2)
    told = threading.Event()
    session.on_expired(lambda _: told.set())
    _core.fail_at("beat")
    assert told.wait(5), "the holder must be told"
    with pytest.raises(bmdb.SessionExpiredError, match="panicked"):
        session.transact(lambda q: None)
    eventually(lambda: any("panicked" in record.getMessage() for record in caplog.records))
    # A new session gets a new heartbeat.
    with connection.start_session(interval=2) as another:
        assert not another.wait_expired(timeout=3)
    figure("lost and reported", 1, of=1)
