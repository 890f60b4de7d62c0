"""The same worker under asyncio, which looks after four machines at a time."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import bmdb

AGENT_START = bmdb.Process("ShepherdAgentStart", backoff=bmdb.Backoff(60, 3600, 1.5), max_hold=600)


async def machines(q: bmdb.AsyncQueries) -> list[UUID]:
    return [row.machine_id for row in await q.machines_for_agent_start(16, "Equinix")]


async def start_agent(machine: UUID) -> bytes:
    await asyncio.sleep(0.01)
    return machine.bytes


async def look_after(session: bmdb.AsyncSession) -> None:
    while True:
        try:
            async with session.work(AGENT_START, machines) as work:
                # When the lease is lost, this await is cancelled and the block raises SessionExpiredError.
                key = await start_agent(work.machine)
                await work.finish(lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), key))  # noqa: B023
        except bmdb.WorkConflictError:
            await asyncio.sleep(0.05)
        except bmdb.NothingToDo:
            return


async def main() -> None:
    async with (
        await bmdb.AsyncConnection.connect(component="agent-starter", migrate=True) as connection,
        await connection.start_session() as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(4):
            group.create_task(look_after(session))


asyncio.run(main())
