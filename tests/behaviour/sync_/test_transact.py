# Generated from tests/behaviour/async_/test_transact.py by tools/generate_sync.py: do not edit.
"""What a transaction with a callback promises: its value, its exception, its isolation, and an end made for it."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.concurrency import together
from tests.conftest import MakeMachines
from tests.drivers import Driver

import bmdb

Sql = psycopg.Connection[Any]
LEVELS = ["serializable", "repeatable read", "read committed"]


def level(q: bmdb.Queries) -> str:
    return str(q.fetch_value("SHOW transaction_isolation"))


def count(sql: Sql) -> int:
    row = sql.execute("SELECT count(*) FROM machines").fetchone()
    assert row is not None
    return int(row[0])


class TestOutcome:
    def test_it_returns_what_the_callback_returned(self, session: bmdb.Session, driver: Driver) -> None:
        value = object()
        assert session.transact(lambda q: value, **driver) is value
        assert session.transact(lambda q: None, **driver) is None

    def test_what_it_wrote_is_there_for_others_only_after_it_returned(
        self, session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        def write(q: bmdb.Queries) -> int:
            q.new_machine()
            assert count(sql) == 0
            return q.count_machines()

        assert session.transact(write, **driver) == 1
        assert count(sql) == 1

    @pytest.mark.parametrize("kind", [RuntimeError, KeyError, bmdb.NothingToDo, KeyboardInterrupt, SystemExit])
    def test_its_own_exception_surfaces_as_the_same_object_and_nothing_lands(
        self, kind: type[BaseException], session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        error = kind("mine")
        runs = []

        def write_and_raise(q: bmdb.Queries) -> None:
            runs.append(q.new_machine())
            raise error

        with pytest.raises(kind) as caught:
            session.transact(write_and_raise, **driver)
        assert caught.value is error
        assert error.__cause__ is None and error.__context__ is None
        assert len(runs) == 1 and count(sql) == 0
        assert session.transact(lambda q: q.count_machines(), **driver) == 0

    def test_the_error_of_a_statement_surfaces_as_the_same_object(self, session: bmdb.Session, driver: Driver) -> None:
        seen: list[BaseException] = []

        def divide(q: bmdb.Queries) -> None:
            try:
                q.execute("SELECT 1 / 0")
            except bmdb.DatabaseError as error:
                seen.append(error)
                raise

        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(divide, **driver)
        assert [caught.value] == seen
        assert caught.value.sqlstate == "22012"

    def test_calls_side_by_side_have_transactions_of_their_own(self, session: bmdb.Session, sql: Sql) -> None:
        both = threading.Barrier(2)

        def write(q: bmdb.Queries) -> int:
            q.new_machine()
            both.wait()
            return q.count_machines()

        def run() -> int:
            return session.transact(write, isolation="repeatable read")

        assert together(run, run) == [1, 1]
        assert count(sql) == 2


class TestIsolation:
    def test_serializable_by_default(self, session: bmdb.Session, driver: Driver) -> None:
        assert session.transact(level, **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    def test_of_one_transaction(self, wanted: str, session: bmdb.Session, driver: Driver) -> None:
        assert session.transact(level, isolation=wanted, **driver) == wanted
        assert session.transact(level, **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    def test_of_a_connection(self, wanted: str, database: str, driver: Driver) -> None:
        with (
            bmdb.connect(database, component="test", isolation=wanted) as connection,
            connection.start_session() as session,
        ):
            assert session.transact(level, **driver) == wanted
            assert session.transact(level, isolation="serializable", **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    def test_of_the_commit_of_a_finish(
        self, wanted: str, session: bmdb.Session, machines: MakeMachines, driver: Driver
    ) -> None:
        rack = machines(1)
        seen: list[str] = []
        work = session.work("UnitTest1", lambda q: rack)

        def commit(q: bmdb.Queries) -> None:
            seen.append(level(q))

        work.finish(commit, isolation=wanted, **driver)
        assert seen == [wanted]

    @pytest.mark.parametrize(
        ("wanted", "actual"),
        [
            ("serializable", "serializable"),
            ("repeatable read", "repeatable read"),
            ("read committed", "repeatable read"),
        ],
    )
    def test_of_a_retrieval_is_never_below_one_snapshot(
        self, wanted: str, actual: str, session: bmdb.Session, machines: MakeMachines
    ) -> None:
        rack = machines(1)
        seen: list[str] = []

        def retrieve(q: bmdb.Queries) -> list[Any]:
            seen.append(level(q))
            return rack

        session.work("UnitTest1", retrieve, isolation=wanted).cancel()
        assert seen == [actual]

    def test_a_snapshot_does_not_move(self, session: bmdb.Session, machines: MakeMachines, driver: Driver) -> None:
        def look_twice(q: bmdb.Queries) -> tuple[int, int]:
            before = q.count_machines()
            machines(1)
            return before, q.count_machines()

        assert session.transact(look_twice, isolation="repeatable read", **driver) == (0, 0)
        assert session.transact(look_twice, isolation="read committed", **driver) == (1, 2)


class TestRetries:
    def test_an_error_that_asks_for_it_runs_the_callback_again_from_the_start(
        self, session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        runs = []

        def conflict_twice(q: bmdb.Queries) -> int:
            runs.append(q.count_machines())
            q.new_machine()
            if len(runs) < 3:
                q.execute("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")
            return len(runs)

        assert session.transact(conflict_twice, **driver) == 3
        assert runs == [0, 0, 0]
        assert count(sql) == 1

    @pytest.mark.parametrize("how", ["cause", "context"])
    def test_so_does_an_exception_that_was_caused_by_one(self, how: str, session: bmdb.Session, driver: Driver) -> None:
        runs = []

        def wrap(q: bmdb.Queries) -> int:
            runs.append(1)
            try:
                if len(runs) < 2:
                    raise bmdb.DatabaseError("again", "40P01")
            except bmdb.DatabaseError as error:
                if how == "cause":
                    raise RuntimeError("wrapped") from error
                raise RuntimeError("wrapped")  # noqa: B904 - the point of the test
            return len(runs)

        assert session.transact(wrap, **driver) == 2

    def test_an_exception_caused_by_another_error_does_not(self, session: bmdb.Session, driver: Driver) -> None:
        runs = []
        error = RuntimeError("wrapped")

        def wrap(q: bmdb.Queries) -> None:
            runs.append(1)
            raise error from bmdb.DatabaseError("no", "23505")

        with pytest.raises(RuntimeError) as caught:
            session.transact(wrap, **driver)
        assert caught.value is error and len(runs) == 1

    @pytest.mark.parametrize("retries", [0, 3])
    def test_they_are_bounded_and_the_last_error_is_told(
        self, retries: int, session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        runs = []

        def conflict(q: bmdb.Queries) -> None:
            runs.append(1)
            q.new_machine()
            raise bmdb.DatabaseError(f"conflict {len(runs)}", "40001")

        with pytest.raises(bmdb.RetriesExhaustedError, match=str(retries + 1)) as caught:
            session.transact(conflict, max_retries=retries, **driver)
        assert caught.value.attempts == len(runs) == retries + 1
        assert count(sql) == 0


class TestBoundaries:
    @pytest.mark.parametrize(
        "statement",
        [
            "COMMIT", "commit;", "END", "ABORT", "ROLLBACK", "rollback work", "BEGIN", "START TRANSACTION",
            "PREPARE TRANSACTION 'x'", "/* now */ COMMIT", "-- now\nCOMMIT", " ; COMMIT", "ROLLBACK AND CHAIN",
        ],
    )  # fmt: skip
    def test_a_statement_that_would_end_it_is_refused_and_it_goes_on(
        self, statement: str, session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        def write(q: bmdb.Queries) -> None:
            q.new_machine()
            for run in [q.execute, q.fetch, q.fetch_one, q.fetch_value]:
                with pytest.raises(bmdb.WorkStateError, match="return from the callback to commit, raise to roll back"):
                    run(statement)
            assert count(sql) == 0
            q.new_machine()

        session.transact(write, **driver)
        assert count(sql) == 2

    @pytest.mark.parametrize(
        ("statement", "sqlstate"),
        [("SELECT 1; COMMIT", "42601"), ("DO $$ BEGIN COMMIT; END $$", "2D000")],
    )
    def test_nor_can_it_be_ended_behind_another_statement(
        self, statement: str, sqlstate: str, session: bmdb.Session, sql: Sql, driver: Driver
    ) -> None:
        def write(q: bmdb.Queries) -> None:
            q.new_machine()
            q.execute(statement)

        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(write, **driver)
        assert caught.value.sqlstate == sqlstate
        assert count(sql) == 0

    def test_savepoints_are_the_users(self, session: bmdb.Session, sql: Sql, driver: Driver) -> None:
        def write(q: bmdb.Queries) -> str:
            machine = q.new_machine().machine_id
            q.execute("SAVEPOINT mine")
            with pytest.raises(bmdb.DatabaseError):
                q.execute("INSERT INTO machines (machine_id) VALUES ($1)", machine)
            q.execute("ROLLBACK TO SAVEPOINT mine")
            q.new_machine()
            q.execute("RELEASE SAVEPOINT mine")
            return "done"

        assert session.transact(write, **driver) == "done"
        assert count(sql) == 2

    def test_its_queries_end_with_it(self, session: bmdb.Session, sql: Sql, driver: Driver) -> None:
        kept: list[bmdb.Queries] = []
        session.transact(kept.append, **driver)
        late: list[Callable[[], object]] = [
            kept[0].new_machine,
            lambda: kept[0].execute("DELETE FROM machines"),
        ]
        for run in late:
            with pytest.raises(bmdb.WorkStateError, match="use q only inside its callback"):
                run()
        assert count(sql) == 0

    def test_so_do_those_of_an_attempt_that_failed(self, session: bmdb.Session, driver: Driver) -> None:
        kept: list[bmdb.Queries] = []

        def fail(q: bmdb.Queries) -> None:
            kept.append(q)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            session.transact(fail, **driver)
        with pytest.raises(bmdb.WorkStateError):
            kept[0].count_machines()


class TestDatabaseError:
    def raised(self, session: bmdb.Session, driver: Driver, statement: str, *params: object) -> bmdb.DatabaseError:
        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(lambda q: q.execute(statement, *params), **driver)
        return caught.value

    def test_it_has_what_the_server_said(self, session: bmdb.Session, driver: Driver) -> None:
        error = self.raised(
            session,
            driver,
            "DO $$ BEGIN RAISE EXCEPTION 'too hot' USING ERRCODE = 'UT123', DETAIL = '90 degrees',"
            " HINT = 'open a window', CONSTRAINT = 'cool', TABLE = 'rooms'; END $$",
        )
        assert "too hot" in str(error)
        assert error.sqlstate == "UT123"
        assert (error.detail, error.hint) == ("90 degrees", "open a window")
        assert (error.constraint, error.table) == ("cool", "rooms")

    def test_it_names_the_constraint(self, session: bmdb.Session, driver: Driver, machines: MakeMachines) -> None:
        error = self.raised(session, driver, "INSERT INTO machines (machine_id) VALUES ($1)", machines(1)[0])
        assert (error.sqlstate, error.constraint, error.table) == ("23505", "machines_pkey", "machines")
        assert error.hint is None

    def test_what_the_server_did_not_say_is_none(self, session: bmdb.Session, driver: Driver) -> None:
        error = self.raised(session, driver, "SELECT 1 / 0")
        assert (error.constraint, error.table, error.detail, error.hint) == (None, None, None, None)

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_it_survives_a_copy(self, again: Any, session: bmdb.Session, driver: Driver) -> None:
        error = self.raised(session, driver, "INSERT INTO work VALUES (gen_random_uuid(), 'x', gen_random_uuid(), 1)")
        twin = again(error)
        assert type(twin) is bmdb.DatabaseError and str(twin) == str(error)
        fields = ("sqlstate", "constraint", "detail", "hint", "table")
        assert [getattr(twin, field) for field in fields] == [getattr(error, field) for field in fields]
        assert twin.constraint is not None
