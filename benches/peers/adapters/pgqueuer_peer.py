"""pgqueuer on asyncpg: batches of claims, and ends that are buffered and written together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "pgqueuer"
BATCH = 500
SETTING = {"": f"asyncpg, uvloop, one process, one connection, batches of {BATCH}"}
CONTRACT = Contract(
    durable="no: ends wait in a buffer after the function has returned, then go in one commit",
    fenced="no: the end deletes by id, whoever holds the job by then",
    history="a row of pgqueuer_log for each end, folded into statistics later",
    freed="no heartbeat of the job for 30 s",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM pgqueuer)"
ENDED = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
TABLES = ("pgqueuer", "pgqueuer_log")


async def install(conninfo: str) -> None:
    """Its tables."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(conninfo)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Enqueue by its own call."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(conninfo)
    queries = Queries(AsyncpgDriver(connection))

    async def put(count: int) -> None:
        for start in range(0, count, 1000):
            some = min(1000, count - start)
            await queries.enqueue(["unit"] * some, [None] * some, [0] * some)

    yield put
    await connection.close()


async def serve(conninfo: str, unit: Unit) -> None:
    """A queue manager with one entry point."""
    import asyncpg
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver

    connection = await asyncpg.connect(conninfo)
    manager = PgQueuer(AsyncpgDriver(connection))

    @manager.entrypoint("unit")
    async def run(_: object) -> None:
        await unit.run_async()

    tell("ready")
    if unit.short:
        await manager.qm.run(
            batch_size=10, heartbeat_timeout=timedelta(seconds=2), dequeue_timeout=timedelta(seconds=1)
        )
    else:
        await manager.qm.run(batch_size=BATCH)
