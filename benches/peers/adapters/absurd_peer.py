"""absurd: durable tasks in SQL functions, with its Python client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "absurd-sdk"
CONCURRENCY = 64
SETTING = {"": f"psycopg, uvloop, its asyncio worker with concurrency {CONCURRENCY}, one connection, polls each 0.25 s"}
CONTRACT = Contract(
    durable="yes: each run's end is a commit of its own",
    fenced="the end only: a run whose claim has timed out has failed, and completing it is refused",
    history="the task and each of its runs stay",
    freed="its claim is 120 s old",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM absurd.t_units WHERE state NOT IN ('completed', 'failed'))"
# Under short time-outs a task fails for good after five of them, which is no end that somebody reported.
COMPLETED = "SELECT NOT EXISTS (SELECT FROM absurd.t_units WHERE state <> 'completed')"
TABLES = ("absurd.t_units", "absurd.r_units")


async def install(conninfo: str) -> None:
    """Its SQL by its own tool, and a queue."""
    from absurd_sdk import AsyncAbsurd

    tool = Path(sys.executable).with_name("absurdctl")
    subprocess.run(
        [str(tool), "init"], env=os.environ | {"ABSURD_DATABASE_URL": conninfo}, check=True, stdout=subprocess.DEVNULL
    )
    client = AsyncAbsurd(conninfo, queue_name="units")
    await client.create_queue()
    await client.close()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Spawned one after the other, in one transaction: there is no call for many."""
    import psycopg
    from absurd_sdk import AsyncAbsurd

    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    client = AsyncAbsurd(connection, queue_name="units")

    async def put(count: int) -> None:
        async with connection.transaction():
            for _ in range(count):
                await client.spawn("unit", {}, queue="units")

    yield put
    await connection.close()


async def serve(conninfo: str, unit: Unit) -> None:
    """A worker."""
    from absurd_sdk import AsyncAbsurd

    client = AsyncAbsurd(conninfo, queue_name="units")

    @client.register_task("unit")
    async def run(_: object, __: object) -> None:
        await unit.run_async()

    tell("ready")
    await client.start_worker(concurrency=CONCURRENCY, claim_timeout=2 if unit.short else 120)
