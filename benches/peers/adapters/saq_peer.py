"""saq on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "saq"
CONCURRENCY, CONNECTIONS = 64, 20
SETTING = {"": f"psycopg, uvloop, concurrency {CONCURRENCY}, {CONNECTIONS} connections, LISTEN"}
CONTRACT = Contract(
    durable="yes: each job's end is a commit of its own before the next is taken",
    fenced="no: the end updates by key, whoever works on the job by then",
    history="the job's row stays for its time to live, 10 minutes by default",
    freed="it ran for longer than its time-out, 10 s by default, looked for each minute",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM saq_jobs WHERE status IN ('queued', 'active'))"
TABLES = ("saq_jobs",)


def _queue(conninfo: str) -> Any:
    from psycopg_pool import AsyncConnectionPool
    from saq.queue.postgres import PostgresQueue

    pool = AsyncConnectionPool(conninfo, min_size=4, max_size=CONNECTIONS, open=False, kwargs={"autocommit": True})
    return PostgresQueue(pool=pool, name="units", manage_pool_lifecycle=True)


async def install(conninfo: str) -> None:
    """Connecting makes its tables."""
    queue = _queue(conninfo)
    await queue.connect()
    await queue.disconnect()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """One after the other: there is no call for many."""
    queue = _queue(conninfo)
    await queue.connect()

    async def put(count: int) -> None:
        for _ in range(count):
            # The sweep takes back what has run for longer than its time-out.
            await queue.enqueue("unit", timeout=10, retries=3)

    yield put
    await queue.disconnect()


async def serve(conninfo: str, unit: Unit) -> None:
    """A worker."""
    from saq import Worker

    async def run(_: object) -> None:
        await unit.run_async()

    queue = _queue(conninfo)
    await queue.connect()
    timers = {"sweep": 2} if unit.short else None
    worker: Any = Worker(queue, [("unit", run)], concurrency=CONCURRENCY, timers=timers)
    tell("ready")
    await worker.start()
