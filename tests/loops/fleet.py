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


LOOPS = {"threads": hold, "tasks": hold_as_task}
