"""Row 6: a C extension holds the GIL for 10 s.

Promised: the session lives on, and its beats are on time.
"""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import Spawn

INTERVAL = 2
HELD = 10

WORKER = """
    import ctypes
    import sys
    import bmdb

    dsn, interval, seconds = sys.argv[1:]
    with bmdb.connect(dsn, component="greedy") as connection:
        session = connection.start_session(interval=float(interval))
        connection.start_session(interval=float(interval))
        print("holding", session.uuid, flush=True)
        ctypes.PyDLL(None).sleep(int(seconds))
        print("let go", session.expired, session.transact(lambda q: q.fetch_value("SELECT 'committed'")), flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_beats_are_on_time_while_the_gil_is_held(
    connect: Connect, database: str, sql: psycopg.Connection[Any], spawn: Spawn, figure: Figure
) -> None:
    """The deadlines are watched from another process, through the database: each tells when it was renewed."""
    worker = spawn(WORKER, database, str(INTERVAL), str(HELD))
    identity = worker.expect("holding").split()[1]
    renewals: list[datetime] = []
    began = time.monotonic()
    while not any("let go" in line for line in worker.lines):
        assert worker.running, worker.errors
        assert time.monotonic() - began < 2 * HELD, "the worker did not come back"
        row = sql.execute(
            "SELECT session_deadline - session_interval_seconds * interval '1 second',"
            " session_deadline > clock_timestamp() FROM sessions WHERE session_id = %s",
            [identity],
        ).fetchone()
        assert row is not None
        assert row[1], "past its deadline"
        if not renewals or row[0] != renewals[-1]:
            renewals.append(row[0])
        time.sleep(0.05)
    assert time.monotonic() - began > HELD - 1, "the GIL was not held"
    assert worker.expect("let go") == "let go False committed"
    gaps = [later - earlier for earlier, later in itertools.pairwise(renewals)]
    figure(f"at an interval of {INTERVAL} s, renewed each", max(gaps).total_seconds(), "s")
    # Half an interval is the plan; the rest is for a busy machine, and far from the fifth that trust leaves.
    assert max(gaps) < timedelta(seconds=INTERVAL / 2 + 0.3)
    assert len(renewals) >= HELD / (INTERVAL / 2)
    worker.send()
