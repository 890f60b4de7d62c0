"""Row 36: the interpreter exits with a live session.

Promised: exit 0, nothing on standard error, the row gone when the server can be reached, 2 s at most when not.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
import pytest

from tests.conftest import MakeMachines
from tests.faults.figures import Figure
from tests.processes import Spawn
from tests.proxy import Proxy

EXITS = int(os.environ.get("BMDB_SOAK_EXITS", "20"))
PROCESS = "UnitTest1"

WAYS = ("plain", "exit", "busy", "cycle")

# Ends without closing anything, in one of several ways, with work in hand.
WORKER = f"""
    import sys
    import threading
    import bmdb

    dsn, machine, way = sys.argv[1:]
    connection = bmdb.connect(dsn, component="worker")
    session = connection.start_session(interval=20.0)
    work = session.work("{PROCESS}", lambda _: [machine])
    print("working", flush=True)

    def keep_busy():
        while True:
            try:
                session.transact(lambda q: q.fetch_value("SELECT pg_sleep(0.01)"))
            except bmdb.Error:
                return

    if way == "busy":
        # Daemon threads are in the middle of something when the end comes.
        for _ in range(3):
            threading.Thread(target=keep_busy, daemon=True).start()
    elif way == "cycle":
        # Nothing but the garbage collector frees these.
        loop = [connection, session, work]
        loop.append(loop)
        del connection, session, work, loop
    elif way == "wait":
        input()
    elif way == "exit":
        sys.exit()
"""


@pytest.mark.slow
def test_the_row_is_deleted_and_nothing_is_said(
    figure: Figure, database: str, sql: psycopg.Connection[Any], machines: MakeMachines, spawn: Spawn
) -> None:
    offered = machines(EXITS)
    # A few at a time, as they do little but start.
    for begin in range(0, EXITS, len(WAYS)):
        turns = list(zip(WAYS, offered[begin : begin + len(WAYS)], strict=False))
        processes = [(way, spawn(WORKER, database, str(machine), way)) for way, machine in turns]
        for way, process in processes:
            assert process.wait(30) == 0, (way, process.errors)
            assert process.errors == [], way
            assert process.lines == ["working"], way
    assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    events = sql.execute("SELECT event, count(*) FROM work_history GROUP BY event ORDER BY event").fetchall()
    assert events == [("Canceled", EXITS), ("Started", EXITS)]
    figure("exits that left something behind", 0, of=EXITS)


def wait_until_idle(proxy: Proxy) -> None:
    """Waits until the heartbeat has its connection and nobody asks for anything for a while."""
    batches = -1
    while (asked := sum(record.batches for record in proxy.connections)) != batches or len(proxy.connections) < 2:
        batches = asked
        time.sleep(0.3)


@pytest.mark.parametrize("mode", ["swallowing", "refusing"])
def test_a_server_that_cannot_be_reached_holds_the_exit_up_for_two_seconds_at_most(
    figure: Figure,
    proxy: Proxy,
    database: str,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    spawn: Spawn,
    mode: str,
) -> None:
    (machine,) = machines(1)
    process = spawn(WORKER, proxy.conninfo(database), str(machine), "wait")
    process.expect("working")
    wait_until_idle(proxy)
    with proxy.swallowing() if mode == "swallowing" else proxy.refusing():
        if mode == "refusing":
            proxy.reset()
        started = time.monotonic()
        process.send()
        assert process.wait(10) == 0
        assert time.monotonic() - started <= 2.0
        figure("the exit took", time.monotonic() - started, "s")
    assert process.errors == []
    # It could not be deleted, so it is there to be collected.
    assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (1,)


def test_several_connections_that_cannot_be_closed_share_the_time(proxy: Proxy, database: str, spawn: Spawn) -> None:
    source = """
        import sys
        import bmdb
        connections = [bmdb.connect(sys.argv[1], component="worker") for _ in range(5)]
        sessions = [connection.start_session(interval=20.0) for connection in connections]
        print("working", flush=True)
        input()
    """
    process = spawn(source, proxy.conninfo(database))
    process.expect("working")
    with proxy.swallowing():
        started = time.monotonic()
        process.send()
        assert process.wait(10) == 0
        seconds = time.monotonic() - started
    assert process.errors == []
    assert seconds <= 2.0
