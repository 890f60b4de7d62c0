"""Row 44: claims in batches and group commits go over the same machines, in any order.

Promised: no deadlock.
"""

from __future__ import annotations

import random
from typing import Any

import psycopg

import bmdb
from tests.concurrency import together
from tests.conftest import MakeMachines
from tests.faults.claimers import PROCESS, deadlocks
from tests.faults.conftest import Connect
from tests.faults.figures import Figure

CLAIMERS = 8
ROUNDS = 25


def test_batches_that_meet_again_and_again_end_without_a_deadlock(
    figure: Figure, database: str, sql: psycopg.Connection[Any], machines: MakeMachines, connect: Connect
) -> None:
    """Few machines, processes that exclude one another or not, tags set in opposite orders, failures and cancels."""
    machines(24)
    sql.execute("CREATE TABLE machine_left (machine_id uuid PRIMARY KEY REFERENCES machines, n int)")
    sql.execute("CREATE TABLE machine_right (machine_id uuid PRIMARY KEY REFERENCES machines, n int)")
    processes = [
        bmdb.Process(PROCESS, excludes=("Other",), eligible=bmdb.eligible(where="true")),
        bmdb.Process("Other", eligible=bmdb.eligible(where="true")),
        bmdb.Process("Third", eligible=bmdb.eligible(where="true", order_by="machine_id DESC")),
    ]
    leased = [0] * CLAIMERS

    def work(connection: bmdb.Connection, number: int) -> None:
        chance = random.Random(number)
        with connection.start_session(interval=20.0) as session:
            for _ in range(ROUNDS):
                process = chance.choice(processes)
                try:
                    works = session.work_many(process, chance.randint(1, 12))
                except bmdb.NothingToDo:
                    continue
                leased[number] += len(works)
                chance.shuffle(works)
                changes = [bmdb.set_tag("left", n=number), bmdb.set_tag("right", n=number), bmdb.clear_tag("left")]
                half = len(works) // 2
                ends: list[tuple[bmdb.Work | bmdb.Change, ...]] = [
                    (work, changes[1], changes[chance.choice([0, 2])])
                    if chance.random() < 0.5
                    else (work, changes[chance.choice([0, 2])], changes[1])
                    for work in works[:half]
                ]
                assert session.finish_many(ends) == [None] * half
                for left in works[half:]:
                    if chance.random() < 0.5:
                        left.cancel()
                    else:
                        left.fail("again", bmdb.Backoff(1))
                if chance.random() < 0.3:
                    sql.execute("DELETE FROM work_backoff")

    connections = [connect(database, component=f"claimer {number}") for number in range(4)]
    try:
        together(*[lambda n=number: work(connections[n % 4], n) for number in range(CLAIMERS)])  # type: ignore[misc]
    finally:
        for connection in connections:
            connection.close()
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    # Each lease has one end, and no token was given twice.
    (started, ended, tokens) = sql.execute(
        "SELECT count(*) FILTER (WHERE event = 'Started'), count(*) FILTER (WHERE event <> 'Started'),"
        " count(DISTINCT (machine_id, process, token)) FROM work_history"
    ).fetchone() or (0, 0, 0)
    assert started == ended == tokens == sum(leased) > CLAIMERS * 10
    assert deadlocks(sql) == 0
    figure("deadlocks", deadlocks(sql), of=started)
