"""bmdb itself: a unit is a machine that was provided and whose agent has not started; its end sets that tag."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = None
BATCH, BATCHERS, TASKS, THREADS, PROCESSES, POOL = 200, 2, 256, 64, 4, 16
INTERVAL, SHORT_INTERVAL = 5.0, 2.0
POLL_SECONDS, RATE_SECONDS = 0.25, 0.005
PROCESS = "ShepherdAgentStart"
SETTING = {
    "batch": f"`work_many` and `finish_many`, {BATCH} at a time, {BATCHERS} threads of one session",
    "tasks": f"`work` and `finish`, {TASKS} asyncio tasks of one session, uvloop",
    "threads": f"`work` and `finish`, {THREADS} threads of one session",
    "processes": f"the same in {PROCESSES} processes, {THREADS} threads each",
    "single": "`work` and `finish`, one caller",
    "callback": f"`work`, and `finish` with a callback at read committed, {THREADS} threads, a pool of {POOL}",
    "woken": "a control loop, one task, woken by triggers",
    "heedless": "`work`, `session.transact` and `finish`, tasks that look at nothing in between",
    "polling": f"a control loop, one task, no triggers and no hints, looks each {POLL_SECONDS} s",
}
CONTRACT = Contract(
    durable="yes: claim and end each commit before the call returns",
    fenced="yes: the end, its tags, and every transaction of the session are refused",
    history="an event for each claim and each end, in the same commit",
    freed="its session expires, after 5 s here and by default; any worker collects it",
)
SETTLED = (
    "SELECT (SELECT count(*) FROM machine_provided) = (SELECT count(*) FROM machine_agent_started)"
    " AND NOT EXISTS (SELECT FROM work)"
)
# Units that were ended more than once.
TWICE = (
    "SELECT count(*) FROM (SELECT FROM work_history WHERE event = 'Finished' GROUP BY machine_id HAVING count(*) > 1)"
)
ENDED = "SELECT count(*) FROM machine_agent_started"
TABLES = ("work", "work_history", "machine_agent_started")


async def install(conninfo: str) -> None:
    """Its migrations."""
    import bmdb

    async with await bmdb.AsyncConnection.connect(conninfo, component="benchmark", migrate=True):
        pass


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Provided machines."""
    import psycopg

    with psycopg.connect(conninfo, autocommit=True) as connection:

        async def put(count: int) -> None:
            connection.execute(
                "WITH made AS (INSERT INTO machines (machine_id) SELECT gen_random_uuid()"
                " FROM generate_series(1, %s) RETURNING machine_id)"
                " INSERT INTO machine_provided (machine_id, provider, provider_id)"
                " SELECT machine_id, 'benchmark', machine_id::text FROM made",
                [count],
            )

        yield put


def process(watch: bool = True) -> Any:
    """The process with its eligibility."""
    import bmdb

    return bmdb.Process(PROCESS, eligible=bmdb.eligible(having=("provided",), lacking=("agent_started",)), watch=watch)


def started() -> Any:
    """The change that ends a unit."""
    import bmdb

    return bmdb.set_tag("agent_started", agent_started_at=datetime.now(UTC), agent_public_key=b"key")


def _set_started(machine: Any, q: Any) -> Any:
    return q.machine_set_agent_started(machine, datetime.now(UTC), b"key")


def _batches(conninfo: str, unit: Unit) -> None:
    import bmdb

    work_process = process()

    def work(session: Any) -> None:
        while True:
            try:
                works = session.work_many(work_process, BATCH)
            except bmdb.NothingToDo:
                return
            for _ in works:
                unit.run()
            for verdict in session.finish_many([(leased, started()) for leased in works]):
                if verdict is not None:
                    raise verdict

    _crew(conninfo, BATCHERS, work)


async def _tasks(conninfo: str, unit: Unit) -> None:
    import bmdb

    work_process = process()

    async def work(session: Any) -> None:
        while True:
            try:
                leased = await session.work(work_process)
            except bmdb.NothingToDo:
                return
            await unit.run_async()
            await leased.finish(started())

    async with (
        await bmdb.AsyncConnection.connect(conninfo, component="benchmark") as connection,
        await connection.start_session() as session,
    ):
        tell("ready")
        await asyncio.gather(*(work(session) for _ in range(TASKS)))


def _threads(
    conninfo: str, unit: Unit, threads: int, with_callback: bool = False, ready: Callable[[], object] | None = None
) -> None:
    import bmdb

    work_process = process()

    def work(session: Any) -> None:
        while True:
            try:
                leased = session.work(work_process)
            except bmdb.NothingToDo:
                return
            unit.run()
            if with_callback:
                # The lease is the fence, and the callback only writes: nothing here needs to be serializable.
                leased.finish(partial(_set_started, leased.machine), isolation="read committed")
            else:
                leased.finish(started())

    _crew(conninfo, threads, work, ready)


def _crew(conninfo: str, threads: int, work: Callable[[Any], None], ready: Callable[[], object] | None = None) -> None:
    """Threads of one session that all do this. `ready`: told when they could begin."""
    import bmdb

    surprises: list[BaseException] = []

    def one_of_them(session: Any) -> None:
        try:
            work(session)
        except BaseException as error:
            surprises.append(error)

    with (
        bmdb.connect(conninfo, component="benchmark", pool_size=POOL) as connection,
        connection.start_session() as session,
    ):
        (ready or partial(tell, "ready"))()
        crew = [threading.Thread(target=one_of_them, args=(session,)) for _ in range(threads)]
        for one in crew:
            one.start()
        for one in crew:
            one.join()
        if surprises:
            raise surprises[0]


def _one_of_many(conninfo: str, count: int, together: Any) -> None:
    """A process of several: it cannot know when all have been called, so it tells when it finds nothing more.

    It begins when all are there: how long Python takes to start is not what is measured.
    """
    _threads(conninfo, Unit("count", count, "processes", False), THREADS, ready=together.wait)
    tell("last")


def _loop(conninfo: str, unit: Unit) -> None:
    import bmdb

    woken = unit.variant == "woken"
    interval = SHORT_INTERVAL if unit.short else INTERVAL
    of_loop = process(watch=woken)

    async def run(work: Any) -> Any:
        await unit.run_async()
        return started()

    idle = {"interval": interval, "max_idle": INTERVAL if woken else POLL_SECONDS, "rate": RATE_SECONDS}
    loop = bmdb.loop(of_loop, **idle)(run)
    tell("ready")
    bmdb.run([loop], conninfo, wakeup=woken)


async def _heedless(conninfo: str, unit: Unit) -> None:
    """Outside `async with`, where the loss of the session would cancel the task: only the database stops these."""
    import bmdb

    work_process = process()

    async def carry(leased: Any) -> None:
        async def insert(q: Any) -> None:
            await q.execute("INSERT INTO late_writes DEFAULT VALUES")

        try:
            await unit.run_async(lambda: leased.session.transact(insert))
        finally:
            await leased.finish(started())

    async with (
        await bmdb.AsyncConnection.connect(conninfo, component="benchmark") as connection,
        await connection.start_session(interval=SHORT_INTERVAL) as session,
    ):
        tell("ready")
        tasks = set()
        while not session.expired and unit.mode != "standby":
            try:
                tasks.add(asyncio.create_task(carry(await session.work(work_process))))
            except bmdb.NothingToDo:
                await asyncio.sleep(POLL_SECONDS)
        await asyncio.Event().wait()


async def serve(conninfo: str, unit: Unit) -> None:
    """In the way that the variant says."""
    match unit.variant:
        case "batch":
            await asyncio.to_thread(_batches, conninfo, unit)
        case "tasks":
            await _tasks(conninfo, unit)
        case "heedless":
            await _heedless(conninfo, unit)
        case "threads" | "callback" | "single":
            threads = 1 if unit.variant == "single" else THREADS
            await asyncio.to_thread(_threads, conninfo, unit, threads, unit.variant == "callback")
        case "processes":
            spawning = multiprocessing.get_context("spawn")
            together = spawning.Barrier(PROCESSES + 1)
            arguments = (conninfo, unit.count, together)
            crew = [spawning.Process(target=_one_of_many, args=arguments) for _ in range(PROCESSES)]
            for one in crew:
                one.start()
            tell("ready")
            await asyncio.to_thread(together.wait)
            for one in crew:
                await asyncio.to_thread(one.join)
        case _:
            _loop(conninfo, unit)
    await asyncio.Event().wait()
