# Generated from tests/behaviour/async_/test_agent_start.py by tools/generate_sync.py: do not edit.
"""The original's first workflow, whole: machines of a provider get an agent; and several workers share a fleet."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together

import bmdb
from bmdb.model import Event, ProcessName, Provider

Sql = psycopg.Connection[Any]
START, RECOVERY = ProcessName.SHEPHERD_AGENT_START, ProcessName.SHEPHERD_RECOVERY


def provide(session: bmdb.Session, count: int, provider: str = Provider.EQUINIX) -> list[UUID]:
    """So many machines that the provider has, nothing else known about them."""

    def make(q: bmdb.Queries) -> list[UUID]:
        rack = [q.new_machine().machine_id for _ in range(count)]
        for machine in rack:
            q.machine_add_provided(machine, provider, f"id-{machine}")
        return rack

    return session.transact(make)


def for_start(q: bmdb.Queries) -> list[Any]:
    return list(q.machines_for_agent_start(10, Provider.EQUINIX))


def for_recovery(q: bmdb.Queries) -> list[Any]:
    return list(q.machines_for_agent_recovery(10, Provider.EQUINIX))


def started(q: bmdb.Queries, machine: UUID) -> None:
    q.machine_set_agent_started(machine, datetime.now(UTC), b"key")


def test_an_agent_is_started_once_and_history_tells_it(connection: bmdb.Connection, session: bmdb.Session) -> None:
    (machine,) = provide(session, 1)
    work = session.work(START, for_start)
    assert work.machine == machine and work.process == START
    assert session.transact(for_start) == []
    work.finish(lambda q: started(q, work.machine))
    with pytest.raises(bmdb.NothingToDo):
        session.work(START, for_start)
    assert session.transact(lambda q: q.authenticate_agent(machine, b"key")) is not None
    events = connection.history_of(machine)
    assert [(event.event, event.process) for event in events] == [(Event.STARTED, START), (Event.FINISHED, START)]
    for event in events:
        assert (event.machine_id, event.session_id, event.component) == (machine, session.uuid, "test")
        assert event.token == work.token
        assert event.failed_cause is None
    assert events[0].timestamp < events[1].timestamp


def test_a_failed_start_keeps_the_machine_off_until_its_backoff_has_passed(
    connection: bmdb.Connection, session: bmdb.Session, sql: Sql
) -> None:
    (machine,) = provide(session, 1)
    session.work(START, for_start).fail("connection refused", bmdb.Backoff(300, 4 * 3600, 1.2))
    with pytest.raises(bmdb.NothingToDo):
        session.work(START, for_start)
    sql.execute("UPDATE work_backoff SET until = clock_timestamp() - interval '1 s'")
    work = session.work(START, for_start)
    assert work.previous_backoff == 300
    work.fail("connection refused again", bmdb.Backoff(300, 4 * 3600, 1.2))
    assert [event.failed_cause for event in connection.history_of(machine) if event.event == Event.FAILED] == [
        "connection refused",
        "connection refused again",
    ]
    row = sql.execute("SELECT last_interval_seconds FROM work_backoff").fetchone()
    assert row == (360,)


def test_start_and_recovery_exclude_one_another(session: bmdb.Session, sql: Sql) -> None:
    """The lease itself is per process; it is the queries that leave out what another Shepherd works on."""
    (machine,) = provide(session, 1)
    silent = "UPDATE machine_agent_started SET agent_started_at = clock_timestamp() - interval '1 hour'"
    starting = session.work(START, for_start)
    # Even a machine that recovery would want is left alone while a start is on its way.
    session.transact(lambda q: started(q, machine))
    sql.execute(silent)
    with pytest.raises(bmdb.NothingToDo):
        session.work(RECOVERY, for_recovery)
    starting.finish()
    recovering = session.work(RECOVERY, for_recovery)
    assert recovering.machine == machine
    sql.execute("DELETE FROM machine_agent_started")
    with pytest.raises(bmdb.NothingToDo):
        session.work(START, for_start)
    recovering.finish()
    assert session.work(START, for_start).machine == machine


def test_three_workers_share_six_machines(database: str, session: bmdb.Session, sql: Sql) -> None:
    """No worker may lease its second machine before each has its first, so all of them must be seen."""
    rack = provide(session, 6)
    everyone_has_one = threading.Barrier(3)
    done: list[tuple[str, UUID]] = []

    def work(name: str) -> None:
        try:
            with (
                bmdb.connect(database, component=name) as connection,
                connection.start_session() as own,
            ):
                first = True
                while True:
                    try:
                        work = own.work(START, for_start)
                    except bmdb.WorkConflictError:
                        # All that was offered went to the others just now: ask again.
                        continue
                    if first:
                        everyone_has_one.wait()
                        first = False
                    work.finish(partial(started, machine=work.machine))
                    done.append((name, work.machine))
        except bmdb.NothingToDo:
            pass
        except BaseException:
            everyone_has_one.abort()
            raise

    together(*(partial(work, f"worker-{number}") for number in range(3)))
    assert {name for name, _ in done} == {"worker-0", "worker-1", "worker-2"}
    assert Counter(machine for _, machine in done) == Counter(rack)
    finished = sql.execute("SELECT machine_id, component FROM work_history WHERE event = 'Finished'").fetchall()
    assert sorted(finished) == sorted((machine, name) for name, machine in done)
