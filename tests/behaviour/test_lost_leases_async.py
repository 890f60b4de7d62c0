"""A lost lease stops the task inside `async with`: cancelled at its next await, and the block says what was lost.

Structured as asyncio.timeout is: an exception of the body's own wins, and a cancellation by anybody else is never
swallowed.
"""

# What is raised is raised by a block, so the block is what has to be tested.
# ruff: noqa: SIM117

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn
from tests.proxy import Proxy

import bmdb

pytestmark = pytest.mark.uvloop
PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]


@pytest.fixture
async def twin(database: str) -> AsyncIterator[bmdb.AsyncConnection]:
    async with await bmdb.AsyncConnection.connect(database, component="twin") as connection:
        yield connection


@pytest.fixture
async def session(twin: bmdb.AsyncConnection) -> AsyncIterator[bmdb.AsyncSession]:
    """Its heartbeat notices a loss by time within half a second."""
    async with await twin.start_session(interval=1) as started:
        yield started


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    return machines(1)[0]


def lose(session: bmdb.AsyncSession) -> None:
    """Ends the session's trust; the loss is told when the heartbeat wakes."""
    session.connection._core.skip_clock(session.interval)


async def forever() -> None:
    await asyncio.sleep(60)
    pytest.fail("nobody stopped this")


class TestLoss:
    @pytest.mark.parametrize("entered", ["claim", "work"])
    async def test_the_body_is_cancelled_and_the_block_says_why(
        self, session: bmdb.AsyncSession, machine: UUID, entered: str
    ) -> None:
        claim = session.work(PROCESS, lambda _: [machine])
        told: list[BaseException] = []
        with pytest.raises(bmdb.SessionExpiredError, match="no heartbeat") as caught:
            async with claim if entered == "claim" else await claim as work:
                lose(session)
                try:
                    await forever()
                except asyncio.CancelledError as cancelled:
                    told.append(cancelled)
                    raise
        assert work.lost
        assert caught.value.__cause__ is told[0]
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)

    async def test_a_row_that_is_gone(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        with pytest.raises(bmdb.SessionExpiredError, match="row is gone"):
            async with session.work(PROCESS, lambda _: [machine]):
                sql.execute("DELETE FROM sessions")
                await forever()

    async def test_a_network_that_is_frozen(self, proxy: Proxy, database: str, machine: UUID) -> None:
        async with (
            await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="twin") as connection,
            await connection.start_session(interval=1) as session,
        ):
            with pytest.raises(bmdb.SessionExpiredError, match="no heartbeat"):
                async with session.work(PROCESS, lambda _: [machine]):
                    with proxy.freezing():
                        await forever()

    async def test_it_takes_a_tenth_of_a_second_at_most(
        self, twin: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql
    ) -> None:
        """Measured from where a thread that waits in the core learns of it; the best of three, for a busy machine."""
        seconds: list[float] = []
        for machine in machines(3):
            session = await twin.start_session(interval=1)
            learnt: list[float] = []

            def wait(session: bmdb.AsyncSession = session, learnt: list[float] = learnt) -> None:
                session._core.wait_expired(10)
                learnt.append(time.monotonic())

            waiter = threading.Thread(target=wait)
            waiter.start()
            with pytest.raises(bmdb.SessionExpiredError):
                async with session.work(PROCESS, lambda _, machine=machine: [machine]):  # type: ignore[misc]
                    sql.execute("DELETE FROM sessions")
                    try:
                        await forever()
                    except asyncio.CancelledError:
                        stopped = time.monotonic()
                        raise
            waiter.join()
            seconds.append(stopped - learnt[0])
        assert min(seconds) < 0.1

    async def test_work_held_for_too_long(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        """Only the lease that is lost is stopped."""
        stuck, other = machines(2)
        async with session.work(PROCESS, lambda _: [other]) as kept:
            with pytest.raises(bmdb.LeaseLostError, match=r"held longer than 0\.3 s"):
                async with session.work(PROCESS, lambda _: [stuck], max_hold=0.3):
                    await forever()
            assert not session.expired
            await asyncio.sleep(0.1)
            await kept.finish()

    async def test_a_touch_keeps_it(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        async with session.work(PROCESS, lambda _: [machine], max_hold=0.4) as work:
            for _ in range(20):
                await asyncio.sleep(0.04)
                work.touch()
            await work.finish()

    async def test_lost_before_it_is_entered(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        work = await session.work(PROCESS, lambda _: [machine])
        lose(session)
        assert await session.wait_expired(5)
        with pytest.raises(bmdb.SessionExpiredError):
            async with work:
                await forever()

    async def test_a_body_that_never_awaits_is_told_too(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        """What it missed must not hit what comes after the block."""
        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [machine]) as work:
                lose(session)
                while not work.lost:
                    time.sleep(0.01)
        await asyncio.sleep(0.01)
        with pytest.raises(bmdb.SessionExpiredError):
            async with work:  # cancelled on the way in, and no await to meet that
                pass
        await asyncio.sleep(0.01)

    async def test_a_body_that_swallows_the_cancellation_is_told_too(
        self, session: bmdb.AsyncSession, machine: UUID
    ) -> None:
        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [machine]):
                lose(session)
                with contextlib.suppress(asyncio.CancelledError):
                    await forever()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    async def test_the_machine_is_collected(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [machine]):
                sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 s'")
                await forever()
        await session.connection.collect()
        events = sql.execute('SELECT event FROM work_history ORDER BY "timestamp"').fetchall()
        assert events == [("Started",), ("Lost",)]


class TestNoLoss:
    async def test_what_is_left_is_watched_no_more(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        first, second = machines(2)
        async with session.work(PROCESS, lambda _: [first]) as work:
            await work.finish()
        with pytest.raises(ZeroDivisionError):
            async with session.work(PROCESS, lambda _: [second]):
                raise ZeroDivisionError
        assert session.connection._listener._watches == {}
        lose(session)
        assert await session.wait_expired(5)
        await asyncio.sleep(0.1)

    async def test_a_loss_after_the_end_is_none(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        async with session.work(PROCESS, lambda _: [machine], max_hold=0.2) as work:
            await work.finish()
            lose(session)
            assert await session.wait_expired(5)
            await asyncio.sleep(0.3)
            work.check()
        assert work.state == "finished"
        assert sql.execute("SELECT count(*) FROM work_history WHERE event = 'Finished'").fetchone() == (1,)

    async def test_an_end_on_its_way_tells_its_own_outcome(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        raised: list[BaseException] = []
        with pytest.raises(bmdb.SessionExpiredError) as caught:
            async with session.work(PROCESS, lambda _: [machine]) as work:

                async def slow(q: bmdb.AsyncQueries) -> None:
                    lose(session)
                    await q.fetch("SELECT pg_sleep(10)")

                try:
                    await work.finish(slow)
                except BaseException as error:
                    raised.append(error)
                    raise
        assert raised == [caught.value]

    @pytest.mark.direct(
        "an end that was not answered may be on its way still, and no backend can be told by its number"
    )
    async def test_an_end_that_is_refused_while_the_loop_is_busy(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        """The loop hears of the loss first, then of what became of the end."""

        def busy() -> None:
            lose(session)
            time.sleep(0.5)

        raised: list[BaseException] = []
        with pytest.raises(bmdb.SessionExpiredError), sql.transaction():
            async with session.work(PROCESS, lambda _: [machine]) as work:
                sql.execute("SELECT FROM work FOR UPDATE")
                asyncio.get_running_loop().call_later(0.2, busy)
                try:
                    await work.finish()
                except BaseException as error:
                    raised.append(error)
                    raise
        assert [type(error) for error in raised] == [bmdb.SessionExpiredError]

    async def test_an_end_that_comes_to_nothing_is_no_way_out(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        """The loss was told while the end was on its way."""
        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [machine]) as work:

                async def give_up(_: bmdb.AsyncQueries) -> None:
                    lose(session)
                    await session.wait_expired(5)
                    await asyncio.sleep(0.2)
                    raise LookupError

                with contextlib.suppress(LookupError):
                    await work.finish(give_up)
                await forever()

    async def test_awaited_only_it_stops_nobody(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        work = await session.work(PROCESS, lambda _: [machine])
        lose(session)
        assert await session.wait_expired(5)
        await asyncio.sleep(0.1)
        assert work.lost
        with pytest.raises(bmdb.SessionExpiredError):
            work.check()

    async def test_undone_work_is_given_back(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        async with session.work(PROCESS, lambda _: [machine]) as work:
            pass
        assert work.state == "canceled"
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)


class TestClosing:
    async def test_whoever_closes_the_session_stops_the_others(self, twin: bmdb.AsyncConnection, machine: UUID) -> None:
        """Its machines are free for others from then on."""
        session = await twin.start_session()
        inside = asyncio.Event()

        async def work() -> None:
            async with session.work(PROCESS, lambda _: [machine]):
                inside.set()
                await forever()

        task = asyncio.create_task(work())
        await inside.wait()
        await session.close()
        with pytest.raises(bmdb.SessionExpiredError, match="closed"):
            await task

    async def test_a_loss_before_it_is_told_all_the_same(self, twin: bmdb.AsyncConnection, machine: UUID) -> None:
        """The body closes the session while it is cancelled, as cleaning up may."""
        session = await twin.start_session()
        with pytest.raises(bmdb.LeaseLostError):
            async with session.work(PROCESS, lambda _: [machine], max_hold=0.2):
                try:
                    await forever()
                finally:
                    await session.close()

    async def test_but_not_itself(self, twin: bmdb.AsyncConnection, machine: UUID) -> None:
        session = await twin.start_session()
        async with session.work(PROCESS, lambda _: [machine]) as work:
            await session.close()
            await asyncio.sleep(0.1)
        assert work.lost


class TestOthers:
    """Exceptions and cancellations that are not the guard's."""

    async def test_an_exception_of_the_bodys_own_wins(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        with pytest.raises(ZeroDivisionError):
            async with session.work(PROCESS, lambda _: [machine]):
                lose(session)
                try:
                    await forever()
                finally:
                    raise ZeroDivisionError
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)

    @pytest.mark.parametrize("first", ["loss", "outer"])
    async def test_an_outer_cancellation_is_never_swallowed(
        self, session: bmdb.AsyncSession, machine: UUID, first: str
    ) -> None:
        cancelled_once = asyncio.Event()
        inside = asyncio.Event()

        async def work() -> None:
            async with session.work(PROCESS, lambda _: [machine]):
                inside.set()
                try:
                    await forever()
                except asyncio.CancelledError:
                    cancelled_once.set()
                    await forever()  # cleaning up, until cancelled again

        task = asyncio.create_task(work())
        await inside.wait()
        acts: list[Callable[[], object]] = [lambda: lose(session), task.cancel]
        for act in acts if first == "loss" else acts[::-1]:
            act()
            await cancelled_once.wait()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        assert task.cancelled()

    async def test_an_outer_cancellation_in_the_same_breath(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with session.work(PROCESS, lambda _: [machine]) as held:
                inside.set()
                lose(session)
                while not held.lost:
                    time.sleep(0.01)
                time.sleep(0.1)  # the loss is told, but this task has not let the loop look
                await forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    async def test_an_outer_cancellation_alone(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with session.work(PROCESS, lambda _: [machine]):
                inside.set()
                await forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)

    async def test_blocks_inside_each_other(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        outer, inner = machines(2)
        passed: list[str] = []
        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [outer]):
                async with session.work(PROCESS, lambda _: [inner]):
                    lose(session)
                    await forever()
                passed.append("between")
        assert passed == []
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    async def test_only_the_inner_one_is_lost(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        outer, inner = machines(2)
        async with session.work(PROCESS, lambda _: [outer]) as kept:
            with pytest.raises(bmdb.LeaseLostError):
                async with session.work(PROCESS, lambda _: [inner], max_hold=0.2):
                    await forever()
            await kept.finish()
        assert kept.state == "finished"

    async def test_only_the_outer_one_is_lost(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        outer, inner = machines(2)
        with pytest.raises(bmdb.LeaseLostError, match=str(outer)):
            async with session.work(PROCESS, lambda _: [outer], max_hold=0.2):
                async with session.work(PROCESS, lambda _: [inner]) as kept:
                    await forever()
        assert kept.state == "canceled"

    @pytest.mark.parametrize("which", ["timeout outside", "timeout inside"])
    async def test_a_timeout_that_comes_first(self, session: bmdb.AsyncSession, machine: UUID, which: str) -> None:
        async def inside() -> None:
            async with asyncio.timeout(0.1):
                await forever()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1 if which == "timeout outside" else None):
                async with session.work(PROCESS, lambda _: [machine]) as work:
                    await (forever() if which == "timeout outside" else inside())
        assert work.state == "canceled"

    async def test_a_loss_that_comes_before_the_timeout(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        with pytest.raises(bmdb.SessionExpiredError):
            async with asyncio.timeout(30):
                async with session.work(PROCESS, lambda _: [machine]):
                    lose(session)
                    async with asyncio.timeout(30):
                        await forever()

    async def test_a_task_group_inside_is_stopped_whole(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        stopped: list[int] = []

        async def child(number: int) -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                stopped.append(number)
                raise

        with pytest.raises(bmdb.SessionExpiredError):
            async with session.work(PROCESS, lambda _: [machine]):
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(child(number))
                    await asyncio.sleep(0)
                    lose(session)
        assert sorted(stopped) == [0, 1, 2]

    async def test_a_task_group_outside_hears_of_it(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        async def work(machine: UUID) -> None:
            async with session.work(PROCESS, lambda _: [machine]):
                await forever()

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for machine in machines(2):
                    group.create_task(work(machine))
                await asyncio.sleep(0.2)
                lose(session)
        assert caught.value.subgroup(bmdb.SessionExpiredError) is not None
        assert caught.value.split(bmdb.SessionExpiredError)[1] is None


class TestAwaitable:
    @pytest.mark.parametrize(
        "wrap",
        [asyncio.ensure_future, asyncio.create_task, lambda claim: asyncio.wait_for(claim, 5), asyncio.gather],
        ids=["ensure_future", "create_task", "wait_for", "gather"],
    )
    async def test_it_is_as_good_as_a_coroutine(
        self, session: bmdb.AsyncSession, machine: UUID, wrap: Callable[[Any], Awaitable[Any]]
    ) -> None:
        claimed = await wrap(session.work(PROCESS, lambda _: [machine]))
        work = claimed[0] if isinstance(claimed, list) else claimed
        assert work.machine == machine

    async def test_what_is_wrong_is_told_at_once(self, session: bmdb.AsyncSession) -> None:
        with pytest.raises(ValueError, match="max_hold"):
            session.work(PROCESS, lambda _: [], max_hold=-1)

    async def test_nothing_to_do(self, session: bmdb.AsyncSession) -> None:
        with pytest.raises(bmdb.NothingToDo):
            async with session.work(PROCESS, lambda _: []):
                pytest.fail("entered")

    async def test_forgetting_the_await_is_told(self, session: bmdb.AsyncSession) -> None:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            session.work(PROCESS, lambda _: [])

    def test_a_loop_that_is_closed_meanwhile(self, database: str, machine: UUID, spawn: Spawn) -> None:
        """The task is gone with its loop; the loss comes later, to nobody's harm."""
        source = f"""
            import asyncio
            import os
            import sys
            import time
            import bmdb

            dsn, machine = sys.argv[1:]

            async def work(connection):
                session = await connection.start_session(interval=1)
                async with session.work("{PROCESS}", lambda _: [machine]):
                    await asyncio.sleep(60)

            async def begin():
                global connection, task
                connection = await bmdb.AsyncConnection.connect(dsn, component="twin")
                task = asyncio.get_running_loop().create_task(work(connection))
                await asyncio.sleep(0.5)

            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin())
            loop.close()
            connection._core.skip_clock(1)
            time.sleep(1)
            print("alive", flush=True)
            os._exit(0)
        """
        worker = spawn(source, database, str(machine))
        worker.expect("alive")
        assert worker.wait() == 0
        assert not any("Traceback" in line for line in worker.errors)
