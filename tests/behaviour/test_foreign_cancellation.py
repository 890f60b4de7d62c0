"""Cancelling a task whose transaction runs on a connection of the user's: what is reported is what happened."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.drivers import driver_async

import bmdb


@pytest.fixture
async def async_session(database: str) -> Any:
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session(interval=60) as session,
    ):
        yield session


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy"])
async def test_at_any_point_the_connection_stays_whole_and_a_commit_tells_how_it_ended(
    async_session: bmdb.AsyncSession, database: str, sql: psycopg.Connection[Any], driver: str
) -> None:
    sql.execute("CREATE TABLE writes (n int)")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    told: dict[int, bool | None] = {}
    async with driver_async(driver, database) as given:

        async def write(q: Any, n: int) -> None:
            await q.execute("INSERT INTO writes VALUES ($1)", n)
            await q.connection.execute("SELECT 1")

        await async_session.transact(lambda q: write(q, -2), **given)
        began = time.monotonic()
        await async_session.transact(lambda q: write(q, -1), **given)
        whole = time.monotonic() - began
        sql.execute("DELETE FROM writes")
        for n in range(100):
            task = asyncio.ensure_future(async_session.transact(lambda q, n=n: write(q, n), **given))
            await asyncio.sleep(chance.uniform(0, 1.5 * whole))
            # Cancelled again while it calls its statement off, psycopg closes the connection; an engine has others.
            for _ in range(1 if driver == "psycopg" else chance.randint(1, 3)):
                task.cancel()
                await asyncio.sleep(0)
            try:
                await task
                told[n] = True
            except asyncio.CancelledError as cancelled:
                told[n] = getattr(cancelled, "committed", False)
            # How long one takes changes with what else the machine does.
            whole *= 0.95 if told[n] else 1.05
        if driver == "psycopg":
            assert given["connection"].info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        else:
            assert given["engine"].pool.checkedout() == 0
        assert await async_session.transact(lambda q: q.fetch_value("SELECT 1"), **given) == 1
    there = {n for (n,) in sql.execute("SELECT n FROM writes")}
    assert {n for n, committed in told.items() if committed} == there
    assert None not in told.values()
    assert 0 < len(there) < 100


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy"])
async def test_an_end_that_is_cancelled_can_be_tried_again(
    async_session: bmdb.AsyncSession, database: str, machines: MakeMachines, sql: psycopg.Connection[Any], driver: str
) -> None:
    offered = machines(1)
    work = await async_session.work("UnitTest1", lambda q: offered)

    async def wait(q: Any) -> None:
        await q.execute("SELECT pg_sleep(20)")

    async def waiting() -> None:
        # A request to cancel that comes before the statement runs is in vain.
        while sql.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone() is None:
            await asyncio.sleep(0.01)

    async with driver_async(driver, database) as given:
        task = asyncio.ensure_future(work.finish(wait, **given))
        await asyncio.wait_for(waiting(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.state == "active"
        await work.finish(**given)
    assert work.state == "finished"
