"""Processes and control loops, used as their types allow. Nothing here runs: mypy --strict and pyright read it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

import bmdb
from bmdb.loops.state import Snapshot

agent_start = bmdb.Process("ShepherdAgentStart", backoff=bmdb.Backoff(300, 4 * 3600, 1.2), excludes=("Recovery",))


def processes(process: bmdb.Process) -> None:
    assert_type(process.name, str)
    assert_type(process.backoff, bmdb.Backoff)
    assert_type(process.excludes, tuple[str, ...])
    assert_type(process.max_hold, float | None)
    assert_type(process.crash_backoff, bmdb.Backoff | None)
    assert_type(process.quarantine_after, int | None)
    bmdb.Process("Recovery", excludes=[process], max_hold=timedelta(minutes=10), quarantine_after=3)
    bmdb.Process(7)  # type: ignore[arg-type]
    process.name = "other"  # type: ignore[misc]


@bmdb.loop(agent_start, retrieve=lambda q: q.machines_for_agent_start(16, "Equinix"), parallelism=10)
def start_agent(work: bmdb.Work) -> Callable[[bmdb.Queries], object] | None:
    if work.token > 7:
        raise bmdb.Retry(after=60)
    return lambda q: q.new_machine()


async def offer(q: bmdb.AsyncQueries) -> list[bmdb.Row]:
    return await q.fetch("SELECT machine_id FROM machines")


@bmdb.loop("Recovery", retrieve=offer, interval=timedelta(seconds=2))
async def recover(work: bmdb.AsyncWork) -> None:
    if work.lost:
        raise bmdb.Cancel


@bmdb.loop("Wrong", retrieve=offer)  # type: ignore[type-var]
def neither(work: str) -> None: ...


bmdb.loop("Wrong", retrieve=offer, executor="fibres")  # type: ignore[arg-type]
bmdb.loop("Wrong", retrieve=7)  # type: ignore[arg-type]

declared = bmdb.Process("Declared", eligible=bmdb.eligible(having=("provided",), lacking=("agent_started",)))


@bmdb.loop(declared, parallelism=10)
def start_declared(work: bmdb.Work) -> bmdb.Change:
    return bmdb.set_tag("agent_started", agent_public_key=b"")


@bmdb.loop("Declared", retrieve=bmdb.eligible(where="true"), rate=1.0)
async def start_both(work: bmdb.AsyncWork) -> tuple[bmdb.Change, Callable[[bmdb.AsyncQueries], object]] | None:
    return bmdb.clear_tag("agent_started"), lambda q: q.new_machine()


@bmdb.loop(declared)  # type: ignore[type-var]
def returns_a_text(work: bmdb.Work) -> str:
    return "done"


def runs(conninfo: str) -> None:
    assert_type(start_agent.process, bmdb.Process)
    assert_type(start_agent.name, str)
    assert_type(recover.asynchronous, bool)
    everything: list[bmdb.Loop[Any]] = [start_agent, recover]
    assert_type(bmdb.run(everything, conninfo, grace=10.0, wakeup=False), list[Snapshot])
    with bmdb.Runner(everything, conninfo) as runner:
        assert_type(runner, bmdb.Runner)
        assert_type(runner.wait(1.0), bool)
        runner.stop(now=True)
    bmdb.run([runs], conninfo)  # type: ignore[list-item]
