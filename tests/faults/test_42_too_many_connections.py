"""Row 42: the server has no connections left (53300).

Promised: a clear error after a few spaced tries, or success once there is room.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.proxy import Proxy

SETTINGS = {"max_connections": "6", "superuser_reserved_connections": "0"}


@pytest.fixture(scope="module")
def small() -> Iterator[EmbeddedServer]:
    """A server that lets six in."""
    with EmbeddedServer(SETTINGS) as running:
        with bmdb.connect(running.dsn(), component="test", migrate=True):
            pass
        yield running


@contextlib.contextmanager
def filled(server: EmbeddedServer) -> Iterator[list[psycopg.Connection[Any]]]:
    """Takes every connection that is left, and gives them back."""
    taken: list[psycopg.Connection[Any]] = []
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                taken.append(psycopg.connect(server.dsn(), autocommit=True))
            except psycopg.OperationalError as error:
                assert "too many" in str(error)
                break
        yield taken
    finally:
        for connection in taken:
            connection.close()


@pytest.fixture
def through(small: EmbeddedServer) -> Iterator[Proxy]:
    with Proxy(*small.address) as proxy:
        yield proxy


def test_opening_a_connection_is_refused_with_the_servers_words(
    small: EmbeddedServer, through: Proxy, connect: Connect
) -> None:
    with filled(small):
        started = time.monotonic()
        with pytest.raises(bmdb.ConnectionFailedError, match="too many"):
            connect(through.conninfo(small.dsn()), component="test")
        assert time.monotonic() - started < 5
    assert len(through.connections) <= 6


def test_a_transaction_tries_a_few_times_and_tells_why(small: EmbeddedServer, through: Proxy, connect: Connect) -> None:
    with (
        connect(through.conninfo(small.dsn()), component="test") as connection,
        connection.start_session(interval=20.0) as session,
    ):
        runs = 0

        def fn(q: bmdb.Queries) -> int:
            nonlocal runs
            runs += 1
            return int(q.fetch_value("SELECT 1"))

        with filled(small):
            # The pool's one connection is busy, so this needs another.
            def outer(_: bmdb.Queries) -> tuple[float, int, BaseException]:
                before, started = len(through.connections), time.monotonic()
                errors: list[BaseException] = []

                def inner() -> None:
                    try:
                        session.transact(fn)
                    except BaseException as error:
                        errors.append(error)

                thread = threading.Thread(target=inner)
                thread.start()
                thread.join(30)
                return time.monotonic() - started, len(through.connections) - before, errors[0]

            seconds, tries, error = session.transact(outer)
        assert isinstance(error, bmdb.ConnectionFailedError | bmdb.DatabaseError)
        assert "too many" in str(error)
        assert runs == 0
        # It waits longer each time, and neither gives up at once nor spins.
        assert 2 <= tries <= 8
        assert 0.5 < seconds < 10
        assert session.transact(fn) == 1


def test_it_succeeds_once_there_is_room(small: EmbeddedServer, connect: Connect) -> None:
    with (
        connect(small.dsn(), component="test") as connection,
        connection.start_session(interval=20.0) as session,
        filled(small) as taken,
    ):

        def make_room() -> None:
            time.sleep(0.4)
            for holder in taken:
                holder.close()

        def outer(_: bmdb.Queries) -> list[int]:
            answers: list[int] = []
            threads = [
                threading.Thread(target=lambda: answers.append(session.transact(lambda q: q.fetch_value("SELECT 1")))),
                threading.Thread(target=make_room),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            return answers

        assert session.transact(outer) == [1]


def test_the_heartbeat_gets_its_connection_back_in_time(small: EmbeddedServer, connect: Connect) -> None:
    with (
        connect(small.dsn(), component="test") as connection,
        connection.start_session(interval=3.0) as session,
        psycopg.connect(small.dsn(), autocommit=True) as sql,
    ):
        beating = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'UPDATE sessions%' AND pid <> pg_backend_pid()"
        deadline = time.monotonic() + 5
        while not (pids := sql.execute(beating).fetchall()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with filled(small) as taken:
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pids[0][0]])
            # Somebody else is quicker, for less than the time that trust has left.
            taken.append(psycopg.connect(small.dsn(), autocommit=True))
            time.sleep(session.trusted_for / 4)
        assert not session.wait_expired(2.6)
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
