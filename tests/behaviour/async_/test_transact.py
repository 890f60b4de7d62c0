"""What a transaction with a callback promises: its value, its exception, its isolation, and an end made for it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from tests.concurrency import together_async
from tests.conftest import MakeMachines
from tests.drivers import Driver

import bmdb

Sql = psycopg.Connection[Any]
# async only
pytestmark = pytest.mark.uvloop
# end async only
LEVELS = ["serializable", "repeatable read", "read committed"]


async def level(q: bmdb.AsyncQueries) -> str:
    return str(await q.fetch_value("SHOW transaction_isolation"))


def count(sql: Sql) -> int:
    row = sql.execute("SELECT count(*) FROM machines").fetchone()
    assert row is not None
    return int(row[0])


class TestOutcome:
    async def test_it_returns_what_the_callback_returned(self, session: bmdb.AsyncSession, driver: Driver) -> None:
        value = object()
        assert await session.transact(lambda q: value, **driver) is value
        assert await session.transact(lambda q: None, **driver) is None

    async def test_what_it_wrote_is_there_for_others_only_after_it_returned(
        self, session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        async def write(q: bmdb.AsyncQueries) -> int:
            await q.new_machine()
            assert count(sql) == 0
            return await q.count_machines()

        assert await session.transact(write, **driver) == 1
        assert count(sql) == 1

    @pytest.mark.parametrize("kind", [RuntimeError, KeyError, bmdb.NothingToDo, KeyboardInterrupt, SystemExit])
    async def test_its_own_exception_surfaces_as_the_same_object_and_nothing_lands(
        self, kind: type[BaseException], session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        error = kind("mine")
        runs = []

        async def write_and_raise(q: bmdb.AsyncQueries) -> None:
            runs.append(await q.new_machine())
            raise error

        with pytest.raises(kind) as caught:
            await session.transact(write_and_raise, **driver)
        assert caught.value is error
        assert error.__cause__ is None and error.__context__ is None
        assert len(runs) == 1 and count(sql) == 0
        assert await session.transact(lambda q: q.count_machines(), **driver) == 0

    async def test_the_error_of_a_statement_surfaces_as_the_same_object(
        self, session: bmdb.AsyncSession, driver: Driver
    ) -> None:
        seen: list[BaseException] = []

        async def divide(q: bmdb.AsyncQueries) -> None:
            try:
                await q.execute("SELECT 1 / 0")
            except bmdb.DatabaseError as error:
                seen.append(error)
                raise

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(divide, **driver)
        assert [caught.value] == seen
        assert caught.value.sqlstate == "22012"

    async def test_calls_side_by_side_have_transactions_of_their_own(
        self, session: bmdb.AsyncSession, sql: Sql
    ) -> None:
        both = asyncio.Barrier(2)

        async def write(q: bmdb.AsyncQueries) -> int:
            await q.new_machine()
            await both.wait()
            return await q.count_machines()

        async def run() -> int:
            return await session.transact(write, isolation="repeatable read")

        assert await together_async(run, run) == [1, 1]
        assert count(sql) == 2


class TestIsolation:
    async def test_serializable_by_default(self, session: bmdb.AsyncSession, driver: Driver) -> None:
        assert await session.transact(level, **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    async def test_of_one_transaction(self, wanted: str, session: bmdb.AsyncSession, driver: Driver) -> None:
        assert await session.transact(level, isolation=wanted, **driver) == wanted
        assert await session.transact(level, **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    async def test_of_a_connection(self, wanted: str, database: str, driver: Driver) -> None:
        async with (
            await bmdb.AsyncConnection.connect(database, component="test", isolation=wanted) as connection,
            await connection.start_session() as session,
        ):
            assert await session.transact(level, **driver) == wanted
            assert await session.transact(level, isolation="serializable", **driver) == "serializable"

    @pytest.mark.parametrize("wanted", LEVELS)
    async def test_of_the_commit_of_a_finish(
        self, wanted: str, session: bmdb.AsyncSession, machines: MakeMachines, driver: Driver
    ) -> None:
        rack = machines(1)
        seen: list[str] = []
        work = await session.work("UnitTest1", lambda q: rack)

        async def commit(q: bmdb.AsyncQueries) -> None:
            seen.append(await level(q))

        await work.finish(commit, isolation=wanted, **driver)
        assert seen == [wanted]

    @pytest.mark.parametrize(
        ("wanted", "actual"),
        [
            ("serializable", "serializable"),
            ("repeatable read", "repeatable read"),
            ("read committed", "repeatable read"),
        ],
    )
    async def test_of_a_retrieval_is_never_below_one_snapshot(
        self, wanted: str, actual: str, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        rack = machines(1)
        seen: list[str] = []

        async def retrieve(q: bmdb.AsyncQueries) -> list[Any]:
            seen.append(await level(q))
            return rack

        await (await session.work("UnitTest1", retrieve, isolation=wanted)).cancel()
        assert seen == [actual]

    async def test_a_snapshot_does_not_move(
        self, session: bmdb.AsyncSession, machines: MakeMachines, driver: Driver
    ) -> None:
        async def look_twice(q: bmdb.AsyncQueries) -> tuple[int, int]:
            before = await q.count_machines()
            machines(1)
            return before, await q.count_machines()

        assert await session.transact(look_twice, isolation="repeatable read", **driver) == (0, 0)
        assert await session.transact(look_twice, isolation="read committed", **driver) == (1, 2)


class TestRetries:
    async def test_an_error_that_asks_for_it_runs_the_callback_again_from_the_start(
        self, session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        runs = []

        async def conflict_twice(q: bmdb.AsyncQueries) -> int:
            runs.append(await q.count_machines())
            await q.new_machine()
            if len(runs) < 3:
                await q.execute("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")
            return len(runs)

        assert await session.transact(conflict_twice, **driver) == 3
        assert runs == [0, 0, 0]
        assert count(sql) == 1

    @pytest.mark.parametrize("how", ["cause", "context"])
    async def test_so_does_an_exception_that_was_caused_by_one(
        self, how: str, session: bmdb.AsyncSession, driver: Driver
    ) -> None:
        runs = []

        def wrap(q: bmdb.AsyncQueries) -> int:
            runs.append(1)
            try:
                if len(runs) < 2:
                    raise bmdb.DatabaseError("again", "40P01")
            except bmdb.DatabaseError as error:
                if how == "cause":
                    raise RuntimeError("wrapped") from error
                raise RuntimeError("wrapped")  # noqa: B904 - the point of the test
            return len(runs)

        assert await session.transact(wrap, **driver) == 2

    async def test_an_exception_caused_by_another_error_does_not(
        self, session: bmdb.AsyncSession, driver: Driver
    ) -> None:
        runs = []
        error = RuntimeError("wrapped")

        def wrap(q: bmdb.AsyncQueries) -> None:
            runs.append(1)
            raise error from bmdb.DatabaseError("no", "23505")

        with pytest.raises(RuntimeError) as caught:
            await session.transact(wrap, **driver)
        assert caught.value is error and len(runs) == 1

    @pytest.mark.parametrize("retries", [0, 3])
    async def test_they_are_bounded_and_the_last_error_is_told(
        self, retries: int, session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        runs = []

        async def conflict(q: bmdb.AsyncQueries) -> None:
            runs.append(1)
            await q.new_machine()
            raise bmdb.DatabaseError(f"conflict {len(runs)}", "40001")

        with pytest.raises(bmdb.RetriesExhaustedError, match=str(retries + 1)) as caught:
            await session.transact(conflict, max_retries=retries, **driver)
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
    async def test_a_statement_that_would_end_it_is_refused_and_it_goes_on(
        self, statement: str, session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        async def write(q: bmdb.AsyncQueries) -> None:
            await q.new_machine()
            for run in [q.execute, q.fetch, q.fetch_one, q.fetch_value]:
                with pytest.raises(bmdb.WorkStateError, match="return from the callback to commit, raise to roll back"):
                    await run(statement)
            assert count(sql) == 0
            await q.new_machine()

        await session.transact(write, **driver)
        assert count(sql) == 2

    @pytest.mark.parametrize(
        ("statement", "sqlstate"),
        [("SELECT 1; COMMIT", "42601"), ("DO $$ BEGIN COMMIT; END $$", "2D000")],
    )
    async def test_nor_can_it_be_ended_behind_another_statement(
        self, statement: str, sqlstate: str, session: bmdb.AsyncSession, sql: Sql, driver: Driver
    ) -> None:
        async def write(q: bmdb.AsyncQueries) -> None:
            await q.new_machine()
            await q.execute(statement)

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(write, **driver)
        assert caught.value.sqlstate == sqlstate
        assert count(sql) == 0

    async def test_savepoints_are_the_users(self, session: bmdb.AsyncSession, sql: Sql, driver: Driver) -> None:
        async def write(q: bmdb.AsyncQueries) -> str:
            machine = (await q.new_machine()).machine_id
            await q.execute("SAVEPOINT mine")
            with pytest.raises(bmdb.DatabaseError):
                await q.execute("INSERT INTO machines (machine_id) VALUES ($1)", machine)
            await q.execute("ROLLBACK TO SAVEPOINT mine")
            await q.new_machine()
            await q.execute("RELEASE SAVEPOINT mine")
            return "done"

        assert await session.transact(write, **driver) == "done"
        assert count(sql) == 2

    async def test_its_queries_end_with_it(self, session: bmdb.AsyncSession, sql: Sql, driver: Driver) -> None:
        kept: list[bmdb.AsyncQueries] = []
        await session.transact(kept.append, **driver)
        late: list[Callable[[], Awaitable[object]]] = [
            kept[0].new_machine,
            lambda: kept[0].execute("DELETE FROM machines"),
        ]
        for run in late:
            with pytest.raises(bmdb.WorkStateError, match="use q only inside its callback"):
                await run()
        assert count(sql) == 0

    async def test_so_do_those_of_an_attempt_that_failed(self, session: bmdb.AsyncSession, driver: Driver) -> None:
        kept: list[bmdb.AsyncQueries] = []

        def fail(q: bmdb.AsyncQueries) -> None:
            kept.append(q)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await session.transact(fail, **driver)
        with pytest.raises(bmdb.WorkStateError):
            await kept[0].count_machines()


class TestDatabaseError:
    async def raised(
        self, session: bmdb.AsyncSession, driver: Driver, statement: str, *params: object
    ) -> bmdb.DatabaseError:
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.execute(statement, *params), **driver)
        return caught.value

    async def test_it_has_what_the_server_said(self, session: bmdb.AsyncSession, driver: Driver) -> None:
        error = await self.raised(
            session,
            driver,
            "DO $$ BEGIN RAISE EXCEPTION 'too hot' USING ERRCODE = 'UT123', DETAIL = '90 degrees',"
            " HINT = 'open a window', CONSTRAINT = 'cool', TABLE = 'rooms'; END $$",
        )
        assert "too hot" in str(error)
        assert error.sqlstate == "UT123"
        assert (error.detail, error.hint) == ("90 degrees", "open a window")
        assert (error.constraint, error.table) == ("cool", "rooms")

    async def test_it_names_the_constraint(
        self, session: bmdb.AsyncSession, driver: Driver, machines: MakeMachines
    ) -> None:
        error = await self.raised(session, driver, "INSERT INTO machines (machine_id) VALUES ($1)", machines(1)[0])
        assert (error.sqlstate, error.constraint, error.table) == ("23505", "machines_pkey", "machines")
        assert error.hint is None

    async def test_what_the_server_did_not_say_is_none(self, session: bmdb.AsyncSession, driver: Driver) -> None:
        error = await self.raised(session, driver, "SELECT 1 / 0")
        assert (error.constraint, error.table, error.detail, error.hint) == (None, None, None, None)

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
    async def test_it_survives_a_copy(self, again: Any, session: bmdb.AsyncSession, driver: Driver) -> None:
        error = await self.raised(
            session, driver, "INSERT INTO work VALUES (gen_random_uuid(), 'x', gen_random_uuid(), 1)"
        )
        twin = again(error)
        assert type(twin) is bmdb.DatabaseError and str(twin) == str(error)
        fields = ("sqlstate", "constraint", "detail", "hint", "table")
        assert [getattr(twin, field) for field in fields] == [getattr(error, field) for field in fields]
        assert twin.constraint is not None
