"""awa-pg: a Rust core with a storage of its own, and handlers in Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "awa-pg"
WORKERS = 256
CONNECTIONS = 20
SETTING = {"": f"its asyncio client, {WORKERS} workers on one queue, {CONNECTIONS} connections, queue storage"}
CONTRACT = Contract(
    durable="yes: ends are collected for about a millisecond, and a place is held until their commit",
    fenced="the end only: it must still be the run that it began; otherwise it is dropped",
    history="what was completed stays until its part of the ring is emptied",
    freed="no heartbeat of the job for 90 s, looked for by an elected leader",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM awa.jobs WHERE state NOT IN ('completed', 'failed', 'cancelled'))"
ENDED = "SELECT count(*) FROM awa.jobs WHERE state = 'completed'"
TABLES = ("awa.leases", "awa.done_entries", "awa.receipt_completion_batches")


@dataclass
class Nothing:
    """A unit."""

    number: int


async def install(conninfo: str) -> None:
    """Its migrations, and the storage that new installations are meant to use."""
    import awa

    client = awa.AsyncClient(conninfo)
    await client.migrate()
    await client.install_queue_storage()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """COPY for many, insert for one."""
    import awa

    client = awa.AsyncClient(conninfo)

    async def put(count: int) -> None:
        if count == 1:
            await client.insert(Nothing(0), queue="units")
        else:
            await client.enqueue_many_copy([Nothing(number) for number in range(count)], queue="units")

    yield put


async def serve(conninfo: str, unit: Unit) -> None:
    """A client with one task."""
    import awa

    client = awa.AsyncClient(conninfo, max_connections=CONNECTIONS)

    # One that stands by is elected leader, which a stopped one would remain: nobody then looks for stale heartbeats.
    queue = "elsewhere" if unit.mode == "standby" else "units"

    @client.task(Nothing, queue=queue)
    async def run(_: object) -> None:
        await unit.run_async()

    options = {}
    if unit.short:
        options = {"heartbeat_interval_ms": 500, "heartbeat_staleness_ms": 2000, "heartbeat_rescue_interval_ms": 500}
    await client.start([(queue, WORKERS)], **options)
    tell("ready")
    await asyncio.Event().wait()
