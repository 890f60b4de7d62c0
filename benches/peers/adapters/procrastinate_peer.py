"""procrastinate: one job fetched at a time, as many running at once as wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "procrastinate"
CONCURRENCY, CONNECTIONS = 10, 10
SETTING = {"": f"psycopg, uvloop, concurrency {CONCURRENCY}, {CONNECTIONS} connections, LISTEN"}
CONTRACT = Contract(
    durable="yes: each job's end is a commit of its own before its place is free",
    fenced="no: the end goes by id and is accepted from whoever while the job is to do or being done",
    history="the job's row stays, with an event for each change of state",
    freed="never, unless users schedule a task that retries stalled jobs, as its documentation advises",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
ENDED = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
TABLES = ("procrastinate_jobs", "procrastinate_events")


def _application(conninfo: str) -> Any:
    import procrastinate

    connector = procrastinate.PsycopgConnector(conninfo=conninfo, min_size=1, max_size=CONNECTIONS)
    return procrastinate.App(connector=connector)


async def install(conninfo: str) -> None:
    """Its schema."""
    async with _application(conninfo).open_async() as app:
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Deferred in batches."""
    async with _application(conninfo).open_async() as app:
        task = app.configure_task("unit", queue="units")

        async def put(count: int) -> None:
            for start in range(0, count, 1000):
                await task.batch_defer_async(*({} for _ in range(min(1000, count - start))))

        yield put


async def serve(conninfo: str, unit: Unit) -> None:
    """A worker; with short time-outs also the retry of stalled jobs, which its documentation has users schedule."""
    application = _application(conninfo)

    @application.task(name="unit", queue="units")
    async def run() -> None:
        await unit.run_async()

    async def retry_stalled() -> None:
        while True:
            await asyncio.sleep(0.5)
            for job in await application.job_manager.get_stalled_jobs(seconds_since_heartbeat=2):
                await application.job_manager.retry_job(job)

    async with application.open_async():
        tell("ready")
        options = {"update_heartbeat_interval": 0.5, "stalled_worker_timeout": 2} if unit.short else {}
        helper = asyncio.create_task(retry_stalled()) if unit.short else None
        concurrency = max(CONCURRENCY, unit.count) if unit.short else CONCURRENCY
        await application.run_worker_async(concurrency=concurrency, install_signal_handlers=False, **options)
        del helper
