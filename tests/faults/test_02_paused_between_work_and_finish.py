"""Row 2: a worker is paused between `work()` and `finish()`.

Promised: its lease is gone, `finish` says so, the callback does not run, and nothing is written.

Two guards, each tested alone: trust, which the worker's own clock ends, and the lease's row, which finish must delete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.faults.conftest import Connect
from tests.processes import Spawn, eventually

PROCESS = "Paused"

WORKER = """
    import sys
    import bmdb

    dsn, machine, process, interval = sys.argv[1:]
    ran = []

    def commit(q):
        ran.append(True)
        q.execute("INSERT INTO writes VALUES ('holder')")

    with bmdb.connect(dsn, component="holder") as connection:
        session = connection.start_session(interval=float(interval))
        work = session.work(process, lambda q: q.fetch("SELECT machine_id FROM machines"))
        print("leased", work.token, flush=True)
        sys.stdin.readline()
        try:
            work.finish(commit)
        except bmdb.Error as error:
            print("finish:", type(error).__name__, "runs", len(ran), "state", work.state, flush=True)
        else:
            print("finish: done", flush=True)
"""


def lease(session: bmdb.Session, connection: bmdb.Connection) -> bmdb.Work:
    """The machine, as soon as it can be had."""
    got: list[bmdb.Work] = []

    def attempt() -> bool:
        connection.collect()
        try:
            got.append(session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines")))
        except bmdb.WorkConflictError:
            return False
        return True

    eventually(attempt)
    return got[0]


@pytest.mark.parametrize("rival_ends", [False, True], ids=["rival works", "rival has finished"])
def test_finish_after_a_pause_is_refused(
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    spawn: Spawn,
    rival_ends: bool,
) -> None:
    (machine,) = machines(1)
    worker = spawn(WORKER, database, str(machine), PROCESS, "1")
    token = int(worker.expect("leased").split()[1])
    with worker.suspended():
        rival = lease(session, connection)
        if rival_ends:
            rival.finish()
    worker.send()
    outcome = worker.expect("finish:")
    assert outcome.split()[1] in ("SessionExpiredError", "LeaseLostError")
    assert outcome.endswith("runs 0 state lost")
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    assert rival.token > token
    events = [event.event for event in connection.history_of(machine)]
    assert events == ["Started", "Lost", "Started"] + ["Finished"] * rival_ends
    if not rival_ends:
        rival.finish()


def test_a_lease_that_the_database_gave_away_is_lost_although_its_session_is_trusted(
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    connect: Connect,
) -> None:
    """Here the holder's clock gives no reason for doubt: what refuses is the row of the lease."""
    machines(1)
    ran: list[int] = []

    def commit(q: bmdb.Queries) -> None:
        ran.append(q.execute("INSERT INTO writes VALUES ('holder')"))

    with connect(database, component="holder") as holding:
        # So long an interval that no beat comes within this test.
        holder = holding.start_session(interval=120)
        work = holder.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
        past = "UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 second' WHERE session_id = %s"
        sql.execute(past, [holder.uuid])
        rival = lease(session, connection)
        assert not holder.expired
        with pytest.raises(bmdb.LeaseLostError):
            work.finish(commit)
        assert work.lost
        assert ran == []
        with pytest.raises(bmdb.SessionExpiredError):
            holder.transact(commit)
        assert ran == []
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    # The rival's lease is untouched by all that.
    rival.finish()
