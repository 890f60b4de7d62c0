"""Row 1: a worker is stopped inside a transaction for longer than its interval, and then goes on.

Promised: what it then commits is refused, or had landed before its machine went to somebody else. Never after.

The order is read from the server's commit timestamps. Two guards are tested apart: when the worker runs again its own
clock refuses; and when its COMMIT was on the way already, the server has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.faults.figures import Figure
from tests.processes import Spawn, eventually
from tests.proxy import HoldRule, Proxy

PROCESS = "Paused"

# How long collection leaves a backend in a fenced transaction after the deadline, as rust/core/src/collect.rs has it.
GRACE = 0.25

# Stops in the callback that its third argument names, after it has written.
WORKER = """
    import sys
    import bmdb

    dsn, process, place = sys.argv[1:]
    runs = []

    def callback(q):
        runs.append(q.execute("INSERT INTO writes VALUES ('holder')"))
        print("inside", flush=True)
        sys.stdin.readline()

    with bmdb.connect(dsn, component="holder") as connection:
        session = connection.start_session(interval=1)
        work = session.work(process, lambda q: q.fetch("SELECT machine_id FROM machines"))
        acts = {"transact": lambda: session.transact(callback), "finish": lambda: work.finish(callback)}
        try:
            acts[place]()
        except bmdb.Error as error:
            print("outcome:", type(error).__name__, "runs", len(runs), "expired", session.expired, flush=True)
        else:
            print("outcome: committed", flush=True)
"""

# One session, machine and thread for each transaction; all of them commit as soon as they have written.
CROWD = """
    import sys
    import threading
    import bmdb

    dsn, process, interval, *names = sys.argv[1:]
    wrote = threading.Barrier(len(names) + 1)
    told = {}

    def hold(session, name):
        def write(q):
            q.execute(f"INSERT INTO writes VALUES ('{name}')")
            wrote.wait()

        try:
            session.transact(write)
        except bmdb.SessionExpiredError:
            told[name] = "refused"
        except bmdb.AmbiguousCommitError as error:
            told[name] = "committed" if error.resolve(10) else "refused"
        else:
            told[name] = "committed"

    with bmdb.connect(dsn, component="holders", pool_size=len(names) + 1) as connection:
        threads = []
        for name in names:
            session = connection.start_session(interval=float(interval))
            work = session.work(process, lambda q: q.fetch("SELECT machine_id FROM machines ORDER BY machine_id"))
            print(name, "leased", work.machine, flush=True)
            threads.append(threading.Thread(target=hold, args=(session, name)))
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.readline()
        wrote.wait()
        for thread in threads:
            thread.join()
    for name, outcome in told.items():
        print(name, outcome, flush=True)
"""


def every_machine(q: bmdb.Queries) -> Any:
    return q.fetch("SELECT machine_id FROM machines")


def value(sql: psycopg.Connection[Any], query: LiteralString) -> Any:
    """The one value that a query answers."""
    ((answer,),) = sql.execute(query).fetchall()
    return answer


@pytest.mark.parametrize("place", ["transact", "finish"])
def test_a_holder_stopped_in_its_callback_neither_keeps_the_machine_nor_commits(
    figure: Figure,
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    spawn: Spawn,
    place: str,
) -> None:
    (machine,) = machines(1)
    worker = spawn(WORKER, database, PROCESS, place)
    worker.expect("inside")
    gained: list[bmdb.Work] = []

    def gain() -> bool:
        connection.collect()
        try:
            gained.append(session.work(PROCESS, every_machine))
        except bmdb.WorkConflictError:
            return False
        return True

    with worker.suspended():
        deadline = value(sql, "SELECT session_deadline FROM sessions WHERE session_interval_seconds = 1")
        # The holder keeps its rows locked, and lives on as far as the server can see.
        eventually(gain, 5)
        leased = value(sql, "SELECT pg_xact_commit_timestamp(xmin) FROM work")
        assert leased > deadline
    worker.send()
    outcome = worker.expect("outcome:")
    assert outcome in (
        "outcome: SessionExpiredError runs 1 expired True",
        "outcome: LeaseLostError runs 1 expired True",
    )
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    figure("writes of stale holders that landed", value(sql, "SELECT count(*) FROM writes"), of=1)
    assert [event.event for event in connection.history_of(machine)] == ["Started", "Lost", "Started"]
    gained[0].finish()


def test_a_commit_on_its_way_lands_before_the_lease_moves_or_never(
    proxy: Proxy,
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    spawn: Spawn,
) -> None:
    """All COMMITs are sent in time and held up in the proxy; then their worker is stopped, so that nothing renews.

    Each arrives at another moment around the deadline, the last one when a rival has all the machines.
    """
    arrivals = {"early": -0.2, "at the deadline": 0.0, "late": 0.04, "later": 0.12, "in grace": GRACE - 0.07}
    names = [*arrivals, "when it has moved"]
    machines(len(names))
    worker = spawn(CROWD, proxy.conninfo(database), PROCESS, "2", *names)
    worker.expect("ready")
    eventually(lambda: proxy.count("INSERT INTO writes") == len(names))
    machine_of = {
        name: UUID(line.split()[-1]) for name in names for line in worker.lines if line.startswith(f"{name} leased")
    }
    connection_of = {
        name: write.connection
        for name in names
        for write in proxy.statements("INSERT INTO writes")
        if f"'{name}'" in write.text
    }
    with ExitStack() as stack:
        holds: dict[str, HoldRule] = {
            name: stack.enter_context(proxy.holding_before(connection=connection_of[name])) for name in names
        }
        worker.send()
        for hold in holds.values():
            hold.wait()
        stack.enter_context(worker.suspended())
        remaining = value(
            sql,
            "SELECT extract(epoch FROM max(session_deadline) - clock_timestamp())::float FROM sessions"
            " WHERE session_interval_seconds = 2",
        )
        due = time.monotonic() + remaining
        plan = list(arrivals.items())
        rival: dict[UUID, bmdb.Work] = {}
        end = due + 5
        while len(rival) < len(names):
            assert time.monotonic() < end, "the rival did not get the machines"
            while plan and time.monotonic() >= due + plan[0][1]:
                holds[plan.pop(0)[0]].release()
            connection.collect()
            try:
                work = session.work(PROCESS, every_machine)
            except bmdb.WorkConflictError:
                continue
            rival[work.machine] = work
        assert plan == []
        holds[names[-1]].release()
        time.sleep(0.1)
    assert worker.wait() == 0, worker.errors
    reports = worker.lines[worker.lines.index("ready") + 1 :]
    told = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in reports}
    assert told.keys() == set(names), worker.errors

    def committed_at(query: LiteralString) -> dict[Any, datetime]:
        return dict(sql.execute(query).fetchall())

    landed = committed_at("SELECT what, pg_xact_commit_timestamp(xmin) FROM writes")
    moved = committed_at("SELECT machine_id, pg_xact_commit_timestamp(xmin) FROM work")
    assert len(moved) == len(names)
    assert {name: at for name, at in landed.items() if at >= moved[machine_of[name]]} == {}
    # The test would say nothing if none had landed, or all.
    assert "early" in landed
    assert names[-1] not in landed
    assert {name for name in names if told[name] == "committed"} == set(landed)
