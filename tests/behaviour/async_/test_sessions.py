"""Sessions: started, renewed past their interval, lost, closed, and what is told of it to whom.

The tests of loss were tried against a session whose loss nobody noticed (a heartbeat that ignores a missing row): each
of them then failed by timeout.
"""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together_async
from tests.conftest import MakeMachines
from tests.processes import eventually_async
from tests.proxy import Proxy

import bmdb

PROCESS = "UnitTest1"
OTHER_PROCESS = "UnitTest2"
Sql = psycopg.Connection[Any]


def lose(sql: Sql, session: bmdb.AsyncSession) -> None:
    """Delete the session's row, as collection would."""
    assert sql.execute("DELETE FROM sessions WHERE session_id = %s", [session.uuid]).rowcount == 1


def row_of(sql: Sql, session: bmdb.AsyncSession) -> tuple[Any, ...] | None:
    """Created, deadline, and seconds left by the database's clock."""
    return sql.execute(
        "SELECT session_created_at, session_deadline, extract(epoch FROM session_deadline - clock_timestamp())::float8"
        " FROM sessions WHERE session_id = %s",
        [session.uuid],
    ).fetchone()


def tagged(sql: Sql) -> int:
    row = sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone()
    assert row is not None
    return int(row[0])


def history(sql: Sql, machine: UUID) -> list[tuple[Any, ...]]:
    return sql.execute(
        "SELECT event, process, session_id, component, token FROM work_history"
        ' WHERE machine_id = %s ORDER BY "timestamp"',
        [machine],
    ).fetchall()


class TestLife:
    async def test_the_row_says_who_and_for_how_long(self, database: str, sql: Sql) -> None:
        async with (
            await bmdb.AsyncConnection.connect(database, component="starter", runtime_info="rack 7") as connection,
            await connection.start_session(interval=30) as session,
        ):
            info = await connection.session_info(session.uuid)
            assert info is not None
            assert info.session_id == session.uuid
            assert (info.session_component_name, info.session_runtime_info) == ("starter", "rack 7")
            assert info.session_interval_seconds == 30
            assert info.session_live
            row = row_of(sql, session)
            assert row is not None and 25 < row[2] <= 30

    async def test_runtime_info_says_where_it_runs_by_default(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession
    ) -> None:
        info = await connection.session_info(session.uuid)
        assert info is not None
        assert "pid" in info.session_runtime_info and "Python" in info.session_runtime_info

    async def test_every_session_has_an_id_of_its_own(self, connection: bmdb.AsyncConnection) -> None:
        async with await connection.start_session() as first, await connection.start_session() as second:
            assert first.uuid != second.uuid

    async def test_an_interval_is_rounded_up_to_whole_seconds(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=1.2) as session:
            assert session.interval == 2.0
            stored = sql.execute("SELECT session_interval_seconds FROM sessions").fetchone()
            assert stored == (2,)

    async def test_it_is_renewed_past_its_interval(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=1) as session:
            before = row_of(sql, session)
            await asyncio.sleep(2.6)
            after = row_of(sql, session)
            assert before is not None and after is not None
            assert after[0] == before[0]
            assert (after[1] - before[1]).total_seconds() > 1.5
            assert after[2] > 0
            assert not session.expired
            assert await session.transact(lambda q: q.session_check(session.uuid)) is not None

    async def test_trust_ends_a_fifth_early_and_is_renewed(self, connection: bmdb.AsyncConnection) -> None:
        async with await connection.start_session(interval=1) as session:
            end = time.monotonic() + 1.5
            seen = []
            while time.monotonic() < end:
                seen.append(session.trusted_for)
                await asyncio.sleep(0.01)
            assert min(seen) > 0 and max(seen) <= 0.8
            # Renewed at least twice: rises between two looks.
            assert sum(later > earlier for earlier, later in pairwise(seen)) >= 2

    async def test_the_shortest_interval_survives_a_slow_link(self, database: str, proxy: Proxy) -> None:
        """A beat's time limit must not include connecting, which takes several round trips of 50 ms here."""
        with proxy.delaying(0.025):
            async with (
                await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection,
                await connection.start_session(interval=1) as session,
            ):
                assert not await session.wait_expired(1.5)

    async def test_sessions_of_one_connection_are_renewed_together(self, connection: bmdb.AsyncConnection) -> None:
        async with (
            await connection.start_session(interval=1) as first,
            await connection.start_session(interval=1) as second,
            await connection.start_session(interval=2) as third,
        ):
            assert not await third.wait_expired(1.6)
            assert not first.expired and not second.expired


class TestLoss:
    async def test_a_deleted_row_is_noticed_by_the_next_transaction(
        self, connection: bmdb.AsyncConnection, sql: Sql, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        async with await connection.start_session(interval=60) as session:
            lose(sql, session)
            before = session.expired
            ran = []

            async def report(q: bmdb.AsyncQueries) -> None:
                ran.append(True)
                await q.machine_set_hardware_report(machine, b"x")

            for _ in range(2):
                with pytest.raises(bmdb.SessionExpiredError, match=rf"{session.uuid}.*start a new session"):
                    await session.transact(report)
            assert (before, session.expired) == (False, True)
            assert session.trusted_for == 0.0
            assert not ran and tagged(sql) == 0

    async def test_a_deleted_row_is_noticed_by_the_heartbeat(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=1) as session:
            lose(sql, session)
            assert await session.wait_expired(3)
            with pytest.raises(bmdb.SessionExpiredError, match="row is gone"):
                await session.transact(lambda q: q.count_machines())

    async def test_a_passed_deadline_is_never_renewed(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=1) as session:
            past = "UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 ms' WHERE session_id = %s"
            sql.execute(past, [session.uuid])
            assert await session.wait_expired(3)

    async def test_without_heartbeats_it_is_lost_before_the_database_lets_go(
        self, database: str, sql: Sql, proxy: Proxy
    ) -> None:
        async with (
            await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection,
            await connection.start_session(interval=1) as session,
        ):
            await eventually_async(lambda: proxy.count("UPDATE sessions") > 0)
            with proxy.freezing():
                assert await session.wait_expired(2)
                row = row_of(sql, session)
                assert row is not None and row[2] > 0, "the database would have let somebody else in already"
                began = time.monotonic()
                with pytest.raises(bmdb.SessionExpiredError, match=r"no heartbeat reached the database within 0\.8 s"):
                    await session.transact(lambda q: q.count_machines())
                assert time.monotonic() - began < 0.1
            # What was lost stays lost, although the database can be reached again.
            assert await session.wait_expired(0)

    async def test_the_others_of_its_connection_live_on(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with (
            await connection.start_session(interval=1) as lost,
            await connection.start_session(interval=1) as kept,
        ):
            lose(sql, lost)
            assert await lost.wait_expired(3)
            assert not kept.expired
            assert await kept.transact(lambda q: q.count_machines()) == 0

    async def test_a_new_session_takes_over(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=60) as lost:
            lose(sql, lost)
            with pytest.raises(bmdb.SessionExpiredError):
                await lost.transact(lambda q: q.count_machines())
        async with await connection.start_session() as session:
            assert await session.transact(lambda q: q.count_machines()) == 0

    async def test_its_work_is_lost_with_it(
        self, connection: bmdb.AsyncConnection, sql: Sql, machines: MakeMachines
    ) -> None:
        rack = machines(1)
        async with await connection.start_session(interval=1) as session:
            work = await session.work(PROCESS, lambda q: rack)
            lose(sql, session)
            assert await session.wait_expired(3)
            assert work.lost and work.state == "lost"
            with pytest.raises((bmdb.SessionExpiredError, bmdb.LeaseLostError)):
                await work.finish()


# async only
@pytest.mark.uvloop
# end async only
class TestWaiting:
    async def test_waiting_for_a_live_session_ends_with_the_timeout(self, session: bmdb.AsyncSession) -> None:
        began = time.monotonic()
        assert await session.wait_expired(0.2) is False
        assert 0.15 < time.monotonic() - began < 1

    async def test_loss_wakes_who_waits_without_limit(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        async with await connection.start_session(interval=1) as session:
            began = time.monotonic()

            async def take_away() -> bool:
                lose(sql, session)
                return True

            assert await together_async(session.wait_expired, take_away) == [True, True]
            assert time.monotonic() - began < 3

    async def test_closing_wakes_who_waits(self, connection: bmdb.AsyncConnection) -> None:
        session = await connection.start_session(interval=60)
        began = time.monotonic()
        assert await together_async(lambda: session.wait_expired(20), session.close) == [True, None]
        assert time.monotonic() - began < 5


# async only
@pytest.mark.uvloop
# end async only
class TestCallbacks:
    async def test_called_once_with_the_session(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        told: list[bmdb.AsyncSession] = []
        async with await connection.start_session(interval=1) as session:
            session.on_expired(told.append)
            lose(sql, session)
            await eventually_async(lambda: told, 3)
            with pytest.raises(bmdb.SessionExpiredError):
                await session.transact(lambda q: q.count_machines())
            await asyncio.sleep(0.7)
        assert told == [session]

    async def test_called_at_once_when_lost_already(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        first: list[bmdb.AsyncSession] = []
        late: list[bmdb.AsyncSession] = []
        async with await connection.start_session(interval=1) as session:
            session.on_expired(first.append)
            lose(sql, session)
            await eventually_async(lambda: first, 3)
            session.on_expired(late.append)
            await eventually_async(lambda: late, 0.5)

    async def test_not_called_when_closed(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        told: list[bmdb.AsyncSession] = []
        closed, lost = await connection.start_session(interval=1), await connection.start_session(interval=1)
        closed.on_expired(told.append)
        lost.on_expired(told.append)
        await closed.close()
        lose(sql, lost)
        # Events arrive in order, so the first one's would have been told before this one's.
        await eventually_async(lambda: told, 3)
        assert told == [lost]
        await lost.close()

    async def test_not_called_when_the_connection_is_closed(self, database: str) -> None:
        told: list[bmdb.AsyncSession] = []
        async with await bmdb.AsyncConnection.connect(database, component="test") as connection:
            (await connection.start_session(interval=60)).on_expired(told.append)
        # async only
        await asyncio.sleep(0.1)
        # end async only
        # The thread that would call it, or have the event loop call it, has ended with the connection.
        assert told == []

    async def test_not_called_when_registered_after_the_close(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        told: list[bmdb.AsyncSession] = []
        closed, lost = await connection.start_session(interval=60), await connection.start_session(interval=1)
        await closed.close()
        lost.on_expired(told.append)
        lose(sql, lost)
        await eventually_async(lambda: told, 3)
        closed.on_expired(told.append)
        await asyncio.sleep(0.1)
        assert told == [lost]
        await lost.close()

    async def test_one_that_fails_is_logged_and_keeps_nobody_from_being_told(
        self, connection: bmdb.AsyncConnection, sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[bmdb.AsyncSession] = []

        def fail(_: bmdb.AsyncSession) -> None:
            raise RuntimeError("out of paper")

        async with await connection.start_session(interval=1) as session:
            with caplog.at_level(logging.ERROR, logger="bmdb"):
                session.on_expired(fail)
                session.on_expired(told.append)
                lose(sql, session)
                await eventually_async(lambda: told, 3)
        assert any(record.exc_info and "out of paper" in str(record.exc_info[1]) for record in caplog.records)

    async def test_it_may_start_a_new_session(self, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        started: list[bmdb.AsyncSession] = []
        # async only
        starting: list[asyncio.Future[None]] = []
        # end async only
        async with await connection.start_session(interval=1) as session:

            async def start(lost: bmdb.AsyncSession) -> None:
                started.append(await lost.connection.start_session())

            # async only
            session.on_expired(lambda lost: starting.append(asyncio.ensure_future(start(lost))))
            # end async only
            # sync only
            # session.on_expired(start)
            # end sync only
            lose(sql, session)
            await eventually_async(lambda: started, 3)
        async with started[0] as successor:
            assert await successor.transact(lambda q: q.count_machines()) == 0


# async only
@pytest.mark.uvloop
# end async only
class TestClosing:
    async def test_closing_removes_the_row_and_releases_the_leases(
        self, connection: bmdb.AsyncConnection, sql: Sql, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        session = await connection.start_session(interval=60)
        first = await session.work(PROCESS, lambda q: [machine])
        second = await session.work(OTHER_PROCESS, lambda q: [machine])
        await session.close()
        await session.close()
        assert await connection.session_info(session.uuid) is None
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
        canceled = {
            ("Canceled", PROCESS, session.uuid, "test", first.token),
            ("Canceled", OTHER_PROCESS, session.uuid, "test", second.token),
        }
        assert set(history(sql, machine)[2:]) == canceled
        assert session.expired and await session.wait_expired(0)
        with pytest.raises(bmdb.SessionExpiredError, match="it was closed"):
            await session.transact(lambda q: q.count_machines())

    async def test_a_released_machine_can_be_leased_at_once(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        closing = await connection.start_session(interval=60)
        await closing.work(PROCESS, lambda q: [machine])
        with pytest.raises(bmdb.WorkConflictError):
            await session.work(PROCESS, lambda q: [machine])
        await closing.close()
        async with await session.work(PROCESS, lambda q: [machine]) as work:
            assert work.machine == machine

    async def test_an_error_inside_the_with_block_closes_too(self, connection: bmdb.AsyncConnection) -> None:
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            async with await connection.start_session() as session:
                raise error
        assert caught.value is error
        assert session.expired
        assert await connection.session_info(session.uuid) is None

    async def test_closing_a_lost_session_leaves_its_leases_to_collection(
        self, connection: bmdb.AsyncConnection, sql: Sql, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        session = await connection.start_session(interval=60)
        await session.work(PROCESS, lambda q: [machine])
        sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 s'")
        with pytest.raises(bmdb.SessionExpiredError):
            await session.transact(lambda q: q.count_machines())
        await session.close()
        assert await connection.collect() == (1, 1)
        assert [event for event, *_ in history(sql, machine)] == ["Started", "Lost"]

    async def test_closing_the_connection_ends_its_sessions(
        self, database: str, sql: Sql, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        async with await bmdb.AsyncConnection.connect(database, component="test") as connection:
            sessions = [await connection.start_session(interval=60) for _ in range(3)]
            await sessions[0].work(PROCESS, lambda q: [machine])
        assert connection.closed
        await connection.close()
        assert all(session.expired for session in sessions)
        assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        assert [event for event, *_ in history(sql, machine)] == ["Started", "Canceled"]
        await sessions[0].close()
