"""pgmq, from the SQL in its Python package: messages that come back when they are not ended in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "pgmq"
BATCH, VISIBLE_SECONDS, POLL_SECONDS, POLL_MS = 500, 30, 5, 100
SETTING = {
    "batch": f"asyncpg, uvloop, one connection, {BATCH} read and {BATCH} archived at a time",
    "single": "asyncpg, uvloop, one connection, one message at a time",
}
CONTRACT = Contract(
    durable="yes: the archive's commit comes before the next read",
    fenced="no, and no lease: a message is hidden for a time, and archived by id by whoever has read it",
    history="the message in the archive",
    freed="its time of being hidden is over, 30 s here",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM pgmq.q_units)"
TABLES = ("pgmq.q_units", "pgmq.a_units")


def _address(conninfo: str) -> dict[str, Any]:
    return {"conn_string": conninfo, "init_extension": False, "pool_size": 1}


async def install(conninfo: str) -> None:
    """Its SQL, and a queue."""
    import asyncpg

    connection = await asyncpg.connect(conninfo)
    await connection.execute((files("pgmq") / "sql" / "pgmq.sql").read_text())
    await connection.execute("SELECT pgmq.create('units')")
    await connection.close()


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Sent in batches."""
    from pgmq.async_queue import PGMQueue

    queue = PGMQueue(**_address(conninfo))
    await queue.init()

    async def put(count: int) -> None:
        for start in range(0, count, 1000):
            await queue.send_batch("units", [{}] * min(1000, count - start))

    yield put
    await queue.close()


async def serve(conninfo: str, unit: Unit) -> None:
    """Read, run, archive."""
    from pgmq.async_queue import PGMQueue

    queue = PGMQueue(**_address(conninfo))
    await queue.init()
    tell("ready")
    batch = BATCH if unit.variant == "batch" else 1
    visible = 2 if unit.short else VISIBLE_SECONDS
    while True:
        messages = await queue.read_batch("units", vt=visible, batch_size=batch)
        if not messages:
            messages = await queue.read_with_poll(
                "units", vt=visible, qty=batch, max_poll_seconds=POLL_SECONDS, poll_interval_ms=POLL_MS
            )
        if not messages:
            continue
        await asyncio.gather(*(unit.run_async() for _ in messages))
        if batch == 1:
            await queue.archive("units", messages[0].msg_id)
        else:
            await queue.archive_batch("units", [message.msg_id for message in messages])
