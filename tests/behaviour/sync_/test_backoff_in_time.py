# Generated from tests/behaviour/async_/test_backoff_in_time.py by tools/generate_sync.py: do not edit.
"""Backoff in real time: how long a failing machine is left alone, and what a finish forgives."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

PROCESS = "UnitTest1"
GROWING = bmdb.Backoff(1, 5, 2.0)
Sql = psycopg.Connection[Any]

ELIGIBLE = """
    SELECT m.machine_id FROM machines AS m
    WHERE NOT EXISTS (
        SELECT 1 FROM work_backoff AS b
        WHERE b.machine_id = m.machine_id AND b.process = $1 AND b.until > now()
    )
"""


def out_of_backoff(q: bmdb.Queries) -> list[bmdb.Row]:
    """The retrieval of a user who respects backoffs."""
    return q.fetch(ELIGIBLE, PROCESS)


def stored(sql: Sql, machine: UUID) -> tuple[Any, ...] | None:
    """Cause, last interval, and seconds left of the machine's backoff."""
    return sql.execute(
        "SELECT cause, last_interval_seconds, extract(epoch FROM until - clock_timestamp())::float8"
        " FROM work_backoff WHERE machine_id = %s AND process = %s",
        [machine, PROCESS],
    ).fetchone()


def wind_forward(sql: Sql) -> None:
    """Let the backoffs pass without waiting for it."""
    sql.execute("UPDATE work_backoff SET until = clock_timestamp() - interval '1 ms'")


def test_the_period_and_its_cause_are_stored(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    for period in [1, 2, 4, 5, 5]:
        work = session.work(PROCESS, lambda q: [machine])
        work.fail(f"cause {period}", GROWING)
        row = stored(sql, machine)
        assert row is not None
        assert row[:2] == (f"cause {period}", period)
        assert period - 1 < row[2] <= period


def test_previous_backoff_is_the_last_period_until_a_finish(session: bmdb.Session, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    seen = []
    for _ in range(3):
        work = session.work(PROCESS, lambda q: [machine])
        seen.append(work.previous_backoff)
        work.fail("no answer", GROWING)
    work = session.work(PROCESS, lambda q: [machine])
    assert [*seen, work.previous_backoff] == [None, 1, 2, 4]
    work.finish()
    assert session.work(PROCESS, lambda q: [machine]).previous_backoff is None


def test_a_cancel_neither_grows_nor_forgives(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    session.work(PROCESS, lambda q: [machine]).fail("no answer", GROWING)
    before = stored(sql, machine)
    session.work(PROCESS, lambda q: [machine]).cancel()
    after = stored(sql, machine)
    assert before is not None and after is not None and before[:2] == after[:2]
    session.work(PROCESS, lambda q: [machine]).fail("no answer", GROWING)
    row = stored(sql, machine)
    assert row is not None and row[1] == 2


def test_a_period_that_has_passed_still_feeds_the_next(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    session.work(PROCESS, out_of_backoff).fail("no answer", GROWING)
    wind_forward(sql)
    work = session.work(PROCESS, out_of_backoff)
    assert work.previous_backoff == 1
    work.fail("no answer", GROWING)
    row = stored(sql, machine)
    assert row is not None and row[1] == 2


def test_machines_and_processes_back_off_on_their_own(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    first, second = machines(2)
    for _ in range(3):
        session.work(PROCESS, lambda q: [first]).fail("no answer", GROWING)
    session.work(PROCESS, lambda q: [second]).fail("no answer", GROWING)
    session.work("UnitTest2", lambda q: [first]).fail("no answer", GROWING)
    rows = sql.execute("SELECT machine_id, process, last_interval_seconds FROM work_backoff").fetchall()
    assert set(rows) == {(first, PROCESS, 4), (second, PROCESS, 1), (first, "UnitTest2", 1)}


def test_without_a_backoff_the_period_stays_and_a_warning_is_logged(
    session: bmdb.Session, machines: MakeMachines, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    (machine,) = machines(1)
    periods = []
    with caplog.at_level(logging.WARNING, logger="bmdb"):
        for backoff in [None, GROWING, None]:
            session.work(PROCESS, lambda q: [machine]).fail("no answer", backoff)
            row = stored(sql, machine)
            assert row is not None
            periods.append(row[1])
    assert periods == [1, 2, 2]
    warnings = [record.getMessage() for record in caplog.records if "without a backoff" in record.getMessage()]
    assert len(warnings) == 2
    assert str(machine) in warnings[0] and "1 s" in warnings[0] and "2 s" in warnings[1]


def test_a_backoff_from_an_older_schema_counts_as_none(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    sql.execute(
        "INSERT INTO work_backoff (machine_id, process, until, cause) VALUES (%s, %s, clock_timestamp(), 'old')",
        [machine, PROCESS],
    )
    work = session.work(PROCESS, lambda q: [machine])
    assert work.previous_backoff is None
    work.fail("no answer", bmdb.Backoff(3, 60, 2.0))
    row = stored(sql, machine)
    assert row is not None and row[1] == 3


def test_jitter_shortens_the_wait_and_not_the_period(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    rack = machines(12)
    jittered = bmdb.Backoff(1000, jitter=0.5)
    for _ in rack:
        session.work(PROCESS, out_of_backoff).fail("no answer", jittered)
    rows = [stored(sql, machine) for machine in rack]
    assert all(row is not None and row[1] == 1000 and 490 < row[2] <= 1000 for row in rows)
    assert len({round(row[2]) for row in rows if row is not None}) > 1
