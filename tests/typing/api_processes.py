"""Processes, as their types allow. Nothing here runs: the type checkers read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type
from uuid import UUID

import bmdb
from bmdb.model import ActiveWork, Hold, ProcessName, WorkBackoff, WorkLoss


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
    eligibility = bmdb.eligible(having=["a"], lacking={"b"}, where="x > $1", params=(7,), order_by="x")
    assert_type(eligibility, bmdb.Eligibility)
    assert_type(eligibility.having, tuple[str, ...])
    assert_type(eligibility.sql, str | None)
    assert_type(bmdb.Process("AgentStart", eligible=eligibility, watch=False).eligible, bmdb.Eligibility | None)
    bmdb.Process("AgentStart", eligible="a")  # type: ignore[arg-type]
    bmdb.eligible("a")  # type: ignore[call-arg]
    assert_type(bmdb.set_tag("a", x=1, y=None), bmdb.Change)
    assert_type(bmdb.clear_tag("a"), bmdb.Change)
    bmdb.clear_tag("a", x=1)  # type: ignore[call-arg]
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
    eligible = bmdb.eligible(lacking=("done",))
    work = session.work(process)
    assert_type(session.work("AgentStart", eligible), bmdb.Work)
    works = session.work_many(process, 200)
    assert_type(works, list[bmdb.Work])
    session.work_many(process, 5, lambda q: [machine])  # type: ignore[arg-type]
    verdicts = session.finish_many([work, (work, bmdb.set_tag("done"), bmdb.clear_tag("a"))])
    assert_type(verdicts, list[bmdb.Error | None])
    session.finish_many([machine])  # type: ignore[list-item]
    assert_type(work.finish(bmdb.set_tag("done"), lambda q: q.new_machine()), None)
    assert_type(work.fail("cause", None, bmdb.clear_tag("done")), None)
    assert_type(work.cancel(bmdb.set_tag("done")), None)
    work.finish("done")  # type: ignore[call-overload]
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
    assert_type(await connection.force_release(machine, process, owner="me", reason="stuck"), ActiveWork | None)
    assert_type(await connection.clear_backoff(machine, "AgentStart", owner="me", reason="mended"), WorkBackoff | None)
    assert_type(await session.work(process, lambda q: [machine]), bmdb.AsyncWork)
    assert_type(await session.work(process), bmdb.AsyncWork)
    works = await session.work_many("AgentStart", 5, bmdb.eligible(lacking=("done",)), max_hold=60)
    assert_type(works, list[bmdb.AsyncWork])
    assert_type(await session.finish_many([(works[0], bmdb.set_tag("done")), works[1]]), list[bmdb.Error | None])
    assert_type(await works[0].finish(bmdb.set_tag("done"), lambda q: q.new_machine()), None)
    assert_type(await q.quarantines(), list[WorkLoss])
