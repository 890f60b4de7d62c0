"""Bad input: one clear exception that says what to do instead, and nothing half-done.

What can be wrong about reaching a server is in test_connect, about its schema in test_migrations, about values of SQL
types in test_values.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

# sync only
# from tests.callbacks import CoroutineCall, async_generator_function, coroutine_function
# end sync only
# async only
from tests.callbacks import async_generator_function

# end async only
from tests.conftest import MakeMachines
from tests.processes import eventually_async
from tests.proxy import Proxy

import bmdb

PROCESS = "UnitTest1"
NOBODY = UUID(int=7)
BACKOFF = bmdb.Backoff(60)
Sql = psycopg.Connection[Any]

TABLES = ["machines", "sessions", "work", "work_token", "work_history", "work_backoff", "machine_hardware_report"]


def contents(sql: Sql) -> dict[str, list[Any]]:
    """All rows of the tables that something could be left in, apart from what a heartbeat changes."""
    columns = {"sessions": "session_id"}
    statements = {table: f"SELECT {columns.get(table, '*')} FROM {table}" for table in TABLES}
    return {table: sorted(sql.execute(text).fetchall(), key=repr) for table, text in statements.items()}


@pytest.fixture
async def unchanged(sql: Sql, session: bmdb.AsyncSession, machine: UUID) -> AsyncIterator[None]:
    """The test must leave the database as it found it, and the session usable."""
    before = contents(sql)
    yield
    assert contents(sql) == before
    assert await session.transact(lambda q: q.count_machines()) == 1


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    return machines(1)[0]


def generator_function(q: bmdb.AsyncQueries) -> Iterator[UUID]:
    yield uuid4()


NO_CALLBACKS: list[tuple[Any, str]] = [
    # sync only
    # (coroutine_function, "async def.*use the Async classes"),
    # (partial(coroutine_function), "async def.*use the Async classes"),
    # (CoroutineCall(), "async def.*use the Async classes"),
    # (CoroutineCall().method, "async def.*use the Async classes"),
    # end sync only
    (generator_function, "generator function.*return a list"),
    (partial(generator_function), "generator function.*return a list"),
    (async_generator_function, "generator function.*return a list"),
    ("SELECT 1", "must be callable, not str"),
    (None, "must be callable, not NoneType"),
]
CALLBACK_IDS = [
    # sync only
    # "async", "partial-async", "async-call", "async-method",
    # end sync only
    "generator", "partial-generator", "async-generator", "str", "None",
]  # fmt: skip


@pytest.mark.direct("it waits for what a connection is set to at the server itself")
class TestCallbacks:
    """Refused before BEGIN: nothing at all reaches the server."""

    @pytest.fixture
    async def silent(self, database: str, proxy: Proxy) -> AsyncIterator[bmdb.AsyncSession]:
        """A session of a connection that must not send anything but heartbeats during the test."""
        async with (
            await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection,
            await connection.start_session(interval=60) as session,
        ):
            # The heartbeat opens its connection in its own time; this is the last that it sends for that.
            await eventually_async(
                lambda: any("default_transaction_read_only" in statement.text for statement in proxy.statements())
            )
            before = [statement.text for statement in proxy.statements()]
            yield session
            after = [statement.text for statement in proxy.statements()]
            assert [text for text in after[len(before) :] if not text.startswith("UPDATE sessions")] == []

    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS, ids=CALLBACK_IDS)
    async def test_of_transact(self, callback: Any, words: str, silent: bmdb.AsyncSession) -> None:
        with pytest.raises(TypeError, match=words):
            await silent.transact(callback)

    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS, ids=CALLBACK_IDS)
    async def test_of_work(self, callback: Any, words: str, silent: bmdb.AsyncSession) -> None:
        # Nothing at all may stand for what the Process declares.
        with pytest.raises(TypeError, match="which machines" if callback is None else words):
            await silent.work(PROCESS, callback)

    @pytest.mark.usefixtures("machine")
    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS[:-1], ids=CALLBACK_IDS[:-1])
    async def test_of_finish(
        self, callback: Any, words: str, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        work = await session.work(PROCESS, lambda q: [machine])
        before = contents(sql)
        with pytest.raises(TypeError, match=words):
            await work.finish(callback)
        assert work.state == "active" and contents(sql) == before
        await work.finish()

    @pytest.mark.usefixtures("unchanged")
    @pytest.mark.parametrize(
        ("callback", "words"),
        [
            # sync only
            # (lambda q: coroutine_function(q), "returned a coroutine"),
            # end sync only
            # async only
            # Written as an async def, it would hand out a coroutine that nobody awaits in its turn.
            (lambda q: q.count_machines(), "returned a coroutine"),
            # end async only
            (lambda q: (row for row in [q]), "returned a generator.*return a list"),
        ],
        ids=["coroutine", "generator"],
    )
    async def test_one_that_returns_what_would_run_too_late(
        self, callback: Callable[[bmdb.AsyncQueries], Any], words: str, session: bmdb.AsyncSession
    ) -> None:
        async def write(q: bmdb.AsyncQueries) -> Any:
            await q.new_machine()
            return callback(q)

        with pytest.raises(TypeError, match=words):
            await session.transact(write)


async def write_and_look(look: Callable[[], Awaitable[object]], q: bmdb.AsyncQueries) -> None:
    await q.new_machine()
    await look()


class TestNesting:
    """The transaction of a callback is the only one of its connection while the callback runs."""

    @pytest.mark.usefixtures("unchanged")
    async def test_looking_at_the_database_beside_it(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machine: UUID
    ) -> None:
        looks: list[Callable[[], Awaitable[object]]] = [
            connection.statistics,
            lambda: connection.history_of(machine),
            lambda: session.transact(lambda q: q.new_machine()),
            lambda: session.work(PROCESS, lambda q: [machine]),
            session.close,
        ]
        for look in looks:
            with pytest.raises(bmdb.WorkStateError, match="use the q that the callback was given"):
                await session.transact(partial(write_and_look, look))

    async def test_a_finish_inside_another_transaction(
        self, session: bmdb.AsyncSession, machine: UUID, sql: Sql
    ) -> None:
        work = await session.work(PROCESS, lambda q: [machine])
        before = contents(sql)

        async def write(q: bmdb.AsyncQueries) -> None:
            await q.new_machine()
            await work.finish()

        with pytest.raises(bmdb.WorkStateError, match="use the q that the callback was given") as caught:
            await session.transact(write)
        # Also while somebody still holds the exception, and with it the frames that it passed through.
        assert caught.value.__traceback__ is not None
        states = [work.state]
        assert contents(sql) == before
        with pytest.raises(bmdb.WorkStateError):
            async with work:
                await session.transact(write)
        assert [*states, work.state] == ["active", "canceled"]


@pytest.mark.usefixtures("unchanged")
class TestRetrieval:
    @pytest.mark.parametrize(
        "junk",
        [
            "a machine", b"a machine", 7, 7.5, True, object(), {"machine_id": NOBODY}, [7], [None], ["not a uuid"],
            [object()], [[NOBODY]], [(NOBODY,)], [{"machine_id": NOBODY}],
        ],
        # Without the address, so that each run has the same names.
        ids=lambda junk: repr(junk).split(" at 0x")[0],
    )  # fmt: skip
    async def test_junk_is_refused_by_its_type(self, junk: Any, session: bmdb.AsyncSession) -> None:
        async def retrieve(q: bmdb.AsyncQueries) -> Any:
            await q.new_machine()
            return junk

        with pytest.raises(
            TypeError, match=r"retrieve must return machine ids \(UUIDs\), or rows that have a machine_id"
        ):
            await session.work(PROCESS, retrieve)

    async def test_junk_after_a_good_machine_spoils_it_all(self, session: bmdb.AsyncSession, machine: UUID) -> None:
        with pytest.raises(TypeError, match="not int"):
            await session.work(PROCESS, lambda q: [machine, 7])

    async def test_rows_without_a_machine_id(self, session: bmdb.AsyncSession) -> None:
        with pytest.raises(TypeError, match="machine_id"):
            await session.work(PROCESS, lambda q: q.fetch("SELECT machine_created_at FROM machines"))

    async def test_an_unknown_machine_is_named(self, session: bmdb.AsyncSession) -> None:
        unknown = uuid4()
        with pytest.raises(bmdb.DatabaseError, match=rf"{unknown}.*return ids of existing machines") as caught:
            await session.work(PROCESS, lambda q: [unknown])
        assert caught.value.constraint == "work_machine_fkey"
        assert caught.value.sqlstate == "23503"

    @pytest.mark.parametrize(
        ("process", "words"),
        [("", "is empty"), ("x" * 129, "129 bytes, and 128 is the most"), ("é" * 65, "130 bytes"), ("a\0b", "NUL")],
        ids=["empty", "long", "long-in-bytes", "NUL"],
    )
    async def test_process_names(self, process: str, words: str, session: bmdb.AsyncSession, machine: UUID) -> None:
        ran: list[bmdb.AsyncQueries] = []

        def retrieve(q: bmdb.AsyncQueries) -> list[UUID]:
            ran.append(q)
            return [machine]

        with pytest.raises(ValueError, match=rf"process name.*{words}"):
            await session.work(process, retrieve)
        assert not ran

    @pytest.mark.parametrize("process", [None, 7, b"bytes"])
    async def test_process_names_of_another_type(self, process: Any, session: bmdb.AsyncSession, machine: UUID) -> None:
        with pytest.raises(TypeError):
            await session.work(process, lambda q: [machine])

    @pytest.mark.parametrize("wanted", ["chaos", "", "snapshot"])
    async def test_isolation(self, wanted: str, session: bmdb.AsyncSession, machine: UUID) -> None:
        levels = r"serializable.*repeatable read.*read committed"
        with pytest.raises(bmdb.ConfigError, match=levels):
            await session.transact(lambda q: q.new_machine(), isolation=wanted)
        with pytest.raises(bmdb.ConfigError, match=levels):
            await session.work(PROCESS, lambda q: [machine], isolation=wanted)


class TestEndings:
    @pytest.fixture
    async def work(self, session: bmdb.AsyncSession, machine: UUID) -> bmdb.AsyncWork:
        return await session.work(PROCESS, lambda q: [machine])

    @pytest.mark.parametrize("first", ["finish", "fail", "cancel"])
    async def test_it_ends_once(self, first: str, work: bmdb.AsyncWork, sql: Sql) -> None:
        ends: dict[str, Callable[[], Awaitable[None]]] = {
            "finish": work.finish,
            "fail": lambda: work.fail("no answer", BACKOFF),
            "cancel": work.cancel,
        }
        await ends[first]()
        state, before = work.state, contents(sql)
        for second in ["finish", "fail"]:
            with pytest.raises(bmdb.WorkStateError, match=f"{state} already: it ends once"):
                await ends[second]()
        ran: list[bmdb.AsyncQueries] = []
        with pytest.raises(bmdb.WorkStateError):
            await work.finish(ran.append)
        assert not ran
        assert work.state == state and contents(sql) == before

    async def test_a_cause_with_a_nul(self, work: bmdb.AsyncWork, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(ValueError, match="NUL.*replace it"):
            await work.fail("before\0after", BACKOFF)
        assert work.state == "active" and contents(sql) == before
        await work.fail("before after", BACKOFF)

    @pytest.mark.parametrize("cause", [None, 7, b"bytes", RuntimeError("no answer")], ids=repr)
    async def test_a_cause_of_another_type(self, cause: Any, work: bmdb.AsyncWork, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(TypeError, match=f"must be a str, not {type(cause).__name__}"):
            await work.fail(cause, BACKOFF)
        assert work.state == "active" and contents(sql) == before
        await work.finish()

    @pytest.mark.parametrize("letter", ["x", "é", "機", "🖥"])
    async def test_a_huge_cause_is_cut_between_characters_and_marked(
        self, letter: str, connection: bmdb.AsyncConnection, work: bmdb.AsyncWork, sql: Sql
    ) -> None:
        await work.fail("it was: " + letter * 10_000, BACKOFF)
        row = sql.execute("SELECT cause FROM work_backoff").fetchone()
        assert row is not None
        (kept,) = row
        assert 8 * 1024 - 8 < len(kept.encode()) <= 8 * 1024
        mark = " ... [cut]"
        assert kept.endswith(mark)
        assert set(kept.removeprefix("it was: ").removesuffix(mark)) == {letter}
        assert (await connection.history_of(work.machine))[-1].failed_cause == kept

    @pytest.mark.parametrize(
        "cause", ["", "x" * 8192, "<script>\x1b[31m\u202e", "a\nb"], ids=["empty", "8KiB", "odd", "lines"]
    )
    async def test_other_causes_are_kept_as_they_are(self, cause: str, work: bmdb.AsyncWork, sql: Sql) -> None:
        await work.fail(cause, BACKOFF)
        assert sql.execute("SELECT cause FROM work_backoff").fetchone() == (cause,)

    async def test_a_backoff_of_another_type(self, work: bmdb.AsyncWork, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(TypeError):
            await work.fail("no answer", 60)  # type: ignore[arg-type]
        assert work.state == "active" and contents(sql) == before
        await work.finish()


class TestSettings:
    @pytest.mark.parametrize("interval", [0.999, 0, -1, math.nan, math.inf, -math.inf, 2.0**31], ids=repr)
    async def test_intervals(self, interval: float, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        with pytest.raises(bmdb.ConfigError, match="interval must be at (least 1 second|most 2147483647 seconds)"):
            await connection.start_session(interval=interval)
        assert contents(sql)["sessions"] == []

    @pytest.mark.parametrize("interval", ["soon", None], ids=repr)
    async def test_intervals_of_another_type(self, interval: Any, connection: bmdb.AsyncConnection, sql: Sql) -> None:
        with pytest.raises((TypeError, ValueError)):
            await connection.start_session(interval=interval)
        assert contents(sql)["sessions"] == []

    async def test_a_pool_without_connections(self, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="pool_size must be a whole number from 1"):
            await bmdb.AsyncConnection.connect(database, component="test", pool_size=0)

    async def test_isolation(self, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=r"serializable.*repeatable read.*read committed.*chaos"):
            await bmdb.AsyncConnection.connect(database, component="test", isolation="chaos")

    @pytest.mark.parametrize("component", ["", None, 7], ids=repr)
    async def test_component(self, component: Any, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="component must name"):
            await bmdb.AsyncConnection.connect(database, component=component)

    @pytest.mark.parametrize("keyword", ["component", "runtime_info"])
    async def test_texts_with_a_nul(self, keyword: str, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=rf"{keyword}.*NUL"):
            await bmdb.AsyncConnection.connect(database, **{"component": "test", keyword: "a\0b"})  # type: ignore[arg-type]

    @pytest.mark.parametrize("keyword", ["pool_size", "max_retries"])
    async def test_negative_numbers_name_the_setting(self, keyword: str, database: str) -> None:
        with pytest.raises((bmdb.ConfigError, ValueError), match=keyword):
            await bmdb.AsyncConnection.connect(database, component="test", **{keyword: -1})  # type: ignore[arg-type]

    async def test_a_negative_number_of_retries(self, session: bmdb.AsyncSession, sql: Sql) -> None:
        with pytest.raises((bmdb.ConfigError, ValueError), match="max_retries"):
            await session.transact(lambda q: q.new_machine(), max_retries=-1)
        assert contents(sql)["machines"] == []

    @pytest.mark.parametrize("limit", [math.nan, math.inf], ids=repr)
    async def test_a_time_limit_that_is_no_number(self, limit: float, session: bmdb.AsyncSession) -> None:
        with pytest.raises(ValueError, match="timeout must be a number"):
            await session.wait_expired(limit)


class TestClosed:
    @pytest.mark.usefixtures("unchanged")
    async def test_a_closed_session(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machine: UUID
    ) -> None:
        closed = await connection.start_session()
        await closed.close()
        ran: list[bmdb.AsyncQueries] = []
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: closed.transact(ran.append),
            lambda: closed.work(PROCESS, ran.append),
        ]
        for use in uses:
            with pytest.raises(bmdb.SessionExpiredError, match="it was closed; start a new session"):
                await use()
        assert not ran and closed.trusted_for == 0.0

    async def test_work_of_a_closed_session(self, connection: bmdb.AsyncConnection, machine: UUID, sql: Sql) -> None:
        session = await connection.start_session()
        work = await session.work(PROCESS, lambda q: [machine])
        await session.close()
        before = contents(sql)
        ran: list[bmdb.AsyncQueries] = []
        ends: list[Callable[[], Awaitable[None]]] = [
            lambda: work.finish(ran.append),
            lambda: work.fail("no answer", BACKOFF),
        ]
        for end in ends:
            with pytest.raises((bmdb.SessionExpiredError, bmdb.LeaseLostError)):
                await end()
        assert not ran and contents(sql) == before

    async def test_a_closed_connection(self, database: str, machine: UUID, sql: Sql) -> None:
        connection = await bmdb.AsyncConnection.connect(database, component="test")
        session = await connection.start_session()
        await connection.close()
        before = contents(sql)
        uses: list[Callable[[], Awaitable[object]]] = [
            connection.start_session, connection.migrate, connection.schema_version, connection.statistics,
            connection.collect, connection.tags, lambda: connection.history_of(machine),
            lambda: connection.session_info(session.uuid),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(bmdb.ConfigError, match="closed"):
                await use()
        with pytest.raises((bmdb.ConfigError, bmdb.SessionExpiredError), match="closed"):
            await session.transact(lambda q: q.count_machines())
        assert session.expired
        assert contents(sql) == before
        # What needs no database is still answered.
        assert "closed" in repr(connection)
        connection.metrics()
        await session.close()

    async def test_no_thread_is_left(self, database: str) -> None:
        before = threading.active_count()
        connection = await bmdb.AsyncConnection.connect(database, component="test")
        await connection.start_session()
        await connection.close()
        assert threading.active_count() == before
