"""Work: which machine is leased, and the ways in which it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.drivers import Driver

import bmdb

PROCESS = "UnitTest1"
OTHER_PROCESS = "UnitTest2"
Sql = psycopg.Connection[Any]
# async only
pytestmark = pytest.mark.uvloop
# end async only
BACKOFF = bmdb.Backoff(60)


def leases(sql: Sql) -> set[tuple[UUID, str]]:
    return set(sql.execute("SELECT machine_id, process FROM work").fetchall())


def events(sql: Sql, machine: UUID) -> list[str]:
    query = 'SELECT event FROM work_history WHERE machine_id = %s ORDER BY "timestamp"'
    return [event for (event,) in sql.execute(query, [machine])]


def reported(sql: Sql) -> set[UUID]:
    return {machine for (machine,) in sql.execute("SELECT machine_id FROM machine_hardware_report")}


def take_away(sql: Sql) -> None:
    """End all leases behind their holders' backs."""
    sql.execute("DELETE FROM work")


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    return machines(1)[0]


@pytest.fixture
async def work(session: bmdb.AsyncSession, machine: UUID) -> bmdb.AsyncWork:
    return await session.work(PROCESS, lambda q: [machine])


class TestChoice:
    async def test_the_first_free_machine_in_the_order_offered(
        self, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        # Neither by id nor by insertion.
        rack = sorted(machines(5), key=lambda machine: machine.bytes[::-1])
        for expected in rack:
            assert (await session.work(PROCESS, lambda q: rack)).machine == expected
        with pytest.raises(bmdb.WorkConflictError, match="all 5 machines"):
            await session.work(PROCESS, lambda q: rack)

    async def test_taken_machines_are_passed_over(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        first, second, third = machines(3)
        await session.work(PROCESS, lambda q: [second])
        await session.work(OTHER_PROCESS, lambda q: [first])
        assert (await session.work(PROCESS, lambda q: [second, first, third])).machine == first
        assert (await session.work(PROCESS, lambda q: [second, first, third])).machine == third
        assert leases(sql) == {(second, PROCESS), (first, PROCESS), (third, PROCESS), (first, OTHER_PROCESS)}

    async def test_one_offered_twice_is_leased_once(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        await session.work(PROCESS, lambda q: [machine, machine])
        assert leases(sql) == {(machine, PROCESS)}
        assert events(sql, machine) == ["Started"]

    @pytest.mark.parametrize(
        "shape",
        [
            list,
            tuple,
            set,
            frozenset,
            iter,
            lambda ids: (machine for machine in ids),
            lambda ids: dict.fromkeys(ids).keys(),
        ],
        ids=["list", "tuple", "set", "frozenset", "iterator", "generator", "keys"],
    )
    async def test_any_collection_of_ids_will_do(
        self, shape: Callable[[list[UUID]], Any], session: bmdb.AsyncSession, machine: UUID
    ) -> None:
        assert (await session.work(PROCESS, lambda q: shape([machine]))).machine == machine

    async def test_so_will_rows_that_have_a_machine_id(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        raw = await session.work(PROCESS, lambda q: q.fetch("SELECT now(), machine_id FROM machines"))
        assert raw.machine == machine
        await session.transact(lambda q: q.machine_add_provided(machine, "Equinix", "a"))
        assert (await session.work("ours", lambda q: q.provided_machines("Equinix"))).machine == machine

    async def test_what_retrieval_wrote_lands_with_the_lease(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        async def retrieve(q: bmdb.AsyncQueries) -> list[UUID]:
            await q.machine_set_hardware_report(machine, b"seen")
            return [machine]

        await session.work(PROCESS, retrieve)
        assert reported(sql) == {machine}
        # The machine is taken now: a conflict, and nothing of the retrieval stays.
        sql.execute("DELETE FROM machine_hardware_report")
        with pytest.raises(bmdb.WorkConflictError):
            await session.work(PROCESS, retrieve)
        assert reported(sql) == set()

    @pytest.mark.parametrize(
        "nothing", [None, [], (), set(), iter(())], ids=["None", "list", "tuple", "set", "iterator"]
    )
    async def test_no_machines_are_nothing_to_do(
        self, nothing: Any, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        with pytest.raises(bmdb.NothingToDo):
            await session.work(PROCESS, lambda q: nothing)
        assert leases(sql) == set() and events(sql, machine) == []

    async def test_retrieval_may_say_so_itself(self, session: bmdb.AsyncSession) -> None:
        class Holiday(bmdb.NothingToDo):
            pass

        error = Holiday("until Monday")

        def retrieve(q: bmdb.AsyncQueries) -> list[UUID]:
            raise error

        with pytest.raises(Holiday) as caught:
            await session.work(PROCESS, retrieve)
        assert caught.value is error
        assert not isinstance(error, bmdb.Error)

    async def test_retrievals_own_exception_surfaces(self, session: bmdb.AsyncSession, sql: Sql) -> None:
        error = RuntimeError("mine")

        async def retrieve(q: bmdb.AsyncQueries) -> list[UUID]:
            await q.new_machine()
            raise error

        with pytest.raises(RuntimeError) as caught:
            await session.work(PROCESS, retrieve)
        assert caught.value is error
        assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)

    async def test_a_known_machine_is_leased_in_spite_of_an_unknown_one(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        assert (await session.work(PROCESS, lambda q: [uuid4(), machine])).machine == machine
        assert leases(sql) == {(machine, PROCESS)}


class TestLease:
    def test_it_knows_what_it_is(self, session: bmdb.AsyncSession, work: bmdb.AsyncWork, machine: UUID) -> None:
        assert (work.machine, work.process, work.session) == (machine, PROCESS, session)
        assert work.state == "active" and work.lost is False
        assert work.previous_backoff is None
        assert PROCESS in repr(work) and str(machine) in repr(work) and "active" in repr(work)

    async def test_history_says_who_started_it(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, work: bmdb.AsyncWork, machine: UUID
    ) -> None:
        (event,) = await connection.history_of(machine)
        assert (event.event, event.process) == ("Started", PROCESS)
        assert (event.session_id, event.component, event.token) == (session.uuid, "test", work.token)

    async def test_tokens_rise_for_each_pair_and_pairs_do_not_share(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        first, second = machines(2)

        async def token(session: bmdb.AsyncSession, machine: UUID, process: str = PROCESS) -> int:
            async with await session.work(process, lambda q: [machine]) as work:
                return work.token

        async with await connection.start_session() as rival:
            tokens = [await token(session, first), await token(rival, first), await token(session, first)]
        assert tokens == sorted(set(tokens))
        # Pairs that have never been leased begin where the first one began.
        assert await token(session, second) == await token(session, first, OTHER_PROCESS) == tokens[0]

    async def test_a_token_outlives_everything(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        """Whatever ended a lease, the next one's token is higher, or somebody outside would trust the wrong holder."""
        tokens = []

        async def be_robbed(_: bmdb.AsyncWork) -> None:
            take_away(sql)

        ends: list[Callable[[bmdb.AsyncWork], Awaitable[None]]] = [
            lambda work: work.finish(),
            lambda work: work.fail("no answer", BACKOFF),
            lambda work: work.cancel(),
            be_robbed,
        ]
        for end in ends:
            work = await session.work(PROCESS, lambda q: [machine])
            tokens.append(work.token)
            await end(work)
        tokens.append((await session.work(PROCESS, lambda q: [machine])).token)
        assert tokens == sorted(set(tokens))

    async def test_a_leased_machine_cannot_be_deleted(self, work: bmdb.AsyncWork, machine: UUID, sql: Sql) -> None:
        with pytest.raises(psycopg.errors.IntegrityError):
            sql.execute("DELETE FROM machines WHERE machine_id = %s", [machine])
        await work.finish()
        sql.execute("DELETE FROM machines WHERE machine_id = %s", [machine])

    async def test_the_longest_process_name(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        name = "é" * 64
        assert (await session.work(name, lambda q: [machine])).process == name
        assert leases(sql) == {(machine, name)}


class TestFinish:
    async def test_it_frees_the_machine_and_lands_what_commit_wrote(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        await work.finish(lambda q: q.machine_set_hardware_report(machine, b"done"), **driver)
        assert work.state == "finished" and not work.lost
        assert leases(sql) == set() and reported(sql) == {machine}
        assert events(sql, machine) == ["Started", "Finished"]

    async def test_without_a_commit(self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver) -> None:
        await work.finish(**driver)
        assert leases(sql) == set() and events(sql, machine) == ["Started", "Finished"]

    async def test_it_forgives_the_backoff_of_its_pair_alone(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        await (await session.work(PROCESS, lambda q: [machine])).fail("no answer", BACKOFF, **driver)
        await (await session.work(OTHER_PROCESS, lambda q: [machine])).fail("no answer", BACKOFF, **driver)
        await (await session.work(PROCESS, lambda q: [machine])).finish(**driver)
        assert sql.execute("SELECT process FROM work_backoff").fetchall() == [(OTHER_PROCESS,)]

    async def test_after_an_error_in_commit_the_work_is_active_still(
        self, session: bmdb.AsyncSession, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        error = RuntimeError("mine")

        async def commit(q: bmdb.AsyncQueries) -> None:
            await q.machine_set_hardware_report(machine, b"half")
            raise error

        for _ in range(2):
            with pytest.raises(RuntimeError) as caught:
                await work.finish(commit, **driver)
            assert caught.value is error
            assert work.state == "active"
            assert leases(sql) == {(machine, PROCESS)} and reported(sql) == set()
            assert events(sql, machine) == ["Started"]
        with pytest.raises(bmdb.WorkConflictError):
            await session.work(PROCESS, lambda q: [machine])
        await work.finish(lambda q: q.machine_set_hardware_report(machine, b"whole"), **driver)
        assert work.state == "finished" and reported(sql) == {machine}

    async def test_after_an_error_of_the_database_too(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        with pytest.raises(bmdb.DatabaseError):
            await work.finish(lambda q: q.execute("SELECT 1 / 0"), **driver)
        assert work.state == "active" and leases(sql) == {(machine, PROCESS)}
        await work.fail("division", BACKOFF, **driver)
        assert events(sql, machine) == ["Started", "Failed"]

    async def test_it_is_ending_while_commit_runs(self, work: bmdb.AsyncWork, driver: Driver) -> None:
        seen: list[str] = []

        async def commit(q: bmdb.AsyncQueries) -> None:
            seen.append(work.state)
            with pytest.raises(bmdb.WorkStateError):
                await work.finish(**driver)
            await work.cancel(**driver)

        await work.finish(commit, **driver)
        assert seen == ["ending"] and work.state == "finished"

    async def test_a_lease_that_was_taken_away_is_lost_and_commit_does_not_run(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        """Without the fence the callback would run, and write."""
        take_away(sql)
        ran: list[bmdb.AsyncQueries] = []
        for _ in range(2):
            with pytest.raises(bmdb.LeaseLostError):
                await work.finish(ran.append, **driver)
            assert work.lost and work.state == "lost"
        assert not ran and events(sql, machine) == ["Started"]

    async def test_a_lease_that_somebody_else_has_now_is_not_ended(
        self, connection: bmdb.AsyncConnection, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        take_away(sql)
        async with await connection.start_session() as rival:
            theirs = await rival.work(PROCESS, lambda q: [machine])
            with pytest.raises(bmdb.LeaseLostError):
                await work.finish(**driver)
            assert leases(sql) == {(machine, PROCESS)}
            await theirs.finish(**driver)

    async def test_not_even_by_the_same_session(
        self, session: bmdb.AsyncSession, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        """Machine, process and session are the same; only the token tells the two leases apart."""
        take_away(sql)
        successor = await session.work(PROCESS, lambda q: [machine])
        ends: list[Callable[[], Awaitable[None]]] = [work.finish, lambda: work.fail("late", BACKOFF, **driver)]
        for end in ends:
            with pytest.raises(bmdb.LeaseLostError):
                await end()
        assert successor.state == "active" and leases(sql) == {(machine, PROCESS)}
        await successor.finish(**driver)


class TestFail:
    async def test_it_frees_the_machine_and_keeps_the_cause(
        self,
        connection: bmdb.AsyncConnection,
        session: bmdb.AsyncSession,
        work: bmdb.AsyncWork,
        machine: UUID,
        sql: Sql,
        driver: Driver,
    ) -> None:
        await work.fail("no answer from 10.0.0.7", BACKOFF, **driver)
        assert work.state == "failed"
        assert leases(sql) == set()
        event = (await connection.history_of(machine))[-1]
        assert (event.event, event.failed_cause) == ("Failed", "no answer from 10.0.0.7")
        assert (event.session_id, event.component, event.token) == (session.uuid, "test", work.token)
        backoff = await session.transact(lambda q: q.work_backoff_of(machine, PROCESS))
        assert backoff is not None
        assert (backoff.cause, backoff.last_interval_seconds) == ("no answer from 10.0.0.7", 60)

    async def test_a_lease_that_was_taken_away_is_lost(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        take_away(sql)
        with pytest.raises(bmdb.LeaseLostError):
            await work.fail("no answer", BACKOFF, **driver)
        assert work.lost
        assert sql.execute("SELECT count(*) FROM work_backoff").fetchone() == (0,)
        assert events(sql, machine) == ["Started"]


class TestCancel:
    async def test_it_frees_the_machine_once(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        await work.cancel(**driver)
        assert work.state == "canceled"
        assert leases(sql) == set()
        await work.cancel(**driver)
        assert events(sql, machine) == ["Started", "Canceled"]
        assert sql.execute("SELECT count(*) FROM work_backoff").fetchone() == (0,)

    @pytest.mark.parametrize("end", ["finish", "fail"])
    async def test_after_another_end_it_does_nothing(
        self, end: str, work: bmdb.AsyncWork, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        await (work.finish(**driver) if end == "finish" else work.fail("no answer", BACKOFF, **driver))
        state, before = work.state, events(sql, machine)
        await work.cancel(**driver)
        assert work.state == state and events(sql, machine) == before

    async def test_a_lost_lease_is_logged_and_not_raised(
        self, work: bmdb.AsyncWork, machine: UUID, sql: Sql, caplog: pytest.LogCaptureFixture, driver: Driver
    ) -> None:
        take_away(sql)
        with caplog.at_level(logging.INFO, logger="bmdb"):
            await work.cancel(**driver)
        assert work.lost
        told = [record for record in caplog.records if str(machine) in record.getMessage()]
        assert [record.levelno for record in told] == [logging.INFO]
        assert events(sql, machine) == ["Started"]

    async def test_nothing_is_raised_either_once_the_session_is_closed(
        self, connection: bmdb.AsyncConnection, machine: UUID, sql: Sql, driver: Driver
    ) -> None:
        async with await connection.start_session() as session:
            work = await session.work(PROCESS, lambda q: [machine])
        await work.cancel(**driver)
        assert work.lost
        assert events(sql, machine) == ["Started", "Canceled"]


class TestContext:
    async def test_leaving_it_undone_cancels(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        async with await session.work(PROCESS, lambda q: [machine]) as work:
            assert leases(sql) == {(machine, PROCESS)}
        assert work.state == "canceled" and leases(sql) == set()
        assert events(sql, machine) == ["Started", "Canceled"]

    async def test_leaving_it_by_an_error_cancels_and_the_error_surfaces(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            async with await session.work(PROCESS, lambda q: [machine]) as work:
                raise error
        assert caught.value is error and error.__context__ is None
        assert work.state == "canceled" and leases(sql) == set()

    async def test_leaving_it_done_does_nothing(self, session: bmdb.AsyncSession, machine: UUID, sql: Sql) -> None:
        async with await session.work(PROCESS, lambda q: [machine]) as work:
            await work.finish()
        assert work.state == "finished"
        assert events(sql, machine) == ["Started", "Finished"]
