"""Holds: a person keeps workers away from a machine, and everybody can see who and why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]


async def test_a_held_machine_is_not_leased_until_it_is_released(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    first, second = machines(2)
    await connection.hold(first, owner="ada", reason="its disk is being replaced")
    for process in ("A", bmdb.Process("B")):
        work = await session.work(process, lambda q: [first, second])
        assert work.machine == second
        with pytest.raises(bmdb.WorkConflictError):
            await session.work(process, lambda q: [first])
        await work.finish()
    assert await connection.release(first)
    assert not await connection.release(first)
    assert (await session.work("A", lambda q: [first, second])).machine == first


async def test_for_one_process_alone(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    process = bmdb.Process("A")
    await connection.hold(machine, process, owner="ada", reason="a bad image")
    with pytest.raises(bmdb.WorkConflictError):
        await session.work("A", lambda q: [machine])
    await (await session.work("B", lambda q: [machine])).finish()
    assert not await connection.release(machine)  # there is none for all
    assert await connection.release(machine, process)
    await (await session.work("A", lambda q: [machine])).finish()


async def test_it_ends_by_itself(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    await connection.hold(machine, owner="ada", reason="a moment", until=datetime.now(UTC) + timedelta(seconds=0.6))
    with pytest.raises(bmdb.WorkConflictError):
        await session.work("A", lambda q: [machine])
    assert len(await connection.holds()) == 1
    await asyncio.sleep(0.7)
    assert await connection.holds() == []
    await (await session.work("A", lambda q: [machine])).finish()


async def test_a_lease_that_is_held_already_stays(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    work = await session.work("A", lambda q: [machine])
    await connection.hold(machine, owner="ada", reason="no more of this")
    await work.finish()
    with pytest.raises(bmdb.WorkConflictError):
        await session.work("A", lambda q: [machine])


async def test_they_are_shown_and_told_in_history(
    connection: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql
) -> None:
    first, second = sorted(machines(2))
    until = datetime.now(UTC) + timedelta(hours=1)
    await connection.hold(second, owner="ada", reason="disk")
    await connection.hold(first, "A", owner="bob", reason="image")
    await connection.hold(first, owner="bob", reason="move", until=until)
    await connection.hold(first, owner="cleo", reason="fire", until=until)
    shown = [(hold.machine_id, hold.process, hold.owner, hold.reason, hold.until) for hold in await connection.holds()]
    assert shown == [
        (first, None, "cleo", "fire", until),
        (first, "A", "bob", "image", None),
        (second, None, "ada", "disk", None),
    ]
    assert [hold.owner for hold in await connection.holds(second)] == ["ada"]
    assert await connection.release(first)
    told = [
        (event.event, event.process, event.failed_cause, event.component)
        for event in await connection.history_of(first)
    ]
    assert told == [
        ("Held", "A", "bob: image", "test"),
        ("Held", "", "bob: move", "test"),
        ("Held", "", "cleo: fire", "test"),
        ("Released", "", "cleo: fire", "test"),
    ]


async def test_they_go_with_their_machine(connection: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    await connection.hold(machine, owner="ada", reason="it will be scrapped")
    sql.execute("DELETE FROM machines")
    assert await connection.holds() == []


async def test_what_makes_no_sense_is_refused(connection: bmdb.AsyncConnection, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    with pytest.raises(bmdb.DatabaseError) as unknown:
        await connection.hold(uuid4(), owner="ada", reason="disk")
    assert unknown.value.constraint == "work_hold_machine_fkey"
    for wrong in ({"owner": " "}, {"reason": ""}, {"reason": "a\0b"}, {"until": datetime(2100, 1, 1)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            await connection.hold(machine, **({"owner": "ada", "reason": "disk"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="until"):
        await connection.hold(machine, owner="ada", reason="disk", until=60)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="process"):
        await connection.hold(machine, "", owner="ada", reason="disk")
    assert await connection.holds() == []


async def test_a_hold_that_would_be_over_already_is_refused_and_lifts_nothing(
    connection: bmdb.AsyncConnection, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    await connection.hold(machine, owner="ada", reason="disk")
    with pytest.raises(ValueError, match="would be over already"):
        await connection.hold(machine, owner="bob", reason="oops", until=datetime.now(UTC) - timedelta(seconds=1))
    assert [hold.owner for hold in await connection.holds(machine)] == ["ada"]
    assert [event.event for event in await connection.history_of(machine)] == ["Held"]
