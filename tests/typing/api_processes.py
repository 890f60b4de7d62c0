"""Processes, as their types allow. Nothing here runs: the type checkers read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type
from uuid import UUID

import bmdb
from bmdb.model import Hold, ProcessName, WorkLoss


def definitions() -> None:
    recovery = bmdb.Process(ProcessName.SHEPHERD_RECOVERY)
    process = bmdb.Process(
        "AgentStart",
        backoff=bmdb.Backoff(300, 4 * 3600, 1.2),
        excludes=(recovery, "Access"),
        max_hold=timedelta(minutes=10),
        crash_backoff=bmdb.Backoff(60),
        quarantine_after=3,
    )
    assert_type(process.name, str)
    assert_type(process.backoff, bmdb.Backoff)
    assert_type(process.excludes, tuple[str, ...])
    assert_type(process.max_hold, float | None)
    assert_type(process.crash_backoff, bmdb.Backoff | None)
    assert_type(process.quarantine_after, int | None)
    bmdb.Process("AgentStart", excludes=[recovery], max_hold=600)
    bmdb.Process("AgentStart", backoff=60)  # type: ignore[arg-type]
    process.name = "Other"  # type: ignore[misc]


def sync(connection: bmdb.Connection, session: bmdb.Session, q: bmdb.Queries, machine: UUID) -> None:
    process = bmdb.Process("AgentStart")
    connection.register(process, process, replace=True)
    connection.register("AgentStart")  # type: ignore[arg-type]
    assert_type(connection.release_quarantine(machine, process), bool)
    assert_type(connection.release_quarantine(machine, "AgentStart"), bool)
    connection.hold(machine, owner="me", reason="disk")
    connection.hold(machine, process, owner="me", reason="disk", until=datetime.now(UTC))
    connection.hold(machine, "AgentStart")  # type: ignore[call-arg]
    assert_type(connection.release(machine, "AgentStart"), bool)
    assert_type(connection.holds(), list[Hold])
    assert_type(session.work(process, lambda q: [machine]), bmdb.Work)
    assert_type(q.work_loss_of(machine, "AgentStart"), WorkLoss | None)
    assert_type(q.quarantines(), list[WorkLoss])
    assert_type(q.release_quarantine(machine, "AgentStart", "by hand"), bool)


async def twin(
    connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, q: bmdb.AsyncQueries, machine: UUID
) -> None:
    process = bmdb.Process("AgentStart")
    await connection.register(process)
    assert_type(await connection.release_quarantine(machine, process), bool)
    await connection.hold(machine, owner="me", reason="disk", until=None)
    assert_type(await connection.release(machine), bool)
    assert_type(await connection.holds(machine), list[Hold])
    assert_type(await session.work(process, lambda q: [machine]), bmdb.AsyncWork)
    assert_type(await q.quarantines(), list[WorkLoss])
