# Generated from tests/behaviour/async_/test_lease_names.py by tools/generate_sync.py: do not edit.
"""A lease has a name from its client, which history keeps: one event of a kind for each, whoever writes it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]
EVENTS = "SELECT event, lease_id FROM work_history WHERE machine_id = %s ORDER BY timestamp"
BY_SQL = "INSERT INTO work_history (machine_id, process, event, lease_id) VALUES (%s, 'A', %s, %s)"


def names(sql: Sql, machine: UUID, *events: str) -> set[UUID]:
    """The names in the machine's history, whose events are these."""
    rows = sql.execute(EVENTS, [machine]).fetchall()
    assert [event for event, _ in rows] == list(events)
    return {name for _, name in rows}


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("event", ["Finished", "Failed", "Canceled"])
@pytest.mark.parametrize("callback", [False, True])
def test_an_end_is_recorded_under_the_name_of_the_claim(
    event: str, declared: bool, callback: bool, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = session.work("A", bmdb.eligible(where="true") if declared else lambda q: [machine])
    [name] = sql.execute("SELECT lease_id FROM work").fetchall()
    if event == "Finished":
        work.finish((lambda q: None) if callback else None)
    elif event == "Failed":
        work.fail("broken", bmdb.Backoff(1))
    else:
        work.cancel()
    assert names(sql, machine, "Started", event) == set(name) != {None}


def test_leases_that_are_claimed_together_have_names_of_their_own(
    session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    machines(300)
    works = session.work_many("A", 300, bmdb.eligible(where="true"))
    session.finish_many(works)
    row = sql.execute("SELECT count(*), count(DISTINCT lease_id), count(DISTINCT (lease_id, event)) FROM work_history")
    assert row.fetchone() == (600, 300, 600)


def test_a_lease_that_goes_with_its_session_or_by_an_operator_keeps_its_name(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql
) -> None:
    session = connection.start_session()
    rack = machines(3)
    for machine in rack:
        session.work("A", lambda q, machine=machine: [machine])
    connection.force_release(rack[0], "A", owner="ada", reason="stuck")
    sql.execute("DELETE FROM work WHERE machine_id = %s", [rack[1]])
    session.close()
    assert len(names(sql, rack[0], "Started", "Released")) == 1
    assert len(names(sql, rack[2], "Started", "Canceled")) == 1
    lost = connection.start_session()
    lost.work("A", lambda q: [rack[1]])
    sql.execute("UPDATE sessions SET session_deadline = now() - interval '1 hour'")
    connection.collect()
    *_, (started, first), (event, second) = sql.execute(EVENTS, [rack[1]]).fetchall()
    assert (started, event) == ("Started", "Lost") and first == second is not None


def test_history_has_one_event_of_a_kind_for_each_lease(
    session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    session.work("A", bmdb.eligible(where="true")).finish()
    [name] = names(sql, machine, "Started", "Finished")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute(BY_SQL, [machine, "Finished", name])
    sql.execute(BY_SQL, [machine, "Noted", name])
    # What has no name is not one of a kind: events by hand, and those of workers of schema 5.
    for _ in range(2):
        sql.execute(BY_SQL, [machine, "Finished", None])


def test_every_month_that_is_written_has_the_index(connection: bmdb.Connection, sql: Sql) -> None:
    current = sql.execute("SELECT to_char(now() AT TIME ZONE 'UTC', '\"work_history_\"YYYY_MM')").fetchone()
    assert current is not None
    sql.execute(f"DROP TABLE {current[0]}".encode())
    with bmdb.connect(connection.conninfo, component="test") as another:
        another.collect()
    lacking = (
        "SELECT partition::text FROM work_history_partitions() AS p WHERE NOT EXISTS (SELECT 1 FROM pg_index AS i"
        " WHERE i.indrelid = p.partition AND i.indisunique AND pg_get_indexdef(i.indexrelid) ~ 'lease_id, event')"
    )
    assert sql.execute(lacking).fetchall() == []


def test_a_history_from_before_is_kept_and_its_months_to_come_are_one_of_a_kind(
    empty_database: str,
) -> None:
    with bmdb.connect(empty_database, component="test") as connection:
        connection.migrate(5)
        with psycopg.connect(empty_database, autocommit=True) as sql:
            sql.execute(
                "WITH m AS (INSERT INTO machines DEFAULT VALUES RETURNING *) INSERT INTO work_history"
                " (machine_id, process, event) SELECT machine_id, 'A', 'Started' FROM m, generate_series(1, 3)"
            )
            connection.migrate()
            [machine] = sql.execute("SELECT machine_id FROM machines").fetchone() or [None]
            with connection.start_session() as session:
                session.work("A", bmdb.eligible(where="true")).finish()
            assert len(names(sql, machine, *["Started"] * 4, "Finished")) == 2
