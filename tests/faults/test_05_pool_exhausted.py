"""Row 5: all connections of the pool are in use.

Promised: the heartbeat has its own; whoever waits for a free one gets a turn, or a clear time-out.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.faults.conftest import Connect

POOL = 2
THREADS = 10


def beats(connection: bmdb.Connection) -> tuple[float, float]:
    """How many heartbeats the connection has sent, and how many of them failed."""
    values = {name: value for name, _, _, value in connection.metrics()}
    return values["bmdb_heartbeats"], values["bmdb_heartbeat_failures"]


def test_heartbeats_go_on_and_everybody_gets_a_turn(
    database: str, sql: psycopg.Connection[Any], writes: str, connect: Connect
) -> None:
    with connect(database, component="busy", pool_size=POOL) as connection:
        session = connection.start_session(interval=1)
        most = inside = 0
        lock = threading.Lock()

        def occupy(q: bmdb.Queries) -> None:
            nonlocal most, inside
            with lock:
                inside += 1
                most = max(most, inside)
            q.execute("INSERT INTO writes VALUES ('x')")
            time.sleep(0.5)
            with lock:
                inside -= 1

        with ThreadPoolExecutor(THREADS) as threads:
            turns = [threads.submit(session.transact, occupy, isolation="read committed") for _ in range(THREADS)]
            for turn in turns:
                turn.result()
        assert most == POOL
        assert not session.expired
        sent, failed = beats(connection)
        # 2.5 s at half a second a beat, the first at a random moment.
        assert sent >= 4
        assert failed == 0
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (THREADS,)


@pytest.mark.slow
@pytest.mark.one_twin
def test_waiting_for_a_connection_ends_in_a_clear_timeout(database: str, connect: Connect) -> None:
    """Takes the 30 s that a wait may last."""
    with connect(database, component="busy", pool_size=POOL) as connection:
        session = connection.start_session(interval=1)
        held = threading.Barrier(POOL + 1)
        done = threading.Event()

        def hold(q: bmdb.Queries) -> None:
            q.execute("SELECT 1")
            held.wait()
            done.wait()

        with ThreadPoolExecutor(POOL) as threads:
            holders = [threads.submit(session.transact, hold) for _ in range(POOL)]
            try:
                held.wait()
                began = time.monotonic()
                with pytest.raises(bmdb.ConnectionFailedError, match=r"all 2 connections were in use.*raise pool_size"):
                    session.transact(lambda q: q.execute("SELECT 1"))
                assert 29 < time.monotonic() - began < 33
            finally:
                done.set()
            for holder in holders:
                holder.result()
        assert not session.expired
        assert beats(connection)[1] == 0
        # The pool is whole again.
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
