# Generated from tests/behaviour/async_/test_bad_input.py by tools/generate_sync.py: do not edit.
"""Bad input: one clear exception that says what to do instead, and nothing half-done.

What can be wrong about reaching a server is in test_connect, about its schema in test_migrations, about values of SQL
types in test_values.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.callbacks import CoroutineCall, async_generator_function, coroutine_function
from tests.conftest import MakeMachines
from tests.processes import eventually
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
def unchanged(sql: Sql, session: bmdb.Session, machine: UUID) -> Iterator[None]:
    """The test must leave the database as it found it, and the session usable."""
    before = contents(sql)
    yield
    assert contents(sql) == before
    assert session.transact(lambda q: q.count_machines()) == 1


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    return machines(1)[0]


def generator_function(q: bmdb.Queries) -> Iterator[UUID]:
    yield uuid4()


NO_CALLBACKS: list[tuple[Any, str]] = [
    (coroutine_function, "def.*use the Async classes"),
    (partial(coroutine_function), "def.*use the Async classes"),
    (CoroutineCall(), "def.*use the Async classes"),
    (CoroutineCall().method, "def.*use the Async classes"),
    (generator_function, "generator function.*return a list"),
    (partial(generator_function), "generator function.*return a list"),
    (async_generator_function, "generator function.*return a list"),
    ("SELECT 1", "must be callable, not str"),
    (None, "must be callable, not NoneType"),
]
CALLBACK_IDS = [
    "async", "partial-async", "async-call", "async-method",
    "generator", "partial-generator", "async-generator", "str", "None",
]  # fmt: skip


@pytest.mark.direct("it waits for what a connection is set to at the server itself")
class TestCallbacks:
    """Refused before BEGIN: nothing at all reaches the server."""

    @pytest.fixture
    def silent(self, database: str, proxy: Proxy) -> Iterator[bmdb.Session]:
        """A session of a connection that must not send anything but heartbeats during the test."""
        with (
            bmdb.connect(proxy.conninfo(database), component="test") as connection,
            connection.start_session(interval=60) as session,
        ):
            # The heartbeat opens its connection in its own time; this is the last that it sends for that.
            eventually(
                lambda: any("default_transaction_read_only" in statement.text for statement in proxy.statements())
            )
            before = [statement.text for statement in proxy.statements()]
            yield session
            after = [statement.text for statement in proxy.statements()]
            assert [text for text in after[len(before) :] if not text.startswith("UPDATE sessions")] == []

    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS, ids=CALLBACK_IDS)
    def test_of_transact(self, callback: Any, words: str, silent: bmdb.Session) -> None:
        with pytest.raises(TypeError, match=words):
            silent.transact(callback)

    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS, ids=CALLBACK_IDS)
    def test_of_work(self, callback: Any, words: str, silent: bmdb.Session) -> None:
        # Nothing at all may stand for what the Process declares.
        with pytest.raises(TypeError, match="which machines" if callback is None else words):
            silent.work(PROCESS, callback)

    @pytest.mark.usefixtures("machine")
    @pytest.mark.parametrize(("callback", "words"), NO_CALLBACKS[:-1], ids=CALLBACK_IDS[:-1])
    def test_of_finish(self, callback: Any, words: str, session: bmdb.Session, machine: UUID, sql: Sql) -> None:
        work = session.work(PROCESS, lambda q: [machine])
        before = contents(sql)
        with pytest.raises(TypeError, match=words):
            work.finish(callback)
        assert work.state == "active" and contents(sql) == before
        work.finish()

    @pytest.mark.usefixtures("unchanged")
    @pytest.mark.parametrize(
        ("callback", "words"),
        [
            (lambda q: coroutine_function(q), "returned a coroutine"),
            (lambda q: (row for row in [q]), "returned a generator.*return a list"),
        ],
        ids=["coroutine", "generator"],
    )
    def test_one_that_returns_what_would_run_too_late(
        self, callback: Callable[[bmdb.Queries], Any], words: str, session: bmdb.Session
    ) -> None:
        def write(q: bmdb.Queries) -> Any:
            q.new_machine()
            return callback(q)

        with pytest.raises(TypeError, match=words):
            session.transact(write)


def write_and_look(look: Callable[[], object], q: bmdb.Queries) -> None:
    q.new_machine()
    look()


class TestNesting:
    """The transaction of a callback is the only one of its connection while the callback runs."""

    @pytest.mark.usefixtures("unchanged")
    def test_looking_at_the_database_beside_it(
        self, connection: bmdb.Connection, session: bmdb.Session, machine: UUID
    ) -> None:
        looks: list[Callable[[], object]] = [
            connection.statistics,
            lambda: connection.history_of(machine),
            lambda: session.transact(lambda q: q.new_machine()),
            lambda: session.work(PROCESS, lambda q: [machine]),
            session.close,
        ]
        for look in looks:
            with pytest.raises(bmdb.WorkStateError, match="use the q that the callback was given"):
                session.transact(partial(write_and_look, look))

    def test_a_finish_inside_another_transaction(self, session: bmdb.Session, machine: UUID, sql: Sql) -> None:
        work = session.work(PROCESS, lambda q: [machine])
        before = contents(sql)

        def write(q: bmdb.Queries) -> None:
            q.new_machine()
            work.finish()

        with pytest.raises(bmdb.WorkStateError, match="use the q that the callback was given") as caught:
            session.transact(write)
        # Also while somebody still holds the exception, and with it the frames that it passed through.
        assert caught.value.__traceback__ is not None
        states = [work.state]
        assert contents(sql) == before
        with pytest.raises(bmdb.WorkStateError):
            with work:
                session.transact(write)
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
    def test_junk_is_refused_by_its_type(self, junk: Any, session: bmdb.Session) -> None:
        def retrieve(q: bmdb.Queries) -> Any:
            q.new_machine()
            return junk

        with pytest.raises(
            TypeError, match=r"retrieve must return machine ids \(UUIDs\), or rows that have a machine_id"
        ):
            session.work(PROCESS, retrieve)

    def test_junk_after_a_good_machine_spoils_it_all(self, session: bmdb.Session, machine: UUID) -> None:
        with pytest.raises(TypeError, match="not int"):
            session.work(PROCESS, lambda q: [machine, 7])

    def test_rows_without_a_machine_id(self, session: bmdb.Session) -> None:
        with pytest.raises(TypeError, match="machine_id"):
            session.work(PROCESS, lambda q: q.fetch("SELECT machine_created_at FROM machines"))

    def test_an_unknown_machine_is_named(self, session: bmdb.Session) -> None:
        unknown = uuid4()
        with pytest.raises(bmdb.DatabaseError, match=rf"{unknown}.*return ids of existing machines") as caught:
            session.work(PROCESS, lambda q: [unknown])
        assert caught.value.constraint == "work_machine_fkey"
        assert caught.value.sqlstate == "23503"

    @pytest.mark.parametrize(
        ("process", "words"),
        [("", "is empty"), ("x" * 129, "129 bytes, and 128 is the most"), ("é" * 65, "130 bytes"), ("a\0b", "NUL")],
        ids=["empty", "long", "long-in-bytes", "NUL"],
    )
    def test_process_names(self, process: str, words: str, session: bmdb.Session, machine: UUID) -> None:
        ran: list[bmdb.Queries] = []

        def retrieve(q: bmdb.Queries) -> list[UUID]:
            ran.append(q)
            return [machine]

        with pytest.raises(ValueError, match=rf"process name.*{words}"):
            session.work(process, retrieve)
        assert not ran

    @pytest.mark.parametrize("process", [None, 7, b"bytes"])
    def test_process_names_of_another_type(self, process: Any, session: bmdb.Session, machine: UUID) -> None:
        with pytest.raises(TypeError):
            session.work(process, lambda q: [machine])

    @pytest.mark.parametrize("wanted", ["chaos", "", "snapshot"])
    def test_isolation(self, wanted: str, session: bmdb.Session, machine: UUID) -> None:
        levels = r"serializable.*repeatable read.*read committed"
        with pytest.raises(bmdb.ConfigError, match=levels):
            session.transact(lambda q: q.new_machine(), isolation=wanted)
        with pytest.raises(bmdb.ConfigError, match=levels):
            session.work(PROCESS, lambda q: [machine], isolation=wanted)


class TestEndings:
    @pytest.fixture
    def work(self, session: bmdb.Session, machine: UUID) -> bmdb.Work:
        return session.work(PROCESS, lambda q: [machine])

    @pytest.mark.parametrize("first", ["finish", "fail", "cancel"])
    def test_it_ends_once(self, first: str, work: bmdb.Work, sql: Sql) -> None:
        ends: dict[str, Callable[[], None]] = {
            "finish": work.finish,
            "fail": lambda: work.fail("no answer", BACKOFF),
            "cancel": work.cancel,
        }
        ends[first]()
        state, before = work.state, contents(sql)
        for second in ["finish", "fail"]:
            with pytest.raises(bmdb.WorkStateError, match=f"{state} already: it ends once"):
                ends[second]()
        ran: list[bmdb.Queries] = []
        with pytest.raises(bmdb.WorkStateError):
            work.finish(ran.append)
        assert not ran
        assert work.state == state and contents(sql) == before

    def test_a_cause_with_a_nul(self, work: bmdb.Work, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(ValueError, match="NUL.*replace it"):
            work.fail("before\0after", BACKOFF)
        assert work.state == "active" and contents(sql) == before
        work.fail("before after", BACKOFF)

    @pytest.mark.parametrize("cause", [None, 7, b"bytes", RuntimeError("no answer")], ids=repr)
    def test_a_cause_of_another_type(self, cause: Any, work: bmdb.Work, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(TypeError, match=f"must be a str, not {type(cause).__name__}"):
            work.fail(cause, BACKOFF)
        assert work.state == "active" and contents(sql) == before
        work.finish()

    @pytest.mark.parametrize("letter", ["x", "é", "機", "🖥"])
    def test_a_huge_cause_is_cut_between_characters_and_marked(
        self, letter: str, connection: bmdb.Connection, work: bmdb.Work, sql: Sql
    ) -> None:
        work.fail("it was: " + letter * 10_000, BACKOFF)
        row = sql.execute("SELECT cause FROM work_backoff").fetchone()
        assert row is not None
        (kept,) = row
        assert 8 * 1024 - 8 < len(kept.encode()) <= 8 * 1024
        mark = " ... [cut]"
        assert kept.endswith(mark)
        assert set(kept.removeprefix("it was: ").removesuffix(mark)) == {letter}
        assert connection.history_of(work.machine)[-1].failed_cause == kept

    @pytest.mark.parametrize(
        "cause", ["", "x" * 8192, "<script>\x1b[31m\u202e", "a\nb"], ids=["empty", "8KiB", "odd", "lines"]
    )
    def test_other_causes_are_kept_as_they_are(self, cause: str, work: bmdb.Work, sql: Sql) -> None:
        work.fail(cause, BACKOFF)
        assert sql.execute("SELECT cause FROM work_backoff").fetchone() == (cause,)

    def test_a_backoff_of_another_type(self, work: bmdb.Work, sql: Sql) -> None:
        before = contents(sql)
        with pytest.raises(TypeError):
            work.fail("no answer", 60)  # type: ignore[arg-type]
        assert work.state == "active" and contents(sql) == before
        work.finish()


class TestSettings:
    @pytest.mark.parametrize("interval", [0.999, 0, -1, math.nan, math.inf, -math.inf, 2.0**31], ids=repr)
    def test_intervals(self, interval: float, connection: bmdb.Connection, sql: Sql) -> None:
        with pytest.raises(bmdb.ConfigError, match="interval must be at (least 1 second|most 2147483647 seconds)"):
            connection.start_session(interval=interval)
        assert contents(sql)["sessions"] == []

    @pytest.mark.parametrize("interval", ["soon", None], ids=repr)
    def test_intervals_of_another_type(self, interval: Any, connection: bmdb.Connection, sql: Sql) -> None:
        with pytest.raises((TypeError, ValueError)):
            connection.start_session(interval=interval)
        assert contents(sql)["sessions"] == []

    def test_a_pool_without_connections(self, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="pool_size must be a whole number from 1"):
            bmdb.connect(database, component="test", pool_size=0)

    def test_isolation(self, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=r"serializable.*repeatable read.*read committed.*chaos"):
            bmdb.connect(database, component="test", isolation="chaos")

    @pytest.mark.parametrize("component", ["", None, 7], ids=repr)
    def test_component(self, component: Any, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="component must name"):
            bmdb.connect(database, component=component)

    @pytest.mark.parametrize("keyword", ["component", "runtime_info"])
    def test_texts_with_a_nul(self, keyword: str, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=rf"{keyword}.*NUL"):
            bmdb.connect(database, **{"component": "test", keyword: "a\0b"})  # type: ignore[arg-type]

    @pytest.mark.parametrize("keyword", ["pool_size", "max_retries"])
    def test_negative_numbers_name_the_setting(self, keyword: str, database: str) -> None:
        with pytest.raises((bmdb.ConfigError, ValueError), match=keyword):
            bmdb.connect(database, component="test", **{keyword: -1})  # type: ignore[arg-type]

    def test_a_negative_number_of_retries(self, session: bmdb.Session, sql: Sql) -> None:
        with pytest.raises((bmdb.ConfigError, ValueError), match="max_retries"):
            session.transact(lambda q: q.new_machine(), max_retries=-1)
        assert contents(sql)["machines"] == []

    @pytest.mark.parametrize("limit", [math.nan, math.inf], ids=repr)
    def test_a_time_limit_that_is_no_number(self, limit: float, session: bmdb.Session) -> None:
        with pytest.raises(ValueError, match="timeout must be a number"):
            session.wait_expired(limit)


class TestClosed:
    @pytest.mark.usefixtures("unchanged")
    def test_a_closed_session(self, connection: bmdb.Connection, session: bmdb.Session, machine: UUID) -> None:
        closed = connection.start_session()
        closed.close()
        ran: list[bmdb.Queries] = []
        uses: list[Callable[[], object]] = [
            lambda: closed.transact(ran.append),
            lambda: closed.work(PROCESS, ran.append),
        ]
        for use in uses:
            with pytest.raises(bmdb.SessionExpiredError, match="it was closed; start a new session"):
                use()
        assert not ran and closed.trusted_for == 0.0

    def test_work_of_a_closed_session(self, connection: bmdb.Connection, machine: UUID, sql: Sql) -> None:
        session = connection.start_session()
        work = session.work(PROCESS, lambda q: [machine])
        session.close()
        before = contents(sql)
        ran: list[bmdb.Queries] = []
        ends: list[Callable[[], None]] = [
            lambda: work.finish(ran.append),
            lambda: work.fail("no answer", BACKOFF),
        ]
        for end in ends:
            with pytest.raises((bmdb.SessionExpiredError, bmdb.LeaseLostError)):
                end()
        assert not ran and contents(sql) == before

    def test_a_closed_connection(self, database: str, machine: UUID, sql: Sql) -> None:
        connection = bmdb.connect(database, component="test")
        session = connection.start_session()
        connection.close()
        before = contents(sql)
        uses: list[Callable[[], object]] = [
            connection.start_session, connection.migrate, connection.schema_version, connection.statistics,
            connection.collect, connection.tags, lambda: connection.history_of(machine),
            lambda: connection.session_info(session.uuid),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(bmdb.ConfigError, match="closed"):
                use()
        with pytest.raises((bmdb.ConfigError, bmdb.SessionExpiredError), match="closed"):
            session.transact(lambda q: q.count_machines())
        assert session.expired
        assert contents(sql) == before
        # What needs no database is still answered.
        assert "closed" in repr(connection)
        connection.metrics()
        session.close()

    def test_no_thread_is_left(self, database: str) -> None:
        before = threading.active_count()
        connection = bmdb.connect(database, component="test")
        connection.start_session()
        connection.close()
        assert threading.active_count() == before
