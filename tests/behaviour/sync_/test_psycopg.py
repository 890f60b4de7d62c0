# Generated from tests/behaviour/async_/test_psycopg.py by tools/generate_sync.py: do not edit.
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


def lease(session: bmdb.Session, machines: MakeMachines) -> bmdb.Work:
    machines(1)

    def retrieve(q: bmdb.Queries) -> Any:
        return q.fetch("SELECT machine_id FROM machines")

    return session.work(PROCESS, retrieve)


def events(sql: Sql, machine: UUID) -> list[str]:
    rows = sql.execute("SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp", [machine])
    return [event for (event,) in rows]


class TestTransact:
    def test_what_both_write_lands_together(self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql) -> None:
        def write(q: Any) -> Any:
            assert q.connection is pg
            pg.execute("UPDATE tally SET n = %s WHERE id = 1", [7])
            assert value(sql) == 0
            return q.new_machine().machine_id

        machine = session.transact(write, connection=pg)
        assert value(sql) == 7
        assert sql.execute("SELECT machine_id FROM machines").fetchall() == [(machine,)]

    def test_its_exception_rolls_back_and_surfaces_unchanged(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        error = RuntimeError("mine")

        def write(q: Any) -> None:
            pg.execute("UPDATE tally SET n = 7")
            raise error

        with pytest.raises(RuntimeError) as caught:
            session.transact(write, connection=pg)
        assert caught.value is error
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    def test_a_lost_session_is_refused_before_and_in_the_callback_and_at_commit(
        self, connection: bmdb.Connection, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def overtaken(q: Any) -> None:
            pg.execute("UPDATE tally SET n = 7")
            connection._core.skip_clock(10)

        with pytest.raises(bmdb.SessionExpiredError):
            session.transact(overtaken, connection=pg)
        with pytest.raises(bmdb.SessionExpiredError):
            session.transact(overtaken, connection=pg)
        with connection.start_session() as other:

            def asks(q: Any) -> None:
                connection._core.skip_clock(10)
                q.count_machines()

            with pytest.raises(bmdb.SessionExpiredError):
                other.transact(asks, connection=pg)
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    def test_a_session_whose_row_is_gone_is_lost(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        sql.execute("DELETE FROM sessions")

        def never(q: Any) -> None:
            raise AssertionError

        with pytest.raises(bmdb.SessionExpiredError, match="gone from the database"):
            session.transact(never, connection=pg)
        assert session.expired

    def test_the_fence_holds_the_session_until_the_commit(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def look(q: Any) -> None:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

        session.transact(look, connection=pg)
        sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

    @pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
    def test_isolation(self, session: bmdb.Session, pg: psycopg.Connection[Any], isolation: str) -> None:
        def level(q: Any) -> Any:
            return q.fetch_value("SHOW transaction_isolation")

        assert session.transact(level, connection=pg) == "serializable"
        assert session.transact(level, connection=pg, isolation=isolation) == isolation

    def test_counted_like_any_other(
        self, connection: bmdb.Connection, session: bmdb.Session, pg: psycopg.Connection[Any]
    ) -> None:
        runs: list[int] = []

        def twice(q: Any) -> None:
            runs.append(1)
            if len(runs) == 1:
                raise psycopg.errors.SerializationFailure

        session.transact(twice, connection=pg)
        counted = {name: number for name, _, _, number in connection._core.metrics()}
        assert counted["bmdb_transaction_executed"] == 1
        assert counted["bmdb_transaction_retried"] == 1
        assert counted["bmdb_transaction_failed"] == 0

    def test_an_argument_of_a_kind_that_does_not_fit(self, session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
        def odd(q: Any) -> None:
            q.fetch("SELECT $1", object())

        with pytest.raises(TypeError, match="adapt"):
            session.transact(odd, connection=pg)

        def nul(q: Any) -> None:
            q.fetch("SELECT $1", "a\0b")

        with pytest.raises(ValueError, match="NUL"):
            session.transact(nul, connection=pg)

        def too_few(q: Any) -> None:
            q.fetch("SELECT $1::int, $2::int", 1)

        with pytest.raises(bmdb.DatabaseError):
            session.transact(too_few, connection=pg)

    def test_the_error_of_a_query_is_bmdbs_and_has_psycopgs_as_its_cause(
        self, session: bmdb.Session, pg: psycopg.Connection[Any]
    ) -> None:
        def again(q: Any) -> None:
            q.execute("INSERT INTO tally VALUES ($1, 0)", 1)

        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(again, connection=pg)
        assert (caught.value.sqlstate, caught.value.constraint, caught.value.table) == ("23505", "tally_pkey", "tally")
        assert isinstance(caught.value.__cause__, psycopg.errors.UniqueViolation)

    def test_the_error_of_the_users_own_statement_stays_psycopgs(
        self, session: bmdb.Session, pg: psycopg.Connection[Any]
    ) -> None:
        def again(q: Any) -> None:
            pg.execute("INSERT INTO tally VALUES (1, 0)")

        with pytest.raises(psycopg.errors.UniqueViolation):
            session.transact(again, connection=pg)

    def test_q_is_no_use_after_its_callback(self, session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
        kept: list[Any] = []

        def keep(q: Any) -> None:
            kept.append(q)

        session.transact(keep, connection=pg)
        with pytest.raises(bmdb.WorkStateError, match="ended"):
            kept[0].count_machines()

    def test_nested_in_another_callback_it_is_refused(self, session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
        def nested(q: Any) -> None:
            session.transact(nested)

        with pytest.raises(bmdb.WorkStateError, match="inside another"):
            session.transact(nested, connection=pg)


class TestConflicts:
    def test_one_in_a_query_is_run_again(self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql) -> None:
        runs: list[int] = []

        def add(q: Any) -> None:
            runs.append(1)
            q.fetch_value("SELECT n FROM tally")
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            q.execute("UPDATE tally SET n = n + 1000")

        session.transact(add, connection=pg)
        assert len(runs) == 2
        assert value(sql) == 1001

    def test_one_of_the_users_own_is_run_again_even_if_swallowed(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        runs: list[int] = []

        def add(q: Any) -> None:
            runs.append(1)
            cursor = pg.execute("SELECT n FROM tally")
            cursor.fetchall()
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            try:
                pg.execute("UPDATE tally SET n = n + 1000")
            except psycopg.Error:
                with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                    pg.execute("UPDATE tally SET n = n + 1000")

        session.transact(add, connection=pg)
        assert len(runs) == 2
        assert value(sql) == 1001

    def test_wrapped_in_another_exception_it_is_run_again(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        runs: list[int] = []

        def add(q: Any) -> None:
            runs.append(1)
            pg.execute("SELECT n FROM tally").fetchall()
            if len(runs) == 1:
                sql.execute("UPDATE tally SET n = n + 1")
            try:
                pg.execute("UPDATE tally SET n = n + 1000")
            except psycopg.Error as error:
                raise RuntimeError("wrapped") from error

        session.transact(add, connection=pg)
        assert value(sql) == 1001

    def test_at_commit_it_is_run_again(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, database: str
    ) -> None:
        runs: list[int] = []

        def skewed(q: Any) -> None:
            runs.append(1)
            count = q.fetch_value("SELECT count(*) FROM tally")
            if len(runs) == 1:
                with psycopg.connect(database) as rival:
                    rival.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                    rival.execute("SELECT count(*) FROM tally")
                    rival.execute("INSERT INTO tally VALUES (100, 1)")
                    q.execute("INSERT INTO tally VALUES (101, $1)", count)
            else:
                q.execute("INSERT INTO tally VALUES (101, $1)", count)

        session.transact(skewed, connection=pg)
        assert len(runs) == 2
        assert sql.execute("SELECT n FROM tally WHERE id = 101").fetchone() == (2,)

    def test_too_many_exhaust_the_retries(self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql) -> None:
        def overtaken(q: Any) -> None:
            q.fetch_value("SELECT n FROM tally")
            sql.execute("UPDATE tally SET n = n + 1")
            q.execute("UPDATE tally SET n = n + 1000")

        with pytest.raises(bmdb.RetriesExhaustedError) as caught:
            session.transact(overtaken, connection=pg, max_retries=2)
        assert caught.value.attempts == 3
        assert isinstance(caught.value.__cause__, bmdb.DatabaseError)
        assert pg.info.transaction_status is TransactionStatus.IDLE


class TestNoSilentSuccess:
    @pytest.mark.parametrize("by", ["query", "connection"])
    def test_a_swallowed_error_is_raised(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, by: str
    ) -> None:
        def swallow(q: Any) -> str:
            q.execute("UPDATE tally SET n = 7")
            try:
                if by == "query":
                    q.execute("SELECT 1 / 0")
                else:
                    pg.execute("SELECT 1 / 0")
            except (psycopg.Error, bmdb.DatabaseError):
                pass
            return "done"

        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(swallow, connection=pg)
        assert caught.value.sqlstate == "22012"
        assert value(sql) == 0

    def test_an_error_rolled_back_to_a_savepoint_is_got_over(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def write(q: Any) -> None:
            try:
                with pg.transaction():
                    pg.execute("UPDATE tally SET n = 5")
                    pg.execute("SELECT 1 / 0")
            except psycopg.errors.DivisionByZero:
                pass
            pg.execute("UPDATE tally SET n = n + 2")

        session.transact(write, connection=pg)
        assert value(sql) == 2

    def test_a_stream_that_is_not_read_to_its_end_commits_nothing(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def unread(q: Any) -> Any:
            pg.execute("UPDATE tally SET n = 7")
            stream = pg.cursor().stream("SELECT 1 / (x - 3) FROM generate_series(1, 100000) x")
            for _ in stream:
                break
            return [stream]

        with pytest.raises(bmdb.WorkStateError, match="still running"):
            session.transact(unread, connection=pg)
        assert value(sql) == 0
        assert pg.closed

    def test_commit_and_rollback_are_refused_by_psycopg(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def commit(q: Any) -> None:
            pg.execute("UPDATE tally SET n = 7")
            pg.commit()

        with pytest.raises(psycopg.ProgrammingError, match="commit"):
            session.transact(commit, connection=pg)

        def roll_back(q: Any) -> None:
            pg.rollback()

        with pytest.raises(psycopg.ProgrammingError, match="rollback"):
            session.transact(roll_back, connection=pg)
        assert value(sql) == 0

    @pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "-- x\nEND"])
    def test_ending_it_by_q_is_refused(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], statement: str
    ) -> None:
        def end(q: Any) -> None:
            q.execute(statement)

        with pytest.raises(bmdb.WorkStateError, match="begun and ended for you"):
            session.transact(end, connection=pg)

    def test_one_statement_at_a_time(self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql) -> None:
        def two(q: Any) -> None:
            q.execute("UPDATE tally SET n = 7; COMMIT")

        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(two, connection=pg)
        assert caught.value.sqlstate == "42601"
        assert value(sql) == 0

    @pytest.mark.parametrize("word", ["COMMIT", "ROLLBACK"])
    def test_one_who_ends_it_behind_bmdbs_back_is_told_that_nobody_knows(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, word: str
    ) -> None:
        def end(q: Any) -> None:
            q.execute("UPDATE tally SET n = 7")
            pg.execute(word)

        with pytest.raises(bmdb.AmbiguousCommitError, match="itself") as caught:
            session.transact(end, connection=pg)
        assert caught.value.resolve() is (word == "COMMIT")
        assert value(sql) == (7 if word == "COMMIT" else 0)

    def test_a_block_left_open_commits_nothing(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        kept: list[Any] = []

        def leave(q: Any) -> None:
            kept.append(pg.transaction())
            kept[0].__enter__()
            pg.execute("UPDATE tally SET n = 7")

        with pytest.raises(psycopg.ProgrammingError, match="nesting"):
            session.transact(leave, connection=pg)
        assert value(sql) == 0


class TestAnotherTransaction:
    """A callback that ends the transaction and begins another has ended the fence with it."""

    @pytest.mark.parametrize("ending", ["rollback", "commit"])
    def test_an_end_is_found_out(
        self,
        session: bmdb.Session,
        machines: MakeMachines,
        pg: psycopg.Connection[Any],
        sql: Sql,
        ending: str,
    ) -> None:
        work = lease(session, machines)

        def write(q: Any) -> None:
            pg.execute(f"{ending} and chain")
            pg.execute("UPDATE tally SET n = 7")

        # The end itself is committed, or it is not and is carried out again, until it is given up.
        if ending == "commit":
            work.finish(write, connection=pg)
            assert (work.state, events(sql, work.machine)) == ("finished", ["Started", "Finished"])
        else:
            with pytest.raises(bmdb.Error):
                work.finish(write, connection=pg, max_retries=1)
            assert (work.state, events(sql, work.machine)) == ("active", ["Started"])
        assert value(sql) == 0

    def test_transact_says_that_it_does_not_know(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
    ) -> None:
        def write(q: Any) -> None:
            pg.execute("commit")
            pg.execute("begin")
            pg.execute("UPDATE tally SET n = 7")

        with pytest.raises(bmdb.AmbiguousCommitError, match="began another"):
            session.transact(write, connection=pg)
        assert value(sql) == 0
        assert pg.info.transaction_status is TransactionStatus.IDLE

    def test_q_inside_a_pipeline_is_refused(self, session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
        def write(q: Any) -> None:
            with pg.pipeline():
                q.count_machines()

        with pytest.raises(bmdb.WorkStateError, match="pipeline"):
            session.transact(write, connection=pg)


class TestEnds:
    @pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
    def test_the_end_and_what_the_callback_writes_land_together(
        self,
        session: bmdb.Session,
        pg: psycopg.Connection[Any],
        sql: Sql,
        machines: MakeMachines,
        end: str,
    ) -> None:
        work = lease(session, machines)

        def commit(q: Any) -> None:
            pg.execute("UPDATE tally SET n = 7")
            assert events(sql, work.machine) == ["Started"]

        if end == "finish":
            work.finish(commit, connection=pg)
        elif end == "fail":
            work.fail("no answer", bmdb.Backoff(60), commit=commit, connection=pg)
        else:
            work.cancel(commit, connection=pg)
        named = {"finish": "Finished", "fail": "Failed", "cancel": "Canceled"}[end]
        assert work.state == named.lower()
        assert events(sql, work.machine) == ["Started", named]
        assert value(sql) == 7

    @pytest.mark.parametrize("end", ["fail", "cancel"])
    def test_fail_and_cancel_have_a_callback_without_a_connection_too(
        self, session: bmdb.Session, sql: Sql, machines: MakeMachines, end: str
    ) -> None:
        work = lease(session, machines)

        def commit(q: bmdb.Queries) -> None:
            assert q.fetch_value("SHOW transaction_isolation") == "serializable"
            q.execute("UPDATE tally SET n = 7")

        if end == "fail":
            work.fail("no answer", bmdb.Backoff(60), commit=commit)
        else:
            work.cancel(commit)
        assert value(sql) == 7
        assert events(sql, work.machine) == ["Started", "Failed" if end == "fail" else "Canceled"]

    def test_a_cancel_with_a_callback_raises(self, session: bmdb.Session, sql: Sql, machines: MakeMachines) -> None:
        work = lease(session, machines)

        def broken(q: bmdb.Queries) -> None:
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            work.cancel(broken)
        assert work.state == "active"
        work.finish()
        with pytest.raises(bmdb.WorkStateError):
            work.cancel(broken)

    def test_an_end_without_a_callback(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = lease(session, machines)
        work.finish(connection=pg)
        assert events(sql, work.machine) == ["Started", "Finished"]
        assert work.state == "finished"

    def test_after_an_error_the_work_is_active_and_can_be_ended_again(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = lease(session, machines)

        def broken(q: Any) -> None:
            pg.execute("SELECT 1 / 0")

        with pytest.raises(psycopg.errors.DivisionByZero):
            work.finish(broken, connection=pg)
        assert work.state == "active"
        work.finish(connection=pg)
        assert events(sql, work.machine) == ["Started", "Finished"]

    def test_a_lease_that_is_gone_is_lost_and_the_callback_not_run(
        self, session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, machines: MakeMachines
    ) -> None:
        work = lease(session, machines)
        sql.execute("DELETE FROM work")

        def never(q: Any) -> None:
            raise AssertionError

        with pytest.raises(bmdb.LeaseLostError):
            work.finish(never, connection=pg)
        assert work.lost
        assert pg.info.transaction_status is TransactionStatus.IDLE
