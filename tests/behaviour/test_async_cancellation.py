"""Cancelling a task: it ends soon, nothing stays locked, and a commit tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

pytestmark = pytest.mark.uvloop
PROCESS = "UnitTest1"


@pytest.fixture
async def async_session(database: str) -> AsyncIterator[bmdb.AsyncSession]:
    """A session of an AsyncConnection of its own, interval 60 s."""
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session(interval=60) as session,
    ):
        yield session


async def test_a_cancelled_statement_is_called_off(
    async_session: bmdb.AsyncSession, sql: psycopg.Connection[Any]
) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(async_session.transact(lambda q: q.fetch("SELECT pg_sleep(30)")), 0.2)
    assert time.monotonic() - began < 2
    for _ in range(100):
        if sql.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND state = 'active'"
            " AND pid <> pg_backend_pid()"
        ).fetchone() == (0,):
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the statement still runs on the server")
    assert await async_session.transact(lambda q: q.fetch_value("SELECT 1")) == 1


async def test_work_that_is_cancelled_leaves_no_lease_behind(
    async_session: bmdb.AsyncSession, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    offered = machines(1)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(60):
        claim = asyncio.ensure_future(async_session.work(PROCESS, lambda q: offered))
        await asyncio.sleep(chance.uniform(0, 0.004))
        claim.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await claim).cancel()
        # Whatever became of it, the machine is free again.
        work = await async_session.work(PROCESS, lambda q: offered)
        await work.cancel()
    events = dict(sql.execute("SELECT event, count(*) FROM work_history GROUP BY event").fetchall())
    assert events["Started"] == events["Canceled"]


async def test_a_commit_that_is_cancelled_tells_how_it_ended(
    async_session: bmdb.AsyncSession, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE writes (n int)")
    chance = random.Random(7)
    told: list[tuple[int, bool | None]] = []
    for n in range(60):
        write = asyncio.ensure_future(
            async_session.transact(lambda q, n=n: q.execute("INSERT INTO writes VALUES ($1)", n))
        )
        await asyncio.sleep(chance.uniform(0, 0.003))
        write.cancel()
        try:
            await write
        except asyncio.CancelledError as cancelled:
            told.append((n, getattr(cancelled, "committed", False)))
        else:
            told.append((n, True))
    there = {n for (n,) in sql.execute("SELECT n FROM writes")}
    assert {n for n, committed in told if committed is True} == there
