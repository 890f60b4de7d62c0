# Generated from tests/behaviour/async_/test_operators.py by tools/generate_sync.py: do not edit.
"""What an operator does in the place of a holder: ends a lease, ends a backoff. History says who and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb
from bmdb.model import Event

Sql = psycopg.Connection[Any]
WHY = {"owner": "ada", "reason": "it hangs"}


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_a_lease_that_is_released_by_force_fences_its_holder(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, end: str, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = session.work("A", lambda q: [machine])
    released = connection.force_release(machine, "A", **WHY)
    assert released is not None
    assert (released.session_id, released.token, released.session_live) == (session.uuid, work.token, True)
    assert connection.force_release(machine, bmdb.Process("A"), **WHY) is None
    successor = session.work("A", lambda q: [machine])
    ends: dict[str, Callable[[], None]] = {
        "finish": lambda: work.finish(lambda q: q.machine_add_provided(machine, "Equinix", "late")),
        "fail": lambda: work.fail("late", bmdb.Backoff(60)),
    }
    if end == "cancel":
        work.cancel()  # it never complains; the successor's lease must stay
    else:
        with pytest.raises(bmdb.LeaseLostError):
            ends[end]()
    assert sql.execute("SELECT count(*) FROM machine_provided").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM work_backoff").fetchone() == (0,)
    successor.finish()
    history = connection.history_of(machine)
    assert [event.event for event in history] == ["Started", "Released", "Started", "Finished"]
    told = history[1]
    assert (told.event, told.failed_cause, told.component) == (Event.RELEASED, "ada: it hangs", "test")
    assert (told.session_id, told.token) == (session.uuid, work.token)


def test_the_lease_of_another_process_stays(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    work, other = [session.work(process, lambda q: [machine]) for process in ("A", "B")]
    assert connection.force_release(machine, "B", **WHY) is not None
    work.finish()
    with pytest.raises(bmdb.LeaseLostError):
        other.finish()


def test_a_backoff_that_is_cleared_lets_the_process_in_at_once(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    eligible = bmdb.eligible(lacking=("provided",))
    backoff = bmdb.Backoff(60, 3600, 2)
    session.work("A", eligible).fail("no answer", backoff)
    with pytest.raises(bmdb.NothingToDo):
        session.work("A", eligible)
    cleared = connection.clear_backoff(machine, "A", **WHY)
    assert cleared is not None
    assert (cleared.cause, cleared.last_interval_seconds) == ("no answer", 60)
    assert connection.clear_backoff(machine, "A", **WHY) is None
    work = session.work("A", eligible)
    assert work.previous_backoff is None
    work.fail("again", backoff)
    renewed = connection.clear_backoff(machine, "A", **WHY)
    assert renewed is not None
    assert renewed.last_interval_seconds == 60, "it began anew"
    told = [event for event in connection.history_of(machine) if event.event == Event.BACKOFF_CLEARED]
    assert [(event.process, event.failed_cause, event.component) for event in told] == [
        ("A", "ada: it hangs", "test")
    ] * 2


def test_a_backoff_that_has_passed_is_none(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    session.work("A", lambda q: [machine]).fail("no answer", bmdb.Backoff(60))
    sql.execute("UPDATE work_backoff SET until = now() - interval '1 second'")
    assert connection.clear_backoff(machine, "A", **WHY) is None
    assert sql.execute("SELECT last_interval_seconds FROM work_backoff").fetchone() == (60,)


def test_a_quarantine_is_no_backoff(connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    sql.execute("INSERT INTO work_loss VALUES (%s, 'A', 3, now(), now())", [machine])
    sql.execute("INSERT INTO work_backoff VALUES (%s, 'A', '9999-12-31 00:00:00+00', 'lost', 1)", [machine])
    assert connection.clear_backoff(machine, "A", **WHY) is None
    assert connection.release_quarantine(machine, "A")


@pytest.mark.parametrize("act", ["force_release", "clear_backoff"])
def test_somebody_has_to_say_who_and_why(connection: bmdb.Connection, act: str) -> None:
    do = getattr(connection, act)
    for owner, reason in (("", "x"), ("ada", " "), ("a\0", "x")):
        with pytest.raises(ValueError, match="must say something"):
            do(uuid4(), "A", owner=owner, reason=reason)
    with pytest.raises(TypeError, match="owner must be a str"):
        do(uuid4(), "A", owner=None, reason="x")
    assert do(uuid4(), "A", **WHY) is None


@pytest.mark.parametrize("act", ["force_release", "clear_backoff", "release", "release for all", "release_quarantine"])
def test_whoever_waits_is_told(
    connection: bmdb.Connection,
    session: bmdb.Session,
    machines: MakeMachines,
    act: str,
    sql: Sql,
    database: str,
) -> None:
    (machine,) = machines(1)
    process = bmdb.Process("A", eligible=bmdb.eligible(having=("provided",)))
    connection.register(process)
    if act == "force_release":
        session.work("A", lambda q: [machine])
    elif act == "clear_backoff":
        session.work("A", lambda q: [machine]).fail("no answer", bmdb.Backoff(60))
    elif act == "release":
        connection.hold(machine, process, **WHY)
    elif act == "release for all":
        connection.hold(machine, **WHY)
    else:
        sql.execute("INSERT INTO work_loss VALUES (%s, 'A', 3, now(), now())", [machine])
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("LISTEN bmdb_work")
        if act == "force_release":
            assert connection.force_release(machine, process, **WHY) is not None
        elif act == "clear_backoff":
            assert connection.clear_backoff(machine, process, **WHY) is not None
        elif act == "release_quarantine":
            assert connection.release_quarantine(machine, process)
        else:
            assert connection.release(machine, process if act == "release" else None)
        assert [hint.payload for hint in listener.notifies(timeout=5, stop_after=1)] == ["A"]


def test_who_ends_a_hold_or_a_quarantine_is_in_history(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    for why in ({}, {"owner": "bob", "reason": "fan replaced"}):
        connection.hold(machine, "A", **WHY)
        assert connection.release(machine, "A", **why)
        sql.execute("INSERT INTO work_loss VALUES (%s, 'A', 3, now(), now())", [machine])
        assert connection.release_quarantine(machine, "A", **why)
    history = [(event.event, event.failed_cause) for event in connection.history_of(machine)]
    assert [cause for event, cause in history if event == Event.RELEASED] == ["ada: it hangs", "bob: fan replaced"]
    assert [cause for event, cause in history if event == Event.QUARANTINE_RELEASED] == [None, "bob: fan replaced"]
    with pytest.raises(TypeError, match="reason must be a str"):
        connection.release(machine, owner="bob")


def test_the_statistics_are_of_one_moment(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = bmdb.Queries.count_provided

    def late(q: bmdb.Queries) -> int:
        (machine,) = machines(1)
        sql.execute("INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, 'A', '1')", [machine])
        return counted(q)

    monkeypatch.setattr(bmdb.Queries, "count_provided", late)
    told = connection.statistics()
    assert (told.machines, told.machines_provided) == (0, 0)
    assert sql.execute("SELECT count(*) FROM machine_provided").fetchone() == (1,)
