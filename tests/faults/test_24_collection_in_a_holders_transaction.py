"""Row 24: collection meets a holder in its transaction.

Promised: it passes the session over, and the next one takes it.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import psycopg

import bmdb
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually

PROCESS = "UnitTest1"

# Leases a machine, then sits in a statement of a fenced transaction. It is stopped there, so nothing renews its
# session, while its backend goes on to the end of the statement.
HOLDER = f"""
    import sys
    import bmdb

    machine = sys.argv[2]
    with bmdb.connect(sys.argv[1], component="holder") as connection:
        session = connection.start_session(interval=1.0)
        session.work("{PROCESS}", lambda _: [machine])
        print("session", session.uuid, flush=True)

        def hold(q):
            q.execute("INSERT INTO writes VALUES ('stale')")
            q.fetch("SELECT pg_sleep(3.0)")

        try:
            session.transact(hold)
        except bmdb.SessionExpiredError as error:
            print("refused", error, flush=True)
        else:
            print("committed", flush=True)
"""


def test_a_session_whose_holder_is_in_a_transaction_is_left_for_the_next_pass(
    database: str,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    spawn: Spawn,
    writes: str,
    connection: bmdb.Connection,
) -> None:
    (machine,) = machines(1)
    holder = spawn(HOLDER, database, str(machine))
    session_id = UUID(holder.expect("session").split()[1])
    sleeping = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'
    """
    eventually(lambda: sql.execute(sleeping).fetchone() == (1,))
    with holder.suspended():
        live = "SELECT session_deadline > clock_timestamp() FROM sessions WHERE session_id = %s"
        eventually(lambda: sql.execute(live, [session_id]).fetchone() == (False,))

        started = time.monotonic()
        assert connection.collect() == (0, 0)
        assert time.monotonic() - started < 0.5
        assert sql.execute(sleeping).fetchone() == (1,), "the holder was not in its transaction any more"
        assert sql.execute("SELECT machine_id FROM work").fetchall() == [(machine,)]

        # The statement ends, nobody is there to commit, and a pass after that frees the machine.
        eventually(lambda: sql.execute(sleeping).fetchone() == (0,))
        taken: list[tuple[int, ...]] = []

        def collect() -> bool:
            taken.append(tuple(connection.collect()))
            return taken[-1] != (0, 0)

        eventually(collect, timeout=5.0)
        assert taken[-1] == (1, 1)
    holder.expect("refused")
    assert holder.wait() == 0
    assert sql.execute("SELECT what FROM writes").fetchall() == []
    events = sql.execute("SELECT event, component, session_id FROM work_history ORDER BY timestamp").fetchall()
    assert events == [("Started", "holder", session_id), ("Lost", "holder", session_id)]


def test_what_is_not_locked_is_collected_beside_what_is(
    database: str, sql: psycopg.Connection[Any], machines: MakeMachines, connection: bmdb.Connection
) -> None:
    expired = """
        INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds, session_deadline)
        SELECT 'gone', '', 1, now() - interval '1 minute' FROM generate_series(1, 3) RETURNING session_id
    """
    ids = [session_id for (session_id,) in sql.execute(expired)]
    for number, machine in enumerate(machines(3)):
        sql.execute(
            "INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, %s, %s, 1)",
            [machine, PROCESS, ids[number]],
        )
    with psycopg.connect(database) as holder:
        # What a fenced transaction holds: its session's row; and what an end holds: its lease's row.
        holder.execute("SELECT 1 FROM sessions WHERE session_id = %s FOR KEY SHARE", [ids[0]])
        holder.execute("SELECT 1 FROM work WHERE session_id = %s FOR UPDATE", [ids[1]])
        started = time.monotonic()
        assert connection.collect() == (1, 1)
        assert time.monotonic() - started < 0.5
        left = sql.execute("SELECT session_id FROM work").fetchall()
        assert sorted(left) == sorted([(ids[0],), (ids[1],)])
        holder.rollback()
    assert connection.collect() == (2, 2)
    assert connection.collect() == (0, 0)
    lost = sql.execute("SELECT session_id FROM work_history WHERE event = 'Lost'").fetchall()
    assert sorted(lost) == sorted((session_id,) for session_id in ids)
