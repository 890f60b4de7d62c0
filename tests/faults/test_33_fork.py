"""Row 33: a process with an open connection forks (fork, forkserver, spawn).

Promised: the child gets a clear error at once from what it inherited, and can open its own; the parent's is left alone.

All of this happens in worker processes, as forking the test's own process would copy its threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.processes import Spawn, WorkerProcess
from tests.proxy import Proxy

PROCESS = "UnitTest1"

# Opens a connection, a session, work; lets a child try everything; then goes on itself for more than an interval.
PARENT = f"""
    import json
    import os
    import sys
    import time
    import bmdb
    from tests.faults.test_33_fork import try_everything, use_own

    way, dsn, machine = sys.argv[1:]
    connection = bmdb.connect(dsn, component="parent", pool_size=2)
    session = connection.start_session(interval=2.0)
    work = session.work("{PROCESS}", lambda _: [machine])
    connection.history_of(work.machine)

    def child():
        try_everything(connection, session, work)
        use_own(dsn)

    if way == "os.fork":
        pid = os.fork()
        if pid == 0:
            child()
            # As a child that runs to its end does: exit handlers and all.
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    else:
        import multiprocessing

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        status = process.exitcode
    print("child ended with", status, flush=True)

    end = time.monotonic() + 2.6
    count = 0
    while time.monotonic() < end:
        session.transact(lambda q: q.fetch_value("SELECT 1"))
        count += 1
        time.sleep(0.01)
    print("parent did", count, flush=True)
    work.finish()
    session.close()
    connection.close()
    print("done", flush=True)
"""


def try_everything(connection: bmdb.Connection, session: bmdb.Session, work: bmdb.Work) -> None:
    """Prints as JSON, for each thing one can do with what was inherited: the exception, its text, how long it took."""
    attempts: dict[str, Callable[[], object]] = {
        "transact": lambda: session.transact(lambda _: None),
        "work": lambda: session.work(PROCESS, lambda _: []),
        "finish": lambda: work.finish(),
        "fail": lambda: work.fail("because", bmdb.Backoff(1)),
        "start_session": lambda: connection.start_session(),
        "history_of": lambda: connection.history_of(work.machine),
        "statistics": lambda: connection.statistics(),
        "collect": lambda: connection.collect(),
        "migrate": lambda: connection.migrate(),
        "schema_version": lambda: connection.schema_version(),
    }
    for name, attempt in attempts.items():
        started = time.monotonic()
        try:
            attempt()
            outcome: BaseException | None = None
        except BaseException as error:
            outcome = error
        seconds = time.monotonic() - started
        print("tried " + json.dumps([name, type(outcome).__name__, str(outcome), seconds]), flush=True)
    # These say nothing and do nothing.
    connection.close()
    for quiet in (connection, session, work):
        repr(quiet)
    connection.metrics()


def use_own(dsn: str) -> None:
    """A child's own connection works."""
    with bmdb.connect(dsn, component="child") as own, own.start_session(interval=1.0) as session:
        machine = session.transact(lambda q: q.new_machine()).machine_id
        session.work(PROCESS, lambda _: [machine]).finish()
        print("own", len(own.history_of(machine)), flush=True)


def run_parent(spawn: Spawn, *arguments: str) -> WorkerProcess:
    parent = spawn(PARENT, *arguments)
    parent.expect("done", timeout=40)
    assert parent.wait() == 0
    assert parent.errors == []
    return parent


@pytest.mark.slow
@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_the_child_of_a_fork_is_refused_at_once_and_its_parent_goes_on(
    proxy: Proxy, database: str, sql: psycopg.Connection[Any], machines: MakeMachines, spawn: Spawn, way: str
) -> None:
    (machine,) = machines(1)
    parent = run_parent(spawn, way, proxy.conninfo(database), str(machine))

    tried = [json.loads(line.removeprefix("tried ")) for line in parent.lines if line.startswith("tried ")]
    assert len(tried) == 10
    for name, kind, text, seconds in tried:
        assert kind == "ConfigError", (name, kind, text)
        assert "fork" in text and str(parent.pid) in text, (name, text)
        assert seconds < 0.5, name
    assert "child ended with 0" in parent.lines
    assert "own 2" in parent.lines
    # The parent's session was renewed, nothing of it ended early, and its work is finished, not cancelled.
    events = "SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp"
    assert sql.execute(events, [machine]).fetchall() == [("Started",), ("Finished",)]
    # The child wrote nothing to its parent's connections: they are three, the heartbeat's and two at most of the pool.
    inherited = [record for record in proxy.connections if "parent" in (record.application_name or "")]
    assert 2 <= len(inherited) <= 3
    beats = proxy.statements("UPDATE sessions", application_name="parent")
    assert len({beat.connection for beat in beats}) == 1 and len(beats) >= 2


SPAWNER = """
    import multiprocessing
    import sys
    import bmdb
    from tests.faults.test_33_fork import receive, use_own

    if __name__ == "__main__":
        method, dsn = sys.argv[1:]
        context = multiprocessing.get_context(method)
        with bmdb.connect(dsn, component="parent") as connection, connection.start_session(interval=2.0) as session:
            for inherited in (connection, session):
                try:
                    context.Process(target=receive, args=[inherited]).start()
                except TypeError as error:
                    print("refused", error, flush=True)
            process = context.Process(target=use_own, args=[dsn])
            process.start()
            process.join()
            print("child ended with", process.exitcode, flush=True)
            assert not session.wait_expired(2.0)
            print("session", session.transact(lambda q: session.uuid), flush=True)
"""


def receive(_: object) -> None:
    """What a child would do with a connection; it never comes to that."""
    print("received", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_connection_cannot_be_sent_to_a_child_that_begins_anew(
    database: str, sql: psycopg.Connection[Any], spawn: Spawn, method: str
) -> None:
    parent = spawn(SPAWNER, method, database)
    session_id = UUID(parent.expect("session ", timeout=40).split()[1])
    assert parent.wait() == 0
    assert sum("cannot be copied or sent elsewhere" in line for line in parent.lines) == 2
    assert "received" not in parent.lines
    assert "own 2" in parent.lines
    assert "child ended with 0" in parent.lines
    # Closed by the parent at its end, and by nobody else before.
    assert sql.execute("SELECT 1 FROM sessions WHERE session_id = %s", [session_id]).fetchone() is None
