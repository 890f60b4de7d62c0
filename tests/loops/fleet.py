"""Loops for worker processes: they hold a machine for as long as $FLEET_HOLD says, and tell what they do."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import bmdb
from tests.loops.conftest import PROCESS, agent_started, waiting

HOLD = float(os.environ.get("FLEET_HOLD", "0"))


def tell(what: str, work: Any) -> None:
    """One line on standard output, at once."""
    print(what, work.machine, os.getpid(), time.monotonic(), flush=True)


@bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0, interval=30.0)
def hold(work: bmdb.Work) -> Any:
    """Keeps a thread, whatever happens to the lease."""
    tell("holding", work)
    time.sleep(HOLD)
    tell("done", work)
    return agent_started(work)


@bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0, interval=30.0)
async def hold_as_task(work: bmdb.AsyncWork) -> Any:
    """The same as a task."""
    tell("holding", work)
    try:
        await asyncio.sleep(HOLD)
    except asyncio.CancelledError:
        tell("cancelled", work)
        raise
    tell("done", work)
    return agent_started(work)


@bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=0.5, interval=2.0, executor="process", processes=2)
def hold_in_processes(work: bmdb.Work) -> Any:
    """The same in two processes of their own."""
    return hold.fn(work)


@bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=0.5, interval=2.0, executor="process")
async def hold_as_task_in_a_process(work: bmdb.AsyncWork) -> Any:
    """A task in a process of its own."""
    return await hold_as_task.fn(work)
