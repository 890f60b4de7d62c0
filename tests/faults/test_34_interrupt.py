"""Row 34: Ctrl-C, while a call is blocked in a query, a lock, the pool or connecting.

Promised: `KeyboardInterrupt` within 200 ms, rolled back, and the connection can be used again.

Each worker process blocks in one way, is sent SIGINT, says when its KeyboardInterrupt came, and goes on working.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from tests.conftest import MakeMachines
from tests.faults.figures import Figure
from tests.processes import Spawn, WorkerProcess, eventually
from tests.proxy import Proxy

PROCESS = "UnitTest1"
LIMIT = 0.2

# `block` stands for the call that blocks.
WORKER = """
    import sys
    import threading
    import time
    import bmdb

    connection = bmdb.connect(sys.argv[1], component="worker", pool_size=int(sys.argv[2]))
    session = connection.start_session(interval=20.0)
    release = threading.Event()

    def write_and(sql):
        def fn(q):
            q.execute("INSERT INTO writes VALUES ('interrupted')")
            q.fetch(sql)
        return fn

    def hold_a_connection():
        taken = threading.Event()

        def hold(q):
            taken.set()
            release.wait()

        threading.Thread(target=lambda: session.transact(hold), daemon=True).start()
        taken.wait()

    try:
        {block}
        print("not interrupted", flush=True)
    except KeyboardInterrupt as error:
        print("interrupted", time.monotonic(), getattr(error, "committed", "-"), flush=True)
        if "work" in globals():
            print("state", work.state, flush=True)
    # Until the test has taken its obstacle away.
    input()
    release.set()
    session.transact(lambda q: q.execute("INSERT INTO writes VALUES ('after')"))
    session.close()
    connection.close()
    print("done", flush=True)
"""


def worker(spawn: Spawn, block: str, dsn: str, pool_size: int = 2) -> WorkerProcess:
    return spawn(WORKER.replace("{block}", block), dsn, str(pool_size))


def interrupt(process: WorkerProcess) -> tuple[float, str]:
    """Sends SIGINT; how many seconds the exception took, by the machine's clock, and its `committed`."""
    sent = time.monotonic()
    process.interrupt()
    _, at, committed = process.expect("interrupted", timeout=10).split()
    return float(at) - sent, committed


def end_well(process: WorkerProcess, sql: psycopg.Connection[Any], left: list[str]) -> None:
    """The worker goes on with the same connection and ends, and only `left` was written."""
    process.send()
    process.expect("done", timeout=10)
    assert process.wait() == 0
    assert process.errors == []
    assert [what for (what,) in sql.execute("SELECT what FROM writes")] == left


def running(sql: psycopg.Connection[Any], text: str, *, waiting: bool = False) -> int:
    """How many statements that begin so are running, or waiting for a lock."""
    statement = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
            AND starts_with(query, %s) AND (NOT %s OR wait_event_type = 'Lock')
    """
    row = sql.execute(statement, [text, waiting]).fetchone()
    assert row is not None
    return int(row[0])


def test_in_a_query(figure: Figure, database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str) -> None:
    process = worker(spawn, 'session.transact(write_and("SELECT pg_sleep(30)"))', database)
    eventually(lambda: running(sql, "SELECT pg_sleep"))
    seconds, _ = interrupt(process)
    assert seconds < LIMIT
    figure("KeyboardInterrupt within", seconds, "s")
    # The server was asked to stop, so no lock outlives the call by half a minute.
    eventually(lambda: not running(sql, "SELECT pg_sleep"), timeout=2)
    end_well(process, sql, ["after"])


def test_in_a_row_lock(
    database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str, machines: MakeMachines
) -> None:
    machines(1)
    wish = "SELECT 1 FROM machines FOR UPDATE"
    with psycopg.connect(database) as holder:
        holder.execute(wish)
        process = worker(spawn, f'session.transact(write_and("{wish}"))', database)
        eventually(lambda: running(sql, wish, waiting=True))
        seconds, _ = interrupt(process)
        assert seconds < LIMIT
        eventually(lambda: not running(sql, wish), timeout=2)
    end_well(process, sql, ["after"])


def test_waiting_for_the_pool(database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str) -> None:
    block = 'hold_a_connection(); print("blocking", flush=True); session.transact(write_and("SELECT 1"))'
    process = worker(spawn, block, database, pool_size=1)
    process.expect("blocking")
    time.sleep(0.3)
    seconds, _ = interrupt(process)
    assert seconds < LIMIT
    end_well(process, sql, ["after"])


def test_connecting(proxy: Proxy, database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str) -> None:
    # The first connection is in use, so the pool opens another.
    block = 'hold_a_connection(); print("blocking", flush=True); input(); session.transact(write_and("SELECT 1"))'
    process = worker(spawn, block, proxy.conninfo(database))
    process.expect("blocking")
    # One of the pool and the heartbeat's; the next is the one meant.
    eventually(lambda: len(proxy.connections) == 2)
    with proxy.swallowing(connection=2):
        process.send()
        eventually(lambda: len(proxy.connections) == 3)
        time.sleep(0.2)
        seconds, _ = interrupt(process)
        assert seconds < LIMIT
    end_well(process, sql, ["after"])


def test_in_commit_the_exception_says_what_became_of_it(
    proxy: Proxy, database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str
) -> None:
    block = 'print("blocking", flush=True); input(); session.transact(write_and("SELECT 1"))'
    process = worker(spawn, block, proxy.conninfo(database))
    process.expect("blocking")
    with proxy.holding_after(None) as held:
        process.send()
        held.wait()
        seconds, committed = interrupt(process)
    # It may look once more at how the commit ended.
    assert seconds < LIMIT + 0.15
    assert committed == "True"
    end_well(process, sql, ["interrupted", "after"])


def test_in_the_commit_of_a_finish_the_work_is_finished(
    proxy: Proxy, database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str, machines: MakeMachines
) -> None:
    """Told that its commit took effect, it must not count as work that is still held."""
    (machine,) = machines(1)
    block = (
        f'work = session.work("UnitTest1", lambda q: ["{machine}"]); print("blocking", flush=True); input(); '
        'work.finish(write_and("SELECT 1"))'
    )
    process = worker(spawn, block, proxy.conninfo(database))
    process.expect("blocking")
    with proxy.holding_after(None) as held:
        process.send()
        held.wait()
        seconds, committed = interrupt(process)
    assert seconds < LIMIT + 0.15
    assert (committed, process.expect("state")) == ("True", "state finished")
    end_well(process, sql, ["interrupted", "after"])


def test_between_retries(database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str) -> None:
    sql.execute("CREATE FUNCTION conflict() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '40001'; END $$")
    block = 'print("blocking", flush=True); session.transact(write_and("SELECT conflict()"))'
    process = worker(spawn, block, database)
    process.expect("blocking")
    # By then the pauses have grown to hundreds of milliseconds.
    time.sleep(1.5)
    seconds, _ = interrupt(process)
    assert seconds < LIMIT
    end_well(process, sql, ["after"])


@pytest.mark.parametrize("call", ["session.wait_expired()", "session.wait_expired(60)"])
def test_waiting_for_the_end_of_a_session(
    database: str, sql: psycopg.Connection[Any], spawn: Spawn, writes: str, call: str
) -> None:
    process = worker(spawn, f'print("blocking", flush=True); {call}', database)
    process.expect("blocking")
    time.sleep(0.2)
    seconds, _ = interrupt(process)
    assert seconds < LIMIT
    end_well(process, sql, ["after"])


def test_opening_the_first_connection(proxy: Proxy, database: str, spawn: Spawn) -> None:
    source = """
        import sys, time, bmdb
        print("blocking", flush=True)
        try:
            bmdb.connect(sys.argv[1], component="worker")
        except KeyboardInterrupt:
            print("interrupted", time.monotonic(), "-", flush=True)
    """
    with proxy.swallowing():
        process = spawn(source, proxy.conninfo(database))
        process.expect("blocking")
        eventually(lambda: proxy.connections)
        time.sleep(0.2)
        seconds, _ = interrupt(process)
    assert seconds < LIMIT
    assert process.wait() == 0
    assert process.errors == []
