"""What an event loop has to do with it: context variables, loops that come and go, asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn

import bmdb

PROCESS = "UnitTest1"
REQUEST: ContextVar[str] = ContextVar("request", default="none")

# "blind" is a loop that cannot watch file descriptors.
LOOPS = """
    import asyncio
    import gc
    import os
    import sys
    import threading
    import time

    import uvloop
    import bmdb

    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *arguments):
            raise NotImplementedError

    new_event_loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, "blind": Blind}[sys.argv[2]]
"""

# Closes a loop while statements are in flight, or when their answers wait for it to run again; goes on in another one.
CLOSED_LOOP = f"""
    {LOOPS}
    told = []

    async def begin():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        session = await connection.start_session(interval=60)
        session.on_expired(told.append)
        sleep = lambda q: q.fetch("SELECT pg_sleep(0.5)")
        tasks = [asyncio.ensure_future(session.transact(sleep)) for _ in range(3)]
        tasks.append(asyncio.ensure_future(session.wait_expired()))
        await asyncio.sleep(0.2)
        return connection, session, tasks

    loop = new_event_loop()
    connection, session, tasks = loop.run_until_complete(begin())
    assert not any(task.done() for task in tasks)
    if sys.argv[3] == "answered":
        time.sleep(0.6)  # the answers come, and wait for the loop
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # or asyncio complains, and rightly so
    if sys.argv[3] == "in flight":
        time.sleep(0.6)  # the answers come, and nobody is there to be told

    async def again():
        print(await session.transact(lambda q: q.fetch_value("SELECT 7")))
        await session.close()  # waits for the transactions that it fences: they were rolled back
        await connection.close()

    loop = new_event_loop()
    loop.run_until_complete(again())
    loop.close()
    del tasks, task
    gc.collect()
"""

# Two programs, one after the other, each with a connection that it does not close.
TWICE = f"""
    {LOOPS}
    kept = []

    async def main():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        session = await connection.start_session(interval=60)
        kept.append((connection, session))
        await session.transact(lambda q: q.new_machine())
        return [await session.transact(lambda q: q.count_machines()) for _, session in kept]

    for _ in range(2):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            print(runner.run(main()))
"""


# Several loops at once, each in a thread of its own with many tasks, on one connection; sums up what each was told.
CROWD = f"""
    {LOOPS}
    TASKS, CALLS = 50, 100

    async def opened():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        return connection, await connection.start_session(interval=60)

    async def many():
        async def one():
            return [await session.wait_expired(0) for _ in range(CALLS)]
        told = await asyncio.gather(*(one() for _ in range(TASKS)))
        counts.append(sum(map(len, told)))

    def run():
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            for _ in range(2):
                runner.run(many())

    counts = []
    runner = asyncio.Runner(loop_factory=new_event_loop)
    connection, session = runner.run(opened())
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    runner.run(many())
    for thread in threads:
        thread.join()
    print(counts == [TASKS * CALLS] * 9)
    runner.run(connection.close())
    runner.close()
"""

# Counts the file descriptors that one loop after another costs: closed ones, and ones that are just forgotten while an
# answer waits for them.
DESCRIPTORS = f"""
    {LOOPS}

    async def opened():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="test")
        return connection, await connection.start_session(interval=60)

    async def call():
        await session.wait_expired(0)

    async def leave():
        session._core.wait_expired_async(0.02)

    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    first = new_event_loop()
    connection, session = first.run_until_complete(opened())
    before = count()
    for _ in range(5):
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        empty = count()
        loop.run_until_complete(call())
        costs = count() - empty
        loop.run_until_complete(call())
        assert count() - empty == costs
        loop.run_until_complete(leave())
        time.sleep(0.1)
        if sys.argv[3] == "closed":
            loop.close()
        del loop
        print(costs, count() - before)
    first.run_until_complete(connection.close())
    first.close()
"""

# Forks with a loop that is not running, and from within one that is.
FORKED = f"""
    {LOOPS}

    async def opened():
        connection = await bmdb.AsyncConnection.connect(sys.argv[1], component="parent")
        return connection, await connection.start_session(interval=60)

    async def call():
        assert not await session.wait_expired(0)

    async def own():
        async with await bmdb.AsyncConnection.connect(sys.argv[1], component="child") as connection:
            async with await connection.start_session(interval=60) as session:
                assert not await session.wait_expired(0)

    def child():
        global loop
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(own())
        inherited, loop = loop, None
        if sys.argv[3] == "idle":
            inherited.close()
        del inherited
        gc.collect()
        os._exit(0)

    async def leave():
        session._core.wait_expired_async(0)

    async def leave_and_fork():
        await leave()
        return fork()

    def fork():
        pid = os.fork()
        if pid == 0:
            child()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    loop = new_event_loop()
    connection, session = loop.run_until_complete(opened())
    if sys.argv[3] == "running":
        status = loop.run_until_complete(leave_and_fork())
    else:
        loop.run_until_complete(leave())
        status = fork()
    loop.run_until_complete(call())
    print("child ended with", status)
    loop.run_until_complete(connection.close())
    loop.close()
"""

# A thread asks for the GIL again and again while a loop is never idle.
BUSY = f"""
    {LOOPS}
    waited = []

    async def main():
        async with await bmdb.AsyncConnection.connect(sys.argv[1], component="test") as connection:
            async with await connection.start_session(interval=60, max_stall=1.0) as session:
                end = time.monotonic() + 3

                async def call():
                    while time.monotonic() < end:
                        await session.wait_expired(0)
                        sum(range(1000))

                await asyncio.gather(*(call() for _ in range(64)))

    def ask():
        while not done.is_set():
            before = time.monotonic()
            time.sleep(0.01)
            waited.append(time.monotonic() - before)

    done = threading.Event()
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
    done.set()
    thread.join()
    print(len(waited), max(waited))
"""


@pytest.fixture
async def session(database: str) -> AsyncIterator[bmdb.AsyncSession]:
    """A session of an AsyncConnection of its own."""
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session() as started,
    ):
        yield started


@pytest.mark.uvloop
async def test_the_loop_is_the_one_that_the_tests_name_says(request: pytest.FixtureRequest) -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop") == ("uvloop" in request.node.name)


@pytest.mark.uvloop
async def test_callbacks_see_the_callers_context_and_what_they_set_stays_set(
    session: bmdb.AsyncSession, machines: MakeMachines
) -> None:
    rack = machines(1)
    seen: list[str] = []

    def plain(q: bmdb.AsyncQueries) -> list[UUID]:
        seen.append(REQUEST.get())
        REQUEST.set(f"{REQUEST.get()}+")
        return rack

    async def coroutine(q: bmdb.AsyncQueries) -> list[UUID]:
        await q.count_machines()
        return plain(q)

    REQUEST.set("7")
    await session.transact(plain)
    await session.transact(coroutine)
    work = await session.work(PROCESS, coroutine)
    await work.finish(coroutine)
    assert seen == ["7", "7+", "7++", "7+++"]
    assert REQUEST.get() == "7++++"


@pytest.mark.uvloop
async def test_tasks_have_contexts_of_their_own(session: bmdb.AsyncSession) -> None:
    async def call(name: str) -> Any:
        REQUEST.set(name)

        async def look(q: bmdb.AsyncQueries) -> str:
            await q.fetch("SELECT pg_sleep(0.01)")
            return REQUEST.get()

        return await session.transact(look, isolation="read committed")

    names = [str(number) for number in range(8)]
    assert await asyncio.gather(*map(call, names)) == names
    assert REQUEST.get() == "none"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "blind"])
@pytest.mark.parametrize("moment", ["in flight", "answered"])
def test_a_loop_that_is_closed_with_statements_in_flight_hurts_nobody(
    moment: str, loop: str, spawn: Spawn, database: str
) -> None:
    worker = spawn(CLOSED_LOOP, database, loop, moment)
    assert worker.wait() == 0, worker.errors
    assert (worker.lines, worker.errors) == (["7"], [])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "blind"])
def test_a_process_may_have_one_loop_after_another(loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(TWICE, database, loop)
    assert worker.wait() == 0, worker.errors
    # In the second loop the first one's session serves, too.
    assert (worker.lines, worker.errors) == (["[1]", "[2, 2]"], [])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "blind"])
def test_loops_in_several_threads_are_told_all_they_wait_for(loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(CROWD, database, loop)
    assert worker.wait() == 0, worker.errors
    assert (worker.lines, worker.errors) == (["True"], [])


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize(("loop", "end"), [("asyncio", "closed"), ("uvloop", "closed"), ("asyncio", "forgotten")])
def test_a_loop_costs_a_pair_of_file_descriptors_until_it_goes(
    loop: str, end: str, spawn: Spawn, database: str
) -> None:
    worker = spawn(DESCRIPTORS, database, loop, end)
    assert worker.wait() == 0, worker.errors
    assert worker.lines == ["2 0"] * 5


# A child that closes a loop tears its parent's own wake-up out of the selector, which they share: no blind one then.
@pytest.mark.parametrize(
    ("state", "loop"),
    [("idle", "asyncio"), ("idle", "uvloop"), ("running", "asyncio"), ("running", "uvloop"), ("running", "blind")],
)
def test_a_forked_child_leaves_its_parents_loop_alone(state: str, loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(FORKED, database, loop, state)
    assert worker.wait() == 0, worker.errors
    assert (worker.lines, worker.errors) == (["child ended with 0"], [])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_that_is_never_idle_lets_other_threads_run(loop: str, spawn: Spawn, database: str) -> None:
    worker = spawn(BUSY, database, loop)
    assert worker.wait() == 0, worker.errors
    (line,) = worker.lines
    asked, longest = line.split()
    # Nobody is held back for long, nor taken for stalled.
    assert int(asked) > 50
    assert float(longest) < 1.0
    assert worker.errors == []
