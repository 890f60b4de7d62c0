"""Row 43: a claim by declared eligibility is judged on a snapshot older than a rival's finish.

Promised: the machine is never leased again: what a rival has finished since is dropped.

Such a claim is one statement in READ COMMITTED. It passes over machines whose rows a rival has locked, but a rival that
has finished in between has left no lock and no lease, and on the claim's snapshot the machine still lacks the tag. Only
the second look at it, before COMMIT, tells: without it all of these fail. BMDB_SOAK_MACHINES lengthens the drain.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.claimers import PROCESS, deadlocks, drain
from tests.faults.conftest import Connect
from tests.processes import Spawn, eventually

MACHINES = int(os.environ.get("BMDB_SOAK_MACHINES", "1500"))
PROVIDED = (
    "INSERT INTO machine_provided (machine_id, provider, provider_id) SELECT machine_id, 'a', machine_id FROM machines"
)


@pytest.mark.parametrize(
    ("processes", "threads", "batch"),
    [(2, 1, 50), (2, 1, 1), (4, 2, 20), (4, 16, 10)],
    ids=["2", "2 singly", "8", "64"],
)
def test_claimers_drain_all_machines_and_finish_none_twice(
    processes: int,
    threads: int,
    batch: int,
    database: str,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    spawn: Spawn,
) -> None:
    machines(MACHINES)
    sql.execute(PROVIDED)
    drain(spawn, database, processes=processes, threads=threads, batch=batch)
    told = sql.execute(
        "SELECT event, count(*), count(DISTINCT machine_id) FROM work_history GROUP BY event ORDER BY event"
    )
    assert told.fetchall() == [("Finished", MACHINES, MACHINES), ("Started", MACHINES, MACHINES)]
    assert sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone() == (MACHINES,)
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert deadlocks(sql) == 0


def test_a_machine_finished_after_the_snapshot_is_not_leased(
    database: str, session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines, connect: Connect
) -> None:
    """The claim is held up amid its scan while a rival takes the machine and finishes it."""
    (machine,) = machines(1)
    sql.execute(PROVIDED)
    # Waits, if somebody holds the advisory lock, when the statement's snapshot is taken and rows are being looked at.
    sql.execute(
        "CREATE FUNCTION held_up() RETURNS bool LANGUAGE sql VOLATILE AS"
        " $$ SELECT pg_advisory_xact_lock_shared(43) IS NOT NULL $$"
    )
    tagless = bmdb.eligible(having=("provided",), lacking=("hardware_report",))
    slow = bmdb.eligible(having=("provided",), lacking=("hardware_report",), where="held_up()")
    with (
        psycopg.connect(database, autocommit=True) as gate,
        connect(database, component="rival") as connection,
        connection.start_session() as rival,
        ThreadPoolExecutor(1) as threads,
    ):
        gate.execute("SELECT pg_advisory_lock(43)")
        claiming = threads.submit(session.work, PROCESS, slow)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        eventually(lambda: sql.execute(waiting).fetchone() == (1,))
        rival.work(PROCESS, tagless).finish(bmdb.set_tag("hardware_report", hardware_report_raw=b"done"))
        gate.execute("SELECT pg_advisory_unlock(43)")
        with pytest.raises(bmdb.NothingToDo):
            claiming.result(20)
    events = sql.execute(
        "SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp", [machine]
    ).fetchall()
    assert events == [("Started",), ("Finished",)]
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
