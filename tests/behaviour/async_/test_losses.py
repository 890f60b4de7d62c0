"""Holders that are lost: crash backoff, and quarantine after too many in a row, applied by whoever collects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually_async

import bmdb
from bmdb.model import Event, WorkLoss

Sql = psycopg.Connection[Any]
Lose = Callable[..., Awaitable[UUID]]

FRAGILE = bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60, 200, 2), quarantine_after=3)

HOLDER = """
    import sys, time, uuid
    import bmdb

    process = bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60), quarantine_after=1)
    with bmdb.connect(sys.argv[1], component="victim") as connection, connection.start_session(interval=1) as session:
        session.work(process, lambda q: [uuid.UUID(sys.argv[2])])
        print("holding", session.uuid)
        time.sleep(60)
"""


def abandon(sql: Sql, process: str, *machines: UUID) -> UUID:
    """An expired session that holds these machines."""
    session = uuid4()
    with sql.transaction():
        sql.execute(
            "INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES (%s, 'gone', '', 5, clock_timestamp() - interval '1 s')",
            [session],
        )
        for machine in machines:
            sql.execute("INSERT INTO work VALUES (%s, %s, %s, 7)", [machine, process, session])
    return session


@pytest.fixture
def lose(connection: bmdb.AsyncConnection, sql: Sql) -> Lose:
    """A function that has a session lose its leases of a process on these machines; returns the session's id."""

    async def gone(process: str, *machines: UUID) -> UUID:
        session = abandon(sql, process, *machines)
        await connection.collect()

        async def collected() -> bool:
            return await connection.session_info(session) is None

        await eventually_async(collected)  # a heartbeat may have been faster
        return session

    return gone


async def events(connection: bmdb.AsyncConnection, machine: UUID) -> list[str]:
    return [event.event for event in await connection.history_of(machine)]


async def losses(connection: bmdb.AsyncConnection, machine: UUID, process: str = "Fragile") -> WorkLoss | None:
    return await connection._read(lambda q: q.work_loss_of(machine, process))


def backoff(sql: Sql, machine: UUID) -> tuple[int, int | None, str] | None:
    """What is left of the machine's backoff, in seconds rounded up, the period, and the cause."""
    return sql.execute(
        "SELECT ceil(extract(epoch FROM until - clock_timestamp()))::int, last_interval_seconds, cause"
        " FROM work_backoff WHERE machine_id = %s",
        [machine],
    ).fetchone()


async def claim(session: bmdb.AsyncSession, machine: UUID, process: str | bmdb.Process = "Fragile") -> bmdb.AsyncWork:
    return await session.work(process, lambda q: [machine])


class TestCrashBackoff:
    async def test_each_loss_makes_it_longer(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", crash_backoff=FRAGILE.crash_backoff))
        first, second = machines(2)
        for period in FRAGILE.crash_backoff.schedule(4):  # type: ignore[union-attr]
            session = await lose("Fragile", first)
            cause = f"the holder was lost: session {session} of gone"
            assert backoff(sql, first) == (period, period, cause)
        await lose("Fragile", first, second)
        assert backoff(sql, first) is not None and backoff(sql, second)[:2] == (60, 60)  # type: ignore[index]

    async def test_it_grows_from_a_failures_period_and_feeds_it(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        (machine,) = machines(1)
        await (await claim(session, machine)).fail("no answer", bmdb.Backoff(40, 1000, 2))
        await lose("Fragile", machine)
        assert backoff(sql, machine)[:2] == (80, 80)  # type: ignore[index]
        work = await claim(session, machine)
        assert work.previous_backoff == 80
        await work.fail("no answer", bmdb.Backoff(40, 1000, 3))
        assert backoff(sql, machine) == (240, 240, "no answer")

    async def test_a_longer_backoff_is_not_cut_short(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        (machine,) = machines(1)
        await session.transact(lambda q: q.insert_work_backoff(machine, "Fragile", "by hand", 5000))
        await lose("Fragile", machine)
        assert backoff(sql, machine) == (5000, 200, "by hand")

    async def test_jitter_shortens_the_wait_and_not_the_period(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(1000, jitter=0.5)))
        rack = machines(20)
        await lose("Fragile", *rack)
        found = [backoff(sql, machine) for machine in rack]
        assert {period for _, period, _ in found} == {1000}  # type: ignore[misc]
        waits = {wait for wait, _, _ in found}  # type: ignore[misc]
        assert len(waits) > 1 and all(500 <= wait <= 1000 for wait in waits)

    async def test_processes_that_declare_none_have_none(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        (machine,) = machines(1)
        await lose("Robust", machine)
        assert backoff(sql, machine) is None
        found = await losses(connection, machine, "Robust")
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    async def test_a_machine_that_somebody_has_locked_is_freed_and_not_waited_for(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, database: str, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        locked, other = machines(2)
        abandon(sql, "Fragile", locked, other)
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT FROM machines WHERE machine_id = %s FOR UPDATE", [locked])
            assert await connection.collect() == (1, 2)
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
        assert await events(connection, locked) == ["Lost"]
        assert await events(connection, other) == ["Lost"]
        assert await losses(connection, locked) is backoff(sql, locked) is None
        assert backoff(sql, other) is not None

    async def test_a_backoff_that_somebody_has_locked_is_not_waited_for(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, database: str, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60), quarantine_after=1))
        locked, other = machines(2)
        for machine in (locked, other):
            sql.execute("INSERT INTO work_backoff VALUES (%s, 'Fragile', now(), 'before', 30)", [machine])
        abandon(sql, "Fragile", locked, other)
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT FROM work_backoff WHERE machine_id = %s FOR UPDATE", [locked])
            assert await connection.collect() == (1, 2)
        kept = dict(sql.execute("SELECT machine_id, last_interval_seconds FROM work_backoff").fetchall())
        assert kept == {locked: 30, other: 60}
        assert await events(connection, locked) == ["Lost", "Quarantined"]
        assert {row.machine_id for row in await connection._read(lambda q: q.quarantines())} == {locked, other}


class TestQuarantine:
    async def test_after_so_many_losses_in_a_row(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        (machine,) = machines(1)
        for number in (1, 2):
            await lose("Fragile", machine)
            found = await losses(connection, machine)
            assert found is not None and (found.losses, found.quarantined_at) == (number, None)
        assert await connection._read(lambda q: q.quarantines()) == []
        last = await lose("Fragile", machine)
        found = await losses(connection, machine)
        assert found is not None and found.losses == 3 and found.quarantined_at is not None
        assert abs(found.quarantined_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert await connection._read(lambda q: q.quarantines()) == [found]
        assert await events(connection, machine) == ["Lost", "Lost", "Lost", Event.QUARANTINED]
        event = (await connection.history_of(machine))[-1]
        cause = f"quarantined after 3 lost holders in a row, the last one session {last} of gone"
        assert (event.process, event.session_id, event.component, event.failed_cause) == (
            "Fragile",
            last,
            "gone",
            cause,
        )
        kept = await connection._read(lambda q: q.work_backoff_of(machine, "Fragile"))
        assert kept is not None
        assert (kept.until.year, kept.cause, kept.last_interval_seconds) == (9999, cause, 200)
        with pytest.raises(bmdb.WorkConflictError, match="in quarantine"):
            await claim(session, machine)
        await (await claim(session, machine, "Other")).cancel()

    async def test_retrievals_that_respect_backoffs_leave_it_out(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose
    ) -> None:
        await connection.register(bmdb.Process("ShepherdAgentStart", quarantine_after=1))
        bad, good = machines(2)
        for machine in (bad, good):
            await session.transact(lambda q, machine=machine: q.machine_add_provided(machine, "Equinix", str(machine)))
        await lose("ShepherdAgentStart", bad)
        eligible = await session.transact(lambda q: q.machines_for_agent_start(16, "Equinix"))
        assert [row.machine_id for row in eligible] == [good]

    async def test_a_retrieval_that_does_not_is_refused_machine_by_machine(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", quarantine_after=1))
        bad, good = machines(2)
        await lose("Fragile", bad)
        sql.execute("DELETE FROM work_backoff")
        assert (await session.work("Fragile", lambda q: [bad, good])).machine == good

    async def test_released(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(FRAGILE)
        first, second = machines(2)
        for _ in range(3):
            await lose("Fragile", first, second)
        assert await connection.release_quarantine(first, FRAGILE)
        assert not await connection.release_quarantine(first, "Fragile"), "twice"
        assert not await connection.release_quarantine(second, "Other"), "another process"
        assert await losses(connection, first) is backoff(sql, first) is None
        assert [row.machine_id for row in await connection._read(lambda q: q.quarantines())] == [second]
        event = (await connection.history_of(first))[-1]
        assert (event.event, event.process, event.component) == (Event.QUARANTINE_RELEASED, "Fragile", "test")
        work = await claim(session, first)
        assert work.previous_backoff is None
        await work.cancel()
        await lose("Fragile", first)
        found = await losses(connection, first)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    async def test_a_backoff_set_by_hand_survives_the_release(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", quarantine_after=1))
        (machine,) = machines(1)
        await lose("Fragile", machine)
        await session.transact(lambda q: q.insert_work_backoff(machine, "Fragile", "by hand", 50))
        assert await connection.release_quarantine(machine, "Fragile")
        assert backoff(sql, machine) == (50, 50, "by hand")

    @pytest.mark.parametrize("ending", ["finish", "fail", "cancel", "close"])
    async def test_an_end_that_was_told_breaks_the_row(
        self, ending: str, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose
    ) -> None:
        await connection.register(bmdb.Process("Fragile", quarantine_after=3))
        (machine,) = machines(1)
        for _ in range(2):
            await lose("Fragile", machine)
        async with await connection.start_session() as session:
            work = await claim(session, machine)
            match ending:
                case "close":
                    await session.close()
                case "fail":
                    await work.fail("no answer", bmdb.Backoff())
                case _:
                    await getattr(work, ending)()
        assert await losses(connection, machine) is None
        await lose("Fragile", machine)
        found = await losses(connection, machine)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    async def test_an_end_by_a_worker_of_schema_2_breaks_the_row_too(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        """It writes history, and knows nothing of losses."""
        await connection.register(bmdb.Process("Fragile", quarantine_after=3))
        (machine,) = machines(1)
        for _ in range(2):
            await lose("Fragile", machine)
        sql.execute(
            "INSERT INTO work_history (machine_id, process, event) VALUES (%s, 'Fragile', 'Finished')", [machine]
        )
        await lose("Fragile", machine)
        found = await losses(connection, machine)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    async def test_what_ends_beside_a_quarantine_does_not_lift_it(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        """A lease that a holder got by SQL of its own, past the claim that would have refused it."""
        await connection.register(bmdb.Process("Fragile", quarantine_after=2))
        (machine,) = machines(1)
        await lose("Fragile", machine)
        work = await claim(session, machine)
        sql.execute("UPDATE work_loss SET quarantined_at = now()")
        await work.finish()
        found = await losses(connection, machine)
        assert found is not None and found.quarantined_at is not None

    async def test_the_machine_may_go(
        self, connection: bmdb.AsyncConnection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        await connection.register(bmdb.Process("Fragile", quarantine_after=1))
        (machine,) = machines(1)
        await lose("Fragile", machine)
        sql.execute("DELETE FROM machines")
        assert await losses(connection, machine) is None
        assert not await connection.release_quarantine(machine, "Fragile")


async def test_a_killed_worker(
    spawn: Spawn, database: str, connection: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql
) -> None:
    """Whoever lives applies what the one that died has declared."""
    (machine,) = machines(1)
    holder = spawn(HOLDER, database, str(machine))
    session = UUID(holder.expect("holding").split()[1])
    holder.kill()

    async def collected() -> bool:
        return await connection.session_info(session) is None

    async with await connection.start_session():  # its heartbeat collects
        await eventually_async(collected, timeout=10)
    assert await events(connection, machine) == ["Started", "Lost", "Quarantined"]
    assert [row.machine_id for row in await connection._read(lambda q: q.quarantines())] == [machine]
