"""A psycopg connection of the user's: what holds on bmdb's own holds there too, and it comes back as it was."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]
PROCESS = "UnitTest1"


@pytest.fixture(autouse=True)
def tally(sql: Sql) -> None:
    sql.execute("CREATE TABLE tally (id int PRIMARY KEY, n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (1, 0)")


def value(sql: Sql) -> int:
    row = sql.execute("SELECT n FROM tally WHERE id = 1").fetchone()
    assert row is not None
    return int(row[0])


async def lease(session: bmdb.AsyncSession, machines: MakeMachines) -> bmdb.AsyncWork:
    machines(1)

    async def retrieve(q: bmdb.AsyncQueries) -> Any:
        return await q.fetch("SELECT machine_id FROM machines")

    return await session.work(PROCESS, retrieve)


def events(sql: Sql, machine: UUID) -> list[str]:
    rows = sql.execute("SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp", [machine])
    return [event for (event,) in rows]


class TestTransact:
    async def test_what_both_write_lands_together(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def write(q: Any) -> Any:
            assert q.connection is pg
            await pg.execute("UPDATE tally SET n = %s WHERE id = 1", [7])
            assert value(sql) == 0
            return (await q.new_machine()).machine_id

        machine = await session.transact(write, connection=pg)
        assert value(sql) == 7
        assert sql.execute("SELECT machine_id FROM machines").fetchall() == [(machine,)]

    async def test_its_exception_rolls_back_and_surfaces_unchanged(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        error = RuntimeError("mine")

        async def write(q: Any) -> None:
            await pg.execute("UPDATE tally SET n = 7")
            raise error

        with pytest.raises(RuntimeError) as caught:
            await session.transact(write, connection=pg)
        assert caught.value is error
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    async def test_a_lost_session_is_refused_before_and_in_the_callback_and_at_commit(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def overtaken(q: Any) -> None:
            await pg.execute("UPDATE tally SET n = 7")
            connection._core.skip_clock(10)

        with pytest.raises(bmdb.SessionExpiredError):
            await session.transact(overtaken, connection=pg)
        with pytest.raises(bmdb.SessionExpiredError):
            await session.transact(overtaken, connection=pg)
        async with await connection.start_session() as other:

            async def asks(q: Any) -> None:
                connection._core.skip_clock(10)
                await q.count_machines()

            with pytest.raises(bmdb.SessionExpiredError):
                await other.transact(asks, connection=pg)
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    async def test_a_session_whose_row_is_gone_is_lost(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        sql.execute("DELETE FROM sessions")

        async def never(q: Any) -> None:
            raise AssertionError

        with pytest.raises(bmdb.SessionExpiredError, match="gone from the database"):
            await session.transact(never, connection=pg)
        assert session.expired

    async def test_the_fence_holds_the_session_until_the_commit(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def look(q: Any) -> None:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

        await session.transact(look, connection=pg)
        sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

    @pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
    async def test_isolation(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], isolation: str
    ) -> None:
        async def level(q: Any) -> Any:
            return await q.fetch_value("SHOW transaction_isolation")

        assert await session.transact(level, connection=pg) == "serializable"
        assert await session.transact(level, connection=pg, isolation=isolation) == isolation

    async def test_counted_like_any_other(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        runs: list[int] = []

        async def twice(q: Any) -> None:
            runs.append(1)
            if len(runs) == 1:
                raise psycopg.errors.SerializationFailure

        await session.transact(twice, connection=pg)
        counted = {name: number for name, _, _, number in connection._core.metrics()}
        assert counted["bmdb_transaction_executed"] == 1
        assert counted["bmdb_transaction_retried"] == 1
        assert counted["bmdb_transaction_failed"] == 0

    async def test_an_argument_of_a_kind_that_does_not_fit(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        async def odd(q: Any) -> None:
            await q.fetch("SELECT $1", object())

        with pytest.raises(TypeError, match="adapt"):
            await session.transact(odd, connection=pg)

        async def nul(q: Any) -> None:
            await q.fetch("SELECT $1", "a\0b")

        with pytest.raises(ValueError, match="NUL"):
            await session.transact(nul, connection=pg)

        async def too_few(q: Any) -> None:
            await q.fetch("SELECT $1::int, $2::int", 1)

        with pytest.raises(bmdb.DatabaseError):
            await session.transact(too_few, connection=pg)

    async def test_the_error_of_a_query_is_bmdbs_and_has_psycopgs_as_its_cause(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        async def again(q: Any) -> None:
            await q.execute("INSERT INTO tally VALUES ($1, 0)", 1)

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(again, connection=pg)
        assert (caught.value.sqlstate, caught.value.constraint, caught.value.table) == ("23505", "tally_pkey", "tally")
        assert isinstance(caught.value.__cause__, psycopg.errors.UniqueViolation)

    async def test_the_error_of_the_users_own_statement_stays_psycopgs(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        async def again(q: Any) -> None:
            await pg.execute("INSERT INTO tally VALUES (1, 0)")

        with pytest.raises(psycopg.errors.UniqueViolation):
            await session.transact(again, connection=pg)

    async def test_q_is_no_use_after_its_callback(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        kept: list[Any] = []

        async def keep(q: Any) -> None:
            kept.append(q)

        await session.transact(keep, connection=pg)
        with pytest.raises(bmdb.WorkStateError, match="ended"):
            await kept[0].count_machines()

    async def test_nested_in_another_callback_it_is_refused(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        async def nested(q: Any) -> None:
            await session.transact(nested)

        with pytest.raises(bmdb.WorkStateError, match="inside another"):
            await session.transact(nested, connection=pg)


class TestConflicts:
    async def test_one_in_a_query_is_run_again(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        runs: list[int] = []

        async def add(q: Any) -> None:
            runs.append(1)
            await q.fetch_value("SELECT n FROM tally")
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            await q.execute("UPDATE tally SET n = n + 1000")

        await session.transact(add, connection=pg)
        assert len(runs) == 2
        assert value(sql) == 1001

    async def test_one_of_the_users_own_is_run_again_even_if_swallowed(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        runs: list[int] = []

        async def add(q: Any) -> None:
            runs.append(1)
            cursor = await pg.execute("SELECT n FROM tally")
            await cursor.fetchall()
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            try:
                await pg.execute("UPDATE tally SET n = n + 1000")
            except psycopg.Error:
                with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                    await pg.execute("UPDATE tally SET n = n + 1000")

        await session.transact(add, connection=pg)
        assert len(runs) == 2
        assert value(sql) == 1001

    async def test_wrapped_in_another_exception_it_is_run_again(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        runs: list[int] = []

        async def add(q: Any) -> None:
            runs.append(1)
            await (await pg.execute("SELECT n FROM tally")).fetchall()
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            try:
                await pg.execute("UPDATE tally SET n = n + 1000")
            except psycopg.Error as error:
                raise RuntimeError("wrapped") from error

        await session.transact(add, connection=pg)
        assert value(sql) == 1001

    async def test_at_commit_it_is_run_again(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, database: str
    ) -> None:
        runs: list[int] = []

        async def skewed(q: Any) -> None:
            runs.append(1)
            count = await q.fetch_value("SELECT count(*) FROM tally")
            if len(runs) == 1:
                with psycopg.connect(database) as rival:
                    rival.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                    rival.execute("SELECT count(*) FROM tally")
                    rival.execute("INSERT INTO tally VALUES (100, 1)")
                    await q.execute("INSERT INTO tally VALUES (101, $1)", count)
            else:
                await q.execute("INSERT INTO tally VALUES (101, $1)", count)

        await session.transact(skewed, connection=pg)
        assert len(runs) == 2
        assert sql.execute("SELECT n FROM tally WHERE id = 101").fetchone() == (2,)

    async def test_too_many_exhaust_the_retries(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def overtaken(q: Any) -> None:
            await q.fetch_value("SELECT n FROM tally")
            sql.execute("UPDATE tally SET n = n + 1")
            await q.execute("UPDATE tally SET n = n + 1000")

        with pytest.raises(bmdb.RetriesExhaustedError) as caught:
            await session.transact(overtaken, connection=pg, max_retries=2)
        assert caught.value.attempts == 3
        assert isinstance(caught.value.__cause__, bmdb.DatabaseError)
        assert pg.info.transaction_status is TransactionStatus.IDLE


class TestNoSilentSuccess:
    @pytest.mark.parametrize("by", ["query", "connection"])
    async def test_a_swallowed_error_is_raised(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, by: str
    ) -> None:
        async def swallow(q: Any) -> str:
            await q.execute("UPDATE tally SET n = 7")
            try:
                if by == "query":
                    await q.execute("SELECT 1 / 0")
                else:
                    await pg.execute("SELECT 1 / 0")
            except (psycopg.Error, bmdb.DatabaseError):
                pass
            return "done"

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(swallow, connection=pg)
        assert caught.value.sqlstate == "22012"
        assert value(sql) == 0

    async def test_an_error_rolled_back_to_a_savepoint_is_got_over(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def write(q: Any) -> None:
            try:
                async with pg.transaction():
                    await pg.execute("UPDATE tally SET n = 5")
                    await pg.execute("SELECT 1 / 0")
            except psycopg.errors.DivisionByZero:
                pass
            await pg.execute("UPDATE tally SET n = n + 2")

        await session.transact(write, connection=pg)
        assert value(sql) == 2

    async def test_a_stream_that_is_not_read_to_its_end_commits_nothing(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def unread(q: Any) -> Any:
            await pg.execute("UPDATE tally SET n = 7")
            stream = pg.cursor().stream("SELECT 1 / (x - 3) FROM generate_series(1, 100000) x")
            async for _ in stream:
                break
            return [stream]

        with pytest.raises(bmdb.WorkStateError, match="still running"):
            await session.transact(unread, connection=pg)
        assert value(sql) == 0
        assert pg.closed

    async def test_commit_and_rollback_are_refused_by_psycopg(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def commit(q: Any) -> None:
            await pg.execute("UPDATE tally SET n = 7")
            await pg.commit()

        with pytest.raises(psycopg.ProgrammingError, match="commit"):
            await session.transact(commit, connection=pg)

        async def roll_back(q: Any) -> None:
            await pg.rollback()

        with pytest.raises(psycopg.ProgrammingError, match="rollback"):
            await session.transact(roll_back, connection=pg)
        assert value(sql) == 0

    @pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "-- x\nEND"])
    async def test_ending_it_by_q_is_refused(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], statement: str
    ) -> None:
        async def end(q: Any) -> None:
            await q.execute(statement)

        with pytest.raises(bmdb.WorkStateError, match="begun and ended for you"):
            await session.transact(end, connection=pg)

    async def test_one_statement_at_a_time(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def two(q: Any) -> None:
            await q.execute("UPDATE tally SET n = 7; COMMIT")

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(two, connection=pg)
        assert caught.value.sqlstate == "42601"
        assert value(sql) == 0

    @pytest.mark.parametrize("word", ["COMMIT", "ROLLBACK"])
    async def test_one_who_ends_it_behind_bmdbs_back_is_told_that_nobody_knows(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, word: str
    ) -> None:
        async def end(q: Any) -> None:
            await q.execute("UPDATE tally SET n = 7")
            await pg.execute(word)

        with pytest.raises(bmdb.AmbiguousCommitError, match="itself") as caught:
            await session.transact(end, connection=pg)
        # async only
        assert await caught.value.aresolve() is (word == "COMMIT")
        # end async only
        # sync only
        # assert caught.value.resolve() is (word == "COMMIT")
        # end sync only
        assert value(sql) == (7 if word == "COMMIT" else 0)

    async def test_a_block_left_open_commits_nothing(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        kept: list[Any] = []

        async def leave(q: Any) -> None:
            kept.append(pg.transaction())
            await kept[0].__aenter__()
            await pg.execute("UPDATE tally SET n = 7")

        with pytest.raises(psycopg.ProgrammingError, match="nesting"):
            await session.transact(leave, connection=pg)
        assert value(sql) == 0


class TestAnotherTransaction:
    """A callback that ends the transaction and begins another has ended the fence with it."""

    @pytest.mark.parametrize("ending", ["rollback", "commit"])
    async def test_an_end_is_found_out(
        self,
        session: bmdb.AsyncSession,
        machines: MakeMachines,
        pg: psycopg.AsyncConnection[Any],
        sql: Sql,
        ending: str,
    ) -> None:
        work = await lease(session, machines)

        async def write(q: Any) -> None:
            await pg.execute(f"{ending} and chain")
            await pg.execute("UPDATE tally SET n = 7")

        # The end itself is committed, or it is not and is carried out again, until it is given up.
        if ending == "commit":
            await work.finish(write, connection=pg)
            assert (work.state, events(sql, work.machine)) == ("finished", ["Started", "Finished"])
        else:
            with pytest.raises(bmdb.Error):
                await work.finish(write, connection=pg, max_retries=1)
            assert (work.state, events(sql, work.machine)) == ("active", ["Started"])
        assert value(sql) == 0

    async def test_transact_says_that_it_does_not_know(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
    ) -> None:
        async def write(q: Any) -> None:
            await pg.execute("commit")
            await pg.execute("begin")
            await pg.execute("UPDATE tally SET n = 7")

        with pytest.raises(bmdb.AmbiguousCommitError, match="began another"):
            await session.transact(write, connection=pg)
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    async def test_q_inside_a_pipeline_is_refused(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
    ) -> None:
        async def write(q: Any) -> None:
            async with pg.pipeline():
                await q.count_machines()

        with pytest.raises(bmdb.WorkStateError, match="pipeline"):
            await session.transact(write, connection=pg)


class TestEnds:
    @pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
    async def test_the_end_and_what_the_callback_writes_land_together(
        self,
        session: bmdb.AsyncSession,
        pg: psycopg.AsyncConnection[Any],
        sql: Sql,
        machines: MakeMachines,
        end: str,
    ) -> None:
        work = await lease(session, machines)

        async def commit(q: Any) -> None:
            await pg.execute("UPDATE tally SET n = 7")
            assert events(sql, work.machine) == ["Started"]

        if end == "finish":
            await work.finish(commit, connection=pg)
        elif end == "fail":
            await work.fail("no answer", bmdb.Backoff(60), commit=commit, connection=pg)
        else:
            await work.cancel(commit, connection=pg)
        named = {"finish": "Finished", "fail": "Failed", "cancel": "Canceled"}[end]
        assert work.state == named.lower()
        assert events(sql, work.machine) == ["Started", named]
        assert value(sql) == 7

    @pytest.mark.parametrize("end", ["fail", "cancel"])
    async def test_fail_and_cancel_have_a_callback_without_a_connection_too(
        self, session: bmdb.AsyncSession, sql: Sql, machines: MakeMachines, end: str
    ) -> None:
        work = await lease(session, machines)

        async def commit(q: bmdb.AsyncQueries) -> None:
            assert await q.fetch_value("SHOW transaction_isolation") == "serializable"
            await q.execute("UPDATE tally SET n = 7")

        if end == "fail":
            await work.fail("no answer", bmdb.Backoff(60), commit=commit)
        else:
            await work.cancel(commit)
        assert value(sql) == 7
        assert events(sql, work.machine) == ["Started", "Failed" if end == "fail" else "Canceled"]

    async def test_a_cancel_with_a_callback_raises(
        self, session: bmdb.AsyncSession, sql: Sql, machines: MakeMachines
    ) -> None:
        work = await lease(session, machines)

        async def broken(q: bmdb.AsyncQueries) -> None:
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await work.cancel(broken)
        assert work.state == "active"
        await work.finish()
        with pytest.raises(bmdb.WorkStateError):
            await work.cancel(broken)

    async def test_an_end_without_a_callback(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = await lease(session, machines)
        await work.finish(connection=pg)
        assert events(sql, work.machine) == ["Started", "Finished"]
        assert work.state == "finished"

    async def test_after_an_error_the_work_is_active_and_can_be_ended_again(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = await lease(session, machines)

        async def broken(q: Any) -> None:
            await pg.execute("SELECT 1 / 0")

        with pytest.raises(psycopg.errors.DivisionByZero):
            await work.finish(broken, connection=pg)
        assert work.state == "active"
        await work.finish(connection=pg)
        assert events(sql, work.machine) == ["Started", "Finished"]

    async def test_a_lease_that_is_gone_is_lost_and_the_callback_not_run(
        self, session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = await lease(session, machines)
        sql.execute("DELETE FROM work")

        async def never(q: Any) -> None:
            raise AssertionError

        with pytest.raises(bmdb.LeaseLostError):
            await work.finish(never, connection=pg)
        assert work.lost
        assert pg.info.transaction_status is TransactionStatus.IDLE
