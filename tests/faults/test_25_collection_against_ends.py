"""Row 25: collection, finish, fail, cancel and close meet on the same rows in every order.

Promised: no deadlock.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import eventually

PROCESS = "UnitTest1"
SECONDS = 6.0
WORKERS = 6
MACHINES = 12


def deadlocks(sql: psycopg.Connection[Any]) -> int:
    """Deadlocks in this database so far, once every other backend has reported its own by ending."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually(lambda: sql.execute(others).fetchone() == (0,))
    row = sql.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def test_random_orders_end_without_a_deadlock_and_every_lease_ends_once(
    figure: Figure, database: str, sql: psycopg.Connection[Any], machines: MakeMachines, connect: Connect
) -> None:
    offered = machines(MACHINES)
    end = time.monotonic() + SECONDS
    errors: list[BaseException] = []
    ended = {"finished": 0, "failed": 0, "canceled": 0, "lost": 0}
    counting = threading.Lock()

    def guarded(turn: Callable[[random.Random], None], seed: int) -> threading.Thread:
        def loop() -> None:
            chance = random.Random(seed)
            try:
                while time.monotonic() < end:
                    turn(chance)
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=loop)

    with (
        connect(database, component="holders", pool_size=12) as holders,
        connect(database, component="collectors", pool_size=4) as collectors,
    ):

        def hold(chance: random.Random) -> None:
            session = holders.start_session(interval=30.0)
            works: list[bmdb.Work] = []
            for _ in range(3):
                order: list[UUID] = chance.sample(offered, len(offered))
                try:
                    works.append(session.work(PROCESS, lambda _, order=order: order))  # type: ignore[misc]
                except bmdb.WorkConflictError:
                    break
            if chance.random() < 0.7:
                # Collectable while its holder still believes in it: the database's clock says so.
                expire = "UPDATE sessions SET session_deadline = now() - interval '1 s' WHERE session_id = %s"
                with psycopg.connect(database, autocommit=True) as meddler:
                    meddler.execute(expire, [session.uuid])
            chance.shuffle(works)
            # The rest is still held when the session is closed, which wants the session's row and theirs.
            for work in works[: chance.randint(0, len(works))]:
                try:
                    if (way := chance.random()) < 0.5:
                        work.finish(lambda q, m=work.machine: q.machine_set_hardware_report(m, b"x"))  # type: ignore[misc]
                    elif way < 0.8:
                        work.fail("by chance", bmdb.Backoff(1))
                    else:
                        work.cancel()
                except (bmdb.LeaseLostError, bmdb.SessionExpiredError):
                    pass
                with counting:
                    if work.state in ended:
                        ended[work.state] += 1
            session.close()

        threads = [guarded(hold, seed) for seed in range(WORKERS)]
        threads += [guarded(lambda _: void(collectors.collect()), seed) for seed in range(WORKERS, WORKERS + 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        collectors.collect()
    assert deadlocks(sql) == 0
    figure("deadlocks", deadlocks(sql), of=sum(ended.values()))
    # The races took place, and however a lease ended, it ended once.
    assert ended["finished"] > 5 and ended["failed"] > 5
    lost = sql.execute("SELECT count(*) FROM work_history WHERE event = 'Lost'").fetchone()
    assert lost is not None and lost[0] > 5
    twice = """
        SELECT machine_id, token FROM work_history WHERE event <> 'Started'
        GROUP BY machine_id, token HAVING count(*) <> 1
    """
    assert sql.execute(twice).fetchall() == []
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    starts = (
        "SELECT count(*) FILTER (WHERE event = 'Started'), count(*) FILTER (WHERE event <> 'Started') FROM work_history"
    )
    row = sql.execute(starts).fetchone()
    assert row is not None and row[0] == row[1]


def void(_: object) -> None:
    pass
