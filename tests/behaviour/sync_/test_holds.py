# Generated from tests/behaviour/async_/test_holds.py by tools/generate_sync.py: do not edit.
"""Holds: a person keeps workers away from a machine, and everybody can see who and why."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]


def test_a_held_machine_is_not_leased_until_it_is_released(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
) -> None:
    first, second = machines(2)
    connection.hold(first, owner="ada", reason="its disk is being replaced")
    for process in ("A", bmdb.Process("B")):
        work = session.work(process, lambda q: [first, second])
        assert work.machine == second
        with pytest.raises(bmdb.WorkConflictError):
            session.work(process, lambda q: [first])
        work.finish()
    assert connection.release(first)
    assert not connection.release(first)
    assert session.work("A", lambda q: [first, second]).machine == first


def test_for_one_process_alone(connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    process = bmdb.Process("A")
    connection.hold(machine, process, owner="ada", reason="a bad image")
    with pytest.raises(bmdb.WorkConflictError):
        session.work("A", lambda q: [machine])
    session.work("B", lambda q: [machine]).finish()
    assert not connection.release(machine)  # there is none for all
    assert connection.release(machine, process)
    session.work("A", lambda q: [machine]).finish()


def test_it_ends_by_itself(connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    connection.hold(machine, owner="ada", reason="a moment", until=datetime.now(UTC) + timedelta(seconds=0.6))
    with pytest.raises(bmdb.WorkConflictError):
        session.work("A", lambda q: [machine])
    assert len(connection.holds()) == 1
    time.sleep(0.7)
    assert connection.holds() == []
    session.work("A", lambda q: [machine]).finish()


def test_a_lease_that_is_held_already_stays(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    work = session.work("A", lambda q: [machine])
    connection.hold(machine, owner="ada", reason="no more of this")
    work.finish()
    with pytest.raises(bmdb.WorkConflictError):
        session.work("A", lambda q: [machine])


def test_they_are_shown_and_told_in_history(connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
    first, second = sorted(machines(2))
    until = datetime.now(UTC) + timedelta(hours=1)
    connection.hold(second, owner="ada", reason="disk")
    connection.hold(first, "A", owner="bob", reason="image")
    connection.hold(first, owner="bob", reason="move", until=until)
    connection.hold(first, owner="cleo", reason="fire", until=until)
    shown = [(hold.machine_id, hold.process, hold.owner, hold.reason, hold.until) for hold in connection.holds()]
    assert shown == [
        (first, None, "cleo", "fire", until),
        (first, "A", "bob", "image", None),
        (second, None, "ada", "disk", None),
    ]
    assert [hold.owner for hold in connection.holds(second)] == ["ada"]
    assert connection.release(first)
    told = [(event.event, event.process, event.failed_cause, event.component) for event in connection.history_of(first)]
    assert told == [
        ("Held", "A", "bob: image", "test"),
        ("Held", "", "bob: move", "test"),
        ("Held", "", "cleo: fire", "test"),
        ("Released", "", "cleo: fire", "test"),
    ]


def test_they_go_with_their_machine(connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    connection.hold(machine, owner="ada", reason="it will be scrapped")
    sql.execute("DELETE FROM machines")
    assert connection.holds() == []


def test_what_makes_no_sense_is_refused(connection: bmdb.Connection, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    with pytest.raises(bmdb.DatabaseError) as unknown:
        connection.hold(uuid4(), owner="ada", reason="disk")
    assert unknown.value.constraint == "work_hold_machine_fkey"
    for wrong in ({"owner": " "}, {"reason": ""}, {"reason": "a\0b"}, {"until": datetime(2100, 1, 1)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            connection.hold(machine, **({"owner": "ada", "reason": "disk"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="until"):
        connection.hold(machine, owner="ada", reason="disk", until=60)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="process"):
        connection.hold(machine, "", owner="ada", reason="disk")
    assert connection.holds() == []


def test_a_hold_that_would_be_over_already_is_refused_and_lifts_nothing(
    connection: bmdb.Connection, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    connection.hold(machine, owner="ada", reason="disk")
    with pytest.raises(ValueError, match="would be over already"):
        connection.hold(machine, owner="bob", reason="oops", until=datetime.now(UTC) - timedelta(seconds=1))
    assert [hold.owner for hold in connection.holds(machine)] == ["ada"]
    assert [event.event for event in connection.history_of(machine)] == ["Held"]
