"""chancy with its executor for asyncio."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "chancy"
CONCURRENCY = 1000
SETTING = {"": f"psycopg, uvloop, the asyncio executor with concurrency {CONCURRENCY}, eager polling"}
CONTRACT = Contract(
    durable="no: ends wait for up to a second after the function has returned, then go in one commit",
    fenced="the end only: it must still be the claim that it began; otherwise it is dropped",
    history="the job's row stays until the pruner takes it",
    freed="no heartbeat of the worker for 90 s, looked for by an elected leader each minute",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running'))"
TABLES = ("chancy_jobs",)

# Its own logger tells of each batch at length, which costs time.
_LOG = logging.getLogger("chancy.quiet")

_unit: Unit | None = None


async def no_op() -> None:
    """The job: chancy finds it by its name."""
    assert _unit is not None
    await _unit.run_async()


async def install(conninfo: str) -> None:
    """Its migrations, and a queue."""
    from chancy import Chancy, Queue

    async with Chancy(conninfo) as app:
        await app.migrate()
        await app.declare(
            Queue(
                name="units",
                concurrency=CONCURRENCY,
                executor=Chancy.Executor.Async,
                polling_interval=1,
                eager_polling=True,
            )
        )


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Pushed in batches."""
    from chancy import Chancy, job

    unit_job = job(queue="units", max_attempts=3)(no_op)
    async with Chancy(conninfo) as app:

        async def put(count: int) -> None:
            for start in range(0, count, 1000):
                async for _ in app.push_many([unit_job.job] * min(1000, count - start)):
                    pass

        yield put


async def serve(conninfo: str, unit: Unit) -> None:
    """A worker."""
    global _unit
    from chancy import Chancy, Worker
    from chancy.plugins.leadership import ImmediateLeadership
    from chancy.plugins.recovery import Recovery

    _unit = unit
    if unit.short:
        plugins = [ImmediateLeadership(), Recovery(poll_interval=1)]
        async with (
            Chancy(conninfo, plugins=plugins, no_default_plugins=True, log=_LOG) as app,
            Worker(app, heartbeat_poll_interval=1, heartbeat_timeout=2) as worker,
        ):
            tell("ready")
            await worker.wait_for_shutdown()
    else:
        async with Chancy(conninfo, log=_LOG) as app, Worker(app) as worker:
            tell("ready")
            await worker.wait_for_shutdown()
