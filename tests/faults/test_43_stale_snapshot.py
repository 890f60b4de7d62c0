"""Row 43: a claim by a callback is judged on a snapshot older than a rival's finish.

Promised: the machine is never leased again.

Retrieval looks at the tag alone and not at who holds what, so it offers machines that a rival is just finishing. The
row of work is gone by then and refuses nothing; the fencing token's row does. BMDB_SOAK_MACHINES lengthens the drain.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.faults.figures import Figure

PROCESS = "UnitTest1"
CLAIMERS = 8
MACHINES = int(os.environ.get("BMDB_SOAK_MACHINES", "300"))

UNTAGGED = """
SELECT machine_id FROM machines m
WHERE NOT EXISTS (SELECT 1 FROM machine_hardware_report r WHERE r.machine_id = m.machine_id)
ORDER BY machine_id LIMIT 24
"""


def untagged(q: bmdb.Queries) -> list[UUID]:
    return [row.machine_id for row in q.fetch(UNTAGGED)]


@pytest.fixture(params=["serializable", "repeatable read", "read committed"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def claimers(database: str, isolation: str, connect: Connect) -> Iterator[list[bmdb.Session]]:
    """Sessions, each of a connection of its own, as in as many processes."""
    connections = [
        connect(database, component=f"claimer {number}", isolation=isolation, pool_size=2) for number in range(CLAIMERS)
    ]
    try:
        yield [connection.start_session(interval=10.0) for connection in connections]
    finally:
        for connection in connections:
            connection.close()


def test_a_machine_finished_after_the_snapshot_is_not_leased(
    claimers: list[bmdb.Session], sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    seen: list[list[UUID]] = []
    late, rival = claimers[:2]

    def retrieve(q: bmdb.Queries) -> list[UUID]:
        seen.append(untagged(q))
        if len(seen) == 1:
            # On the snapshot just taken the machine is free for ever.
            rival.work(PROCESS, lambda _: [machine]).finish(lambda q: q.machine_set_hardware_report(machine, b"done"))
        return seen[-1]

    with pytest.raises(bmdb.NothingToDo):
        late.work(PROCESS, retrieve)
    assert seen == [[machine], []]
    events = sql.execute("SELECT event, token FROM work_history ORDER BY timestamp").fetchall()
    assert events == [("Started", 1), ("Finished", 1)]


def test_eight_claimers_drain_all_machines_and_finish_none_twice(
    figure: Figure, claimers: list[bmdb.Session], sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    machines(MACHINES)
    errors: list[BaseException] = []
    start = threading.Barrier(CLAIMERS)

    def claim(session: bmdb.Session) -> None:
        chance = random.Random(session.uuid.int)

        def retrieve(q: bmdb.Queries) -> list[UUID]:
            # Spread over the first few, or the claimers would queue up for one machine.
            found = untagged(q)
            chance.shuffle(found)
            # Time for rivals to finish what this snapshot offers.
            time.sleep(chance.random() * 0.004)
            return found

        try:
            start.wait(30)
            while True:
                try:
                    work = session.work(PROCESS, retrieve)
                except bmdb.WorkConflictError:
                    continue
                machine = work.machine
                work.finish(lambda q, m=machine: q.machine_set_hardware_report(m, b"done"))  # type: ignore[misc]
        except bmdb.NothingToDo:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=claim, args=[session]) for session in claimers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    finished = sql.execute(
        "SELECT count(*), count(DISTINCT machine_id), max(token) FROM work_history WHERE event = 'Finished'"
    ).fetchone()
    assert finished == (MACHINES, MACHINES, 1)
    figure("machines worked on twice", finished[0] - finished[1], of=MACHINES)
    workers = sql.execute("SELECT count(DISTINCT session_id) FROM work_history WHERE event = 'Finished'").fetchone()
    assert workers is not None and workers[0] >= 2, "else nobody had a rival"
