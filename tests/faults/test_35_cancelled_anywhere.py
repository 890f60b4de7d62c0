"""Row 35: an asyncio task is cancelled anywhere.

Promised: what is reported has happened, a commit tells its true outcome, and nothing is out of step afterwards.

The points are random, and the same again for the same seed: it is printed, and BMDB_TEST_SEED sets it. A link with some
delay spreads a call out, so that every one of its steps is hit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.drivers import driver_async
from tests.faults.figures import Figure
from tests.processes import eventually_async
from tests.proxy import Proxy

PROCESS = "UnitTest1"
POINTS = 50  # for each of four calls, on connections of our own; fewer on others
BACKOFF = bmdb.Backoff(60)
Sql = psycopg.Connection[Any]
# What became of a call: it returned, or it was cancelled and says whether it was committed.
Outcome = bool | None


@pytest.fixture
def chance() -> random.Random:
    """Randomness whose seed is printed, so that a failure can be had again."""
    seed = int(os.environ.get("BMDB_TEST_SEED") or random.randrange(2**32))
    print(f"BMDB_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
async def session(proxy: Proxy, database: str) -> AsyncIterator[bmdb.AsyncSession]:
    """A session whose connection leads through the proxy, with few connections, so that they are used again."""
    async with (
        await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test", pool_size=2) as connection,
        await connection.start_session(interval=60) as started,
    ):
        with proxy.delaying(0.001):
            yield started


class Driver:
    """What the calls are given besides their callback, on a connection that is made anew once it had to be closed."""

    def __init__(self, name: str, conninfo: str) -> None:
        self._name, self._conninfo = name, conninfo
        self.points = POINTS if name == "native" else POINTS // 2
        self._stack = contextlib.AsyncExitStack()
        self._keywords: dict[str, Any] | None = None

    async def keywords(self) -> dict[str, Any]:
        """Keyword arguments for transact, finish and fail."""
        if self._keywords is None or ("connection" in self._keywords and self._keywords["connection"].closed):
            self._keywords = await self._stack.enter_async_context(driver_async(self._name, self._conninfo))
        return self._keywords

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._stack.aclose()


@pytest.fixture(params=["native", "psycopg", "sqlalchemy"])
async def driver(request: pytest.FixtureRequest, proxy: Proxy, database: str) -> AsyncIterator[Driver]:
    """Each of the drivers, through the proxy."""
    made = Driver(request.param, proxy.conninfo(database))
    yield made
    await made.aclose()


class Canceller:
    """Runs calls and cancels each at a random moment of the time that such a call takes, which it finds out."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.within = 0.02
        self.seen: Counter[Outcome | str] = Counter()

    async def run(self, call: Awaitable[Any]) -> tuple[Outcome, Any]:
        """How the call ended, and what it returned if it did; one in four is cancelled twice."""
        task = asyncio.ensure_future(call)
        for _ in range(self.chance.choice([1, 1, 1, 2])):
            await asyncio.sleep(self.chance.uniform(0, self.within))
            task.cancel()
        try:
            returned = await task
        except asyncio.CancelledError as cancelled:
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            # A task that was cancelled before it ran its first step never reached bmdb.
            committed: Outcome = getattr(cancelled, "committed", False)
            self.within *= 1.05 if committed is False else 1
            self.seen[committed] += 1
            return committed, None
        self.within *= 0.85
        self.seen["returned"] += 1
        return True, returned


def leases(sql: Sql) -> set[UUID]:
    return {machine for (machine,) in sql.execute("SELECT machine_id FROM work")}


def events(sql: Sql, machine: UUID) -> list[str]:
    query = 'SELECT event FROM work_history WHERE machine_id = %s ORDER BY "timestamp"'
    return [event for (event,) in sql.execute(query, [machine])]


async def assert_in_step(session: bmdb.AsyncSession, number: int, keywords: dict[str, Any] | None = None) -> None:
    """What is asked is what is answered."""
    answer = await session.transact(lambda q: q.fetch_value("SELECT $1::int", number), **(keywords or {}))
    assert answer == number


async def assert_idle(sql: Sql) -> None:
    """No statement runs on, and no transaction is left open."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await eventually_async(lambda: sql.execute(f"{busy} AND state <> 'idle'").fetchone() == (0,))


async def test_transact(
    figure: Figure, driver: Driver, session: bmdb.AsyncSession, sql: Sql, writes: str, chance: random.Random
) -> None:
    canceller = Canceller(chance)

    async def write(q: bmdb.AsyncQueries, number: int) -> None:
        await q.execute(f"INSERT INTO {writes} VALUES ($1)", str(number))

    async def call(number: int) -> None:
        await session.transact(lambda q: write(q, number), **await driver.keywords())

    told: dict[int, Outcome] = {}
    for number in range(driver.points):
        told[number], _ = await canceller.run(call(number))
        await assert_in_step(session, number, await driver.keywords())
    print(canceller.seen)
    there = {int(what) for (what,) in sql.execute(f"SELECT what FROM {writes}")}
    assert there >= {number for number, committed in told.items() if committed is True}
    assert not there & {number for number, committed in told.items() if committed is False}
    # There is always a server to ask here.
    assert None not in told.values()
    figure("commits told wrongly", 0, of=len(told))
    assert {True, False} <= set(told.values())
    await assert_idle(sql)


async def test_work(session: bmdb.AsyncSession, sql: Sql, machines: MakeMachines, chance: random.Random) -> None:
    canceller = Canceller(chance)

    async def lease(machine: UUID) -> bmdb.AsyncWork:
        return await session.work(PROCESS, lambda q: q.fetch("SELECT $1::uuid AS machine_id", machine))

    for number, machine in enumerate(machines(POINTS)):
        committed, work = await canceller.run(lease(machine))
        assert committed is not None
        # A lease that nobody was told of is given back, at the latest soon after a second cancellation.
        wanted = {machine} if work is not None else set()
        await eventually_async(lambda: leases(sql) == wanted, every=0.002)  # noqa: B023
        assert events(sql, machine) == (["Started"] * committed + ["Canceled"] * (committed and work is None))
        if work is not None:
            await work.cancel()
        await assert_in_step(session, number)
    print(canceller.seen)
    assert canceller.seen[False] and canceller.seen[True] + canceller.seen["returned"]
    await assert_idle(sql)


@pytest.mark.parametrize("end", ["finish", "fail"])
async def test_ends(
    end: str,
    driver: Driver,
    session: bmdb.AsyncSession,
    sql: Sql,
    writes: str,
    machines: MakeMachines,
    chance: random.Random,
) -> None:
    canceller = Canceller(chance)

    async def call(work: bmdb.AsyncWork) -> None:
        async def write(q: bmdb.AsyncQueries) -> None:
            await q.execute(f"INSERT INTO {writes} VALUES ($1)", str(work.machine))

        keywords = await driver.keywords()
        await (work.finish(write, **keywords) if end == "finish" else work.fail("no answer", BACKOFF, **keywords))

    ended = {"finish": "Finished", "fail": "Failed"}[end]
    for number, machine in enumerate(machines(driver.points)):
        work = await session.work(PROCESS, lambda q, machine=machine: [machine])
        committed, _ = await canceller.run(call(work))
        assert committed is not None
        written = sql.execute(f"SELECT count(*) FROM {writes} WHERE what = %s", [str(machine)]).fetchone()
        assert written == (committed and end == "finish",)
        assert (machine in leases(sql)) is not committed
        assert events(sql, machine) == ["Started"] + [ended] * committed
        assert work.state == ({"finish": "finished", "fail": "failed"}[end] if committed else "active")
        if not committed:
            # It may be ended again, at once.
            await call(work)
            assert events(sql, machine) == ["Started", ended]
        await assert_in_step(session, number, await driver.keywords())
    print(canceller.seen)
    # An end without a callback is done whoever goes on waiting for it, on a connection of ours.
    assert canceller.seen[False] or (end == "fail" and not await driver.keywords())
    assert canceller.seen[True] + canceller.seen["returned"]
    await assert_idle(sql)


async def test_a_session_that_is_cancelled_as_it_starts_is_not_left_behind(
    proxy: Proxy, database: str, sql: Sql, chance: random.Random
) -> None:
    canceller = Canceller(chance)
    async with await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection:
        with proxy.delaying(0.001):
            for _ in range(20):
                _, session = await canceller.run(connection.start_session(interval=60))
                if session is not None:
                    await session.close()
                await eventually_async(lambda: sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,))


async def test_a_cancelled_block_gives_its_machine_back_however_often_it_is_cancelled(
    session: bmdb.AsyncSession, sql: Sql, machines: MakeMachines, chance: random.Random
) -> None:
    inside = asyncio.Event()

    async def hold(machine: UUID) -> None:
        async with await session.work(PROCESS, lambda q: [machine]):
            inside.set()
            await asyncio.Event().wait()

    for machine in machines(20):
        task = asyncio.ensure_future(hold(machine))
        await inside.wait()
        inside.clear()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(chance.uniform(0, 0.004))
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually_async(lambda: leases(sql) == set())
        assert events(sql, machine) == ["Started", "Canceled"]


async def test_the_server_stops_a_cancelled_statement_at_once(session: bmdb.AsyncSession, sql: Sql) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active'"
    task = asyncio.ensure_future(session.transact(lambda q: q.fetch("SELECT pg_sleep($1)", 60.0)))
    await eventually_async(lambda: sql.execute(running).fetchone() == (1,))
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.committed is False  # type: ignore[attr-defined]
    await eventually_async(lambda: sql.execute(running).fetchone() == (0,), 1)
    assert time.monotonic() - began < 1
    await assert_in_step(session, 7)


@pytest.mark.timeout(30)
async def test_whoever_waits_for_a_connection_can_be_cancelled_at_once(database: str) -> None:
    async with (
        await bmdb.AsyncConnection.connect(database, component="test", pool_size=1) as connection,
        await connection.start_session() as session,
    ):
        entered, leave = asyncio.Event(), asyncio.Event()

        async def occupy(q: bmdb.AsyncQueries) -> None:
            entered.set()
            await leave.wait()

        holder = asyncio.ensure_future(session.transact(occupy))
        await entered.wait()
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.transact(lambda q: q.count_machines())
        assert time.monotonic() - began < 1
        leave.set()
        await holder
        assert await session.transact(lambda q: q.count_machines()) == 0


@pytest.mark.timeout(30)
async def test_a_begin_that_is_never_answered_can_be_cancelled_at_once(
    session: bmdb.AsyncSession, proxy: Proxy, sql: Sql
) -> None:
    with proxy.freezing():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.transact(lambda q: q.count_machines())
        assert time.monotonic() - began < 1
    await assert_in_step(session, 7)
    await assert_idle(sql)


async def test_a_cancellation_amid_a_conflict_is_no_conflict(session: bmdb.AsyncSession) -> None:
    """It has the conflict in its context; taken for one, the callback would run again and the cancellation be lost."""
    handling = asyncio.Event()

    async def fn(q: bmdb.AsyncQueries) -> None:
        try:
            raise bmdb.DatabaseError("again", "40001")
        except bmdb.DatabaseError:
            handling.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(session.transact(fn))
    await handling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        async with asyncio.timeout(5):
            await task
    assert caught.value.committed is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("driver", ["native", "psycopg"])
async def test_an_end_given_up_between_two_attempts_can_be_ended_otherwise(
    session: bmdb.AsyncSession, database: str, machines: MakeMachines, sql: Sql, driver: str
) -> None:
    """Cancelled while a conflict is rolled back: nobody begins again, and nothing may stay behind."""
    (machine,) = machines(1)
    work = await session.work(PROCESS, lambda _: [machine])
    task = asyncio.current_task()
    assert task is not None
    async with AsyncExitStack() as stack:
        keywords: dict[str, Any] = {}
        if driver == "psycopg":
            keywords["connection"] = await stack.enter_async_context(await psycopg.AsyncConnection.connect(database))

        async def conflict(q: Any) -> None:
            # Met at the first await after the callback, which is that for the rollback.
            asyncio.get_running_loop().call_soon(task.cancel)
            raise bmdb.DatabaseError("as a rival would have it", "40001")

        with pytest.raises(asyncio.CancelledError) as caught:
            await work.finish(conflict, **keywords)
        task.uncancel()
        assert (work.state, getattr(caught.value, "committed", None)) == ("active", False)
        if driver == "psycopg":
            assert keywords["connection"].isolation_level is None
        await work.cancel()
    assert work.state == "canceled"
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
