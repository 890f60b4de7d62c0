"""Row 32: the database's clock steps, by an hour, forward or back.

Promised: no machine is held by two. After a step forward sessions may be lost, and their holders are told; after a step
back they live on.

The server runs under libfaketime. Its trust is counted here, on a clock that nobody sets; deadlines are the database's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import eventually

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
HOUR = 3600
INTERVAL = 2
PROCESS = "Stepped"

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime (Debian's package libfaketime)")


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[int], None]]]:
    """A database on a server of its own, and a function that sets its clock off by seconds."""
    with EmbeddedServer() as server:
        server.stop()
        # Where the server's user, who may be another one, can read it.
        clock, written = server.socket_directory / "clock", server.socket_directory / "clock.new"
        clock.write_text("+0\n")
        with monkeypatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(LIBRARIES[0]))
            environment.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
            environment.setenv("FAKETIME_NO_CACHE", "1")
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            server.start()
        database = server.dsn()

        def set_off(seconds: int) -> None:
            written.write_text(f"{seconds:+d}\n")
            # At once: what the server reads has been written.
            written.replace(clock)
            with psycopg.connect(database) as sql:
                (off,) = sql.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone() or (0,)
            assert abs(float(off) - time.time() - seconds) < 60, "libfaketime does not work here"

        set_off(0)
        yield database, set_off


def test_forward_the_holder_is_told_and_nobody_holds_beside_the_next(
    step: tuple[str, Callable[[int], None]], connect: Connect, figure: Figure
) -> None:
    database, set_off = step
    with (
        connect(database, component="holder", migrate=True) as connection,
        bmdb.connect(database, component="rival") as rival,
        psycopg.connect(database, autocommit=True) as sql,
    ):
        sql.execute("INSERT INTO machines DEFAULT VALUES; CREATE TABLE writes (token bigint)")
        session = connection.start_session(interval=INTERVAL)
        work = session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
        set_off(HOUR)
        stepped = time.monotonic()
        with rival.start_session(interval=INTERVAL) as next_session:
            got: list[Any] = []
            eventually(lambda: (got.append(_try(next_session)) or got[-1]) is not None)
            mine = got[-1]
            with pytest.raises((bmdb.LeaseLostError, bmdb.SessionExpiredError)):
                work.finish(lambda q: q.execute("INSERT INTO writes VALUES ($1)", work.token))
            assert session.wait_expired(timeout=2 * INTERVAL), "the holder must be told"
            figure("told of the loss within", time.monotonic() - stepped, "s")
            assert mine.token > work.token
            mine.finish(lambda q: q.execute("INSERT INTO writes VALUES ($1)", mine.token))
        assert sql.execute("SELECT token FROM writes").fetchall() == [(mine.token,)]
        events = sql.execute("SELECT event FROM work_history ORDER BY token, timestamp").fetchall()
        assert [event for (event,) in events] == ["Started", "Lost", "Started", "Finished"]
        figure("held by two", 0, of=1)


def test_back_the_holder_keeps_what_it_has(
    step: tuple[str, Callable[[int], None]], connect: Connect, figure: Figure
) -> None:
    database, set_off = step
    with (
        connect(database, component="holder", migrate=True) as connection,
        bmdb.connect(database, component="rival") as rival,
    ):
        with psycopg.connect(database, autocommit=True) as sql:
            sql.execute("INSERT INTO machines DEFAULT VALUES")
        session = connection.start_session(interval=INTERVAL)
        work = session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
        set_off(-HOUR)
        end = time.monotonic() + 2 * INTERVAL
        with rival.start_session(interval=INTERVAL) as other:
            while time.monotonic() < end:
                assert _try(other) is None, "a live lease was given away"
                time.sleep(0.2)
        assert not session.expired
        work.finish()
        figure("held by two", 0, of=1)


def _try(session: bmdb.Session) -> bmdb.Work | None:
    try:
        return session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
    except bmdb.WorkConflictError:
        return None
