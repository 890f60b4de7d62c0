"""dbos: workflows on a queue in its system database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "dbos"
WORKERS, CONNECTIONS, POLL_SECONDS = 256, 20, 0.05
SETTING = {
    "": f"psycopg, {WORKERS} workflows at once, {CONNECTIONS} connections, its queue polled each {POLL_SECONDS} s"
}
CONTRACT = Contract(
    durable="yes: each workflow's outcome is a commit of its own",
    fenced="the end only: the workflow must still be owned by the execution that ends it",
    history="the workflow's row stays, with its input and its outcome",
    freed="its executor starts again under the same id, or the vendor's Conductor has another recover it",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED'))"
TABLES = ("dbos.workflow_status",)


def _configuration(conninfo: str) -> dict[str, Any]:
    return {
        "name": "peer",
        "system_database_url": conninfo,
        "sys_db_pool_size": CONNECTIONS,
        "application_version": "1",
        "log_level": "ERROR",
        "run_admin_server": False,
    }


async def install(conninfo: str) -> None:
    """Launching it migrates its schema; the queue is registered with it."""
    from dbos import DBOS

    DBOS(config=_configuration(conninfo))  # type: ignore[arg-type]
    DBOS.launch()
    await DBOS.register_queue_async("units", worker_concurrency=WORKERS, polling_interval_sec=POLL_SECONDS)
    DBOS.destroy()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Enqueued on eight threads: there is no call for many."""
    from dbos import DBOSClient

    client = DBOSClient(system_database_url=conninfo, application_name="peer")
    options: Any = {"queue_name": "units", "workflow_name": "unit", "app_version": "1"}

    def enqueue(_: int) -> None:
        client.enqueue(options)

    async def put(count: int) -> None:
        if count == 1:
            await asyncio.to_thread(enqueue, 0)
        else:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(enqueue, range(count)))

    yield put
    client.destroy()


async def serve(conninfo: str, unit: Unit) -> None:
    """An executor with one workflow."""
    from dbos import DBOS

    DBOS(config=_configuration(conninfo))  # type: ignore[arg-type]

    @DBOS.workflow(name="unit")
    async def run() -> None:
        await unit.run_async()

    DBOS.launch()
    await DBOS.register_queue_async("units", worker_concurrency=WORKERS, polling_interval_sec=POLL_SECONDS)
    tell("ready")
    await asyncio.Event().wait()
