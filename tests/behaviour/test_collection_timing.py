"""When a process collects by itself: just after the deadlines of others, wherever its own beats fall.

The times come from the database: the deadline of an abandoned session against the `Lost` event of its lease.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import eventually
from tests.proxy import Proxy

import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]

LATENESS = """
    SELECT extract(epoch FROM h."timestamp" - d.session_deadline)::float8
    FROM work_history AS h JOIN deadlines AS d USING (session_id)
    WHERE h.event = 'Lost'
"""


@pytest.fixture
def abandon(sql: Sql) -> Any:
    """A function that adds a session with a lease on a machine, to expire in so many seconds, as of a dead holder."""
    sql.execute("CREATE TABLE deadlines (session_id uuid, session_deadline timestamptz)")

    def add(machine: UUID, ahead: float, interval: int) -> None:
        sql.execute(
            "WITH added AS (INSERT INTO sessions (session_component_name, session_runtime_info, session_deadline,"
            " session_interval_seconds) VALUES ('gone', '', clock_timestamp() + %s * interval '1 s', %s)"
            " RETURNING session_id, session_deadline), held AS (INSERT INTO work (machine_id, process, session_id,"
            " token) SELECT %s, %s, session_id, 1 FROM added)"
            " INSERT INTO deadlines SELECT * FROM added",
            [ahead, interval, machine, PROCESS],
        )

    return add


def test_a_deadline_between_two_beats_is_met(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql, abandon: Any
) -> None:
    """The first beat comes after 2 to 4 s, the next 3.6 to 4 s later: after 5.6 s at the earliest."""
    (machine,) = machines(1)
    with connection.start_session(interval=8):
        abandon(machine, 4.6, interval=8)
        eventually(lambda: sql.execute(LATENESS).fetchone(), 12, every=0.1)
    ((late,),) = sql.execute(LATENESS).fetchall()
    assert 0 <= late < 0.8


def test_many_processes_collect_once_and_nobody_complains(
    database: str,
    connection: bmdb.Connection,
    machines: MakeMachines,
    sql: Sql,
    abandon: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rack = machines(3)
    with caplog.at_level(logging.INFO, logger="bmdb.collect"):
        others = [bmdb.connect(database, component="other") for _ in range(5)]
        try:
            for other in others:
                other.start_session(interval=2)
            for machine in rack:
                abandon(machine, 1.5, interval=2)
            eventually(lambda: len(sql.execute(LATENESS).fetchall()) == len(rack), 10, every=0.1)
        finally:
            for other in others:
                other.close()
    assert max(late for (late,) in sql.execute(LATENESS)) < 1.2
    told = [record for record in caplog.records if record.name == "bmdb.collect"]
    assert sum(int(record.getMessage().split()[1]) for record in told) == len(rack)
    assert {record.levelno for record in told} == {logging.INFO}


def test_a_look_that_is_not_answered_costs_no_beat(
    proxy: Proxy, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        bmdb.connect(proxy.conninfo(database), component="test") as connection,
        proxy.holding_before(r"AS expired,", times=None) as held,
        connection.start_session(interval=2) as session,
    ):
        held.wait(15, hits=3)
        assert not session.expired
        failures = [value for name, _, _, value in connection.metrics() if name == "bmdb_heartbeat_failures"]
        assert failures == [0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_worker_that_found_nothing_tells_what_it_collected(
    connection: bmdb.Connection, machines: MakeMachines, abandon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """So that other loops of the same process look again, too."""
    rack = machines(1)
    abandon(rack[0], -1, interval=5)
    with (
        caplog.at_level(logging.INFO, logger="bmdb.collect"),
        connection.start_session(interval=60) as session,
        session.work(PROCESS, lambda q: rack),
    ):
        eventually(lambda: [record for record in caplog.records if "1 leases" in record.getMessage()], 5)
