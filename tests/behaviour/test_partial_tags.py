"""set_tag of some columns while somebody else writes the same tag: never told as done when it is not."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import eventually

import bmdb

Sql = psycopg.Connection[Any]


@pytest.mark.parametrize("neighbours", [0, 3])
def test_a_tag_that_is_deleted_meanwhile_does_not_swallow_the_change(
    session: bmdb.Session, machines: MakeMachines, sql: Sql, database: str, neighbours: int
) -> None:
    """The update waits for the deletion, and the insert takes the tag for present: neither would write."""
    sql.execute(
        "CREATE TABLE machine_two"
        " (machine_id uuid PRIMARY KEY REFERENCES machines, a int NOT NULL, b int, CONSTRAINT two_check CHECK (b < 9))"
    )
    machine, *others = machines(1 + neighbours)
    for each in (machine, *others):
        sql.execute("INSERT INTO machine_two VALUES (%s, 1, 1)", [each])
    works = [session.work("A", lambda q, each=each: [each]) for each in (machine, *others)]
    verdicts: list[Any] = []
    with psycopg.connect(database) as deleting:
        deleting.execute("DELETE FROM machine_two WHERE machine_id = %s", [machine])
        ending = threading.Thread(
            target=lambda: verdicts.extend(session.finish_many([(work, bmdb.set_tag("two", b=7)) for work in works]))
        )
        ending.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: sql.execute(waits).fetchone() != (0,))
        deleting.commit()
    ending.join(20)
    refused, *done = verdicts
    # There is no tag any more whose columns could stay as they are.
    assert isinstance(refused, bmdb.DatabaseError)
    assert refused.sqlstate == "23502"
    assert done == [None] * neighbours
    assert works[0].state == "active"
    assert sql.execute("SELECT machine_id, a, b FROM machine_two ORDER BY machine_id").fetchall() == [
        (each, 1, 7) for each in sorted(others)
    ]
    works[0].finish(bmdb.set_tag("two", a=2, b=7))
    assert sql.execute("SELECT a, b FROM machine_two WHERE machine_id = %s", [machine]).fetchone() == (2, 7)
