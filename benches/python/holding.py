"""A worker of `takeover.py`: a control loop that holds the machine that it leases, or that takes over and notes when.

    holding.py {threads,tasks,taking} CONNINFO

With threads or tasks it holds one machine until it is ended from outside. SIGTERM leaves no grace, so that what is
measured is how long giving back takes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from typing import Any

import bmdb

INTERVAL = 5.0
PROCESS = "Takeover"

# An idle taker looks by itself at most this often, in seconds: what wakes it is what is measured.
MAX_IDLE = 30.0
AT_ONCE = 32

FREE = """
    SELECT t.machine_id FROM takeover AS t
    WHERE t.armed = $1 AND t.taken_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM work AS w WHERE w.machine_id = t.machine_id AND w.process = $2)
    ORDER BY random() LIMIT 4
"""
NOTE = "UPDATE takeover SET taken_at = $2 WHERE machine_id = $1"


def idle_machines(q: Any) -> Any:
    """Machines that nobody holds yet."""
    return q.fetch(FREE, False, PROCESS)


def freed_machines(q: Any) -> Any:
    """Machines whose holder has gone."""
    return q.fetch(FREE, True, PROCESS)


@bmdb.loop(PROCESS, retrieve=idle_machines, interval=INTERVAL)
def hold_in_a_thread(_: bmdb.Work) -> None:
    """Hold it."""
    threading.Event().wait()


@bmdb.loop(PROCESS, retrieve=idle_machines, interval=INTERVAL)
async def hold_in_a_task(_: bmdb.AsyncWork) -> None:
    """Hold it."""
    await asyncio.Event().wait()


@bmdb.loop(PROCESS, retrieve=freed_machines, interval=INTERVAL, parallelism=AT_ONCE, max_idle=MAX_IDLE)
async def take_over(work: bmdb.AsyncWork) -> Any:
    """Note when this function was called."""
    at = time.time()
    return lambda q: q.execute(NOTE, work.machine, at)


LOOPS = {"threads": hold_in_a_thread, "tasks": hold_in_a_task, "taking": take_over}

if __name__ == "__main__":
    # What is lost here is lost on purpose.
    logging.disable()
    bmdb.run(LOOPS[sys.argv[1]], sys.argv[2], grace=0)
