"""How a thread learns that its session is lost: by waiting for it, or by a callback on a thread of bmdb's."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from tests.proxy import Proxy

import bmdb

Sql = psycopg.Connection[Any]


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_wait_ends_within_50_ms_of_the_loss(proxy: Proxy, database: str, thread: str) -> None:
    """The loss is the end of trust, which the session tells ahead. The best of three, for a busy machine."""
    lateness: list[float] = []

    def wait(session: bmdb.Session) -> None:
        end = time.monotonic() + session.trusted_for
        assert session.wait_expired(10)
        lateness.append(time.monotonic() - end)

    with bmdb.connect(proxy.conninfo(database), component="test") as connection:
        for _ in range(3):
            session = connection.start_session(interval=1)
            with proxy.freezing():
                if thread == "main":
                    wait(session)
                else:
                    other = threading.Thread(target=wait, args=(session,))
                    other.start()
                    other.join()
            assert session.expired
    assert all(late > -0.01 for late in lateness)
    assert min(lateness) < 0.05


def test_a_wait_ends_with_a_loss_that_the_database_tells(connection: bmdb.Connection, sql: Sql) -> None:
    """Measured against the callback, which is told of the same loss."""
    lateness: list[float] = []
    for _ in range(3):
        session = connection.start_session(interval=1)
        told: list[float] = []
        called = threading.Event()

        def note(_: bmdb.Session, told: list[float] = told, called: threading.Event = called) -> None:
            told.append(time.monotonic())
            called.set()

        session.on_expired(note)
        sql.execute("DELETE FROM sessions")
        assert session.wait_expired(10)
        waited = time.monotonic()
        assert called.wait(10)
        lateness.append(abs(waited - told[0]))
    assert min(lateness) < 0.05


def test_the_callback_runs_on_a_thread_of_bmdbs(connection: bmdb.Connection, sql: Sql) -> None:
    other = connection.start_session(interval=60)
    session = connection.start_session(interval=1)
    threads: list[threading.Thread] = []
    counted: list[int] = []
    done = threading.Event()

    def recover(lost: bmdb.Session) -> None:
        assert lost is session
        threads.append(threading.current_thread())
        # Not inside any transaction, so one may be begun, and a session be started.
        counted.append(other.transact(lambda q: q.count_machines()))
        with connection.start_session():
            done.set()

    session.on_expired(recover)

    def while_it_is_lost(q: bmdb.Queries) -> None:
        sql.execute("DELETE FROM sessions WHERE session_id = %s", [session.uuid])
        assert session.wait_expired(10)
        assert done.wait(10), "the callback waits for this transaction"

    other.transact(while_it_is_lost)
    assert counted == [0]
    assert threads[0].name.startswith("bmdb-") and threads[0].daemon


def test_a_callback_for_a_session_that_is_lost_already(connection: bmdb.Connection, sql: Sql) -> None:
    """Registered inside a transaction, it still runs outside of it, on another thread."""
    other = connection.start_session(interval=60)
    session = connection.start_session(interval=1)
    sql.execute("DELETE FROM sessions WHERE session_id = %s", [session.uuid])
    assert session.wait_expired(10)
    threads: list[str] = []
    done = threading.Event()

    def recover(_: bmdb.Session) -> None:
        threads.append(threading.current_thread().name)
        connection.statistics()
        done.set()

    def register(_: bmdb.Queries) -> None:
        session.on_expired(recover)
        assert done.wait(10)

    other.transact(register)
    assert threads[0].startswith("bmdb-")


def test_a_wait_that_is_over_first(connection: bmdb.Connection, session: bmdb.Session) -> None:
    began = time.monotonic()
    assert not session.wait_expired(0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert not session.wait_expired(0)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError()], ids=lambda e: type(e).__name__)
def test_a_callback_that_raises_keeps_no_other_from_being_told(
    connection: bmdb.Connection, sql: Sql, error: BaseException
) -> None:
    def raises(_: bmdb.Session) -> None:
        raise error

    for _ in range(2):
        session = connection.start_session(interval=60)
        told = threading.Event()
        session.on_expired(raises)
        session.on_expired(lambda _, told=told: told.set())
        connection._core.skip_clock(60)
        assert session.wait_expired(10)
        assert told.wait(5)


def test_what_cannot_be_called_is_refused_at_once(session: bmdb.Session) -> None:
    with pytest.raises(TypeError, match="callable"):
        session.on_expired(None)  # type: ignore[arg-type]
