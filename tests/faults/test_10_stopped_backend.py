"""Row 10: the server's process behind a connection is stopped.

Promised: a timer of ours ends the wait, the socket is dropped, and the next connection works.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer, Server
from tests.faults.figures import Figure
from tests.processes import eventually, suspended
from tests.proxy import Proxy

BEAT = "UPDATE sessions"
INTERVAL = 2


@pytest.fixture(autouse=True)
def local(server: Server) -> None:
    """Signals reach only a server on this machine."""
    if not isinstance(server, EmbeddedServer):
        pytest.skip("needs a server whose processes can be stopped")


def backend(sql: psycopg.Connection[Any], last_query: str) -> int:
    """Process id of the backend, once there is one, of the library whose last query matches."""
    found: list[int] = []

    def look() -> bool:
        rows = sql.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bmdb proxied'"
            " AND query ~ %s",
            [last_query],
        )
        found[:] = [pid for (pid,) in rows]
        return len(found) == 1

    eventually(look)
    return found[0]


def test_the_heartbeat_goes_on_beside_its_stopped_backend(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    session = proxied.start_session(interval=INTERVAL)
    pid = backend(sql, BEAT + "|session_deadline <")
    eventually(lambda: proxy.count(BEAT) > 0)
    (stopped,) = {beat.connection for beat in proxy.statements(BEAT)}
    with suspended(pid):
        began = time.monotonic()
        eventually(lambda: {beat.connection for beat in proxy.statements(BEAT)} - {stopped}, INTERVAL)
        # Our end is closed, or the proxy would not have closed its own.
        eventually(lambda: not proxy.connections[stopped].open)
        time.sleep(max(0.0, began + INTERVAL * 1.25 - time.monotonic()))
        assert not session.expired
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
    # Awake again, it executes the beat that it was sent; that does no harm.
    time.sleep(0.1)
    assert not session.expired


def test_a_transaction_gives_a_stopped_backend_up(
    figure: Figure, proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    session = proxied.start_session(interval=INTERVAL)
    pid = session.transact(lambda q: q.fetch_value("SELECT pg_backend_pid() AS marked"))
    runs: list[int] = []

    def ask(q: bmdb.Queries) -> int:
        runs.append(1)
        return int(q.fetch_value("SELECT pg_backend_pid()"))

    with suspended(pid):
        began = time.monotonic()
        other = session.transact(ask)
        took = time.monotonic() - began
        figure(f"given up, at an interval of {INTERVAL} s, within", took, "s")
        assert other != pid
        assert runs == [1], "BEGIN never came through, so the callback did not run in vain"
        # BEGIN is given a quarter of the interval; then comes a pause, and a new connection.
        assert took < INTERVAL / 4 + 0.5
        # It is gone from the pool.
        assert session.transact(ask) == other
    eventually(lambda: sql.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() == (0,))
