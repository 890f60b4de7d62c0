"""Row 31: PgBouncer stands in between, and gives each transaction another backend.

Promised: with `pooler=True` everything works, in transaction mode and in session mode, and nothing is left on a
backend; without it the first use through a transaction pooler is refused, and the error names the remedy.

Statements go unnamed, and settings are those of one transaction.

AsyncConnection and connections of psycopg alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.concurrency import together
from tests.database import Server
from tests.faults.figures import Figure
from tests.pgbouncer import Mode, PgBouncer
from tests.proxy import Proxy

MakeMachines = Callable[[int], list[UUID]]

PROCESS = "Pooled"
# Fewer than the clients, so that each meets what the others leave behind.
BACKENDS = 2

# What would stay with a backend: statements by name, settings, an advisory lock, a temporary table, channels.
LEFT_BEHIND = """
    SELECT (SELECT count(*) FROM pg_prepared_statements)
        + (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN
            ('application_name', 'client_encoding', 'DateStyle', 'standard_conforming_strings', 'TimeZone'))
        + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
        + (SELECT count(*) FROM pg_listening_channels())
        + (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
"""


@pytest.fixture(params=["transaction", "session"])
def pooler(request: pytest.FixtureRequest, server: Server) -> Iterator[PgBouncer]:
    """One of either mode: few backends for transactions, enough for sessions, which keep theirs."""
    mode: Mode = request.param
    with PgBouncer(server, mode, size=BACKENDS if mode == "transaction" else 40) as running:
        yield running


@pytest.fixture
def narrow(server: Server) -> Iterator[PgBouncer]:
    """One in transaction mode, with few backends."""
    with PgBouncer(server, "transaction", size=BACKENDS) as running:
        yield running


@pytest.fixture
def pooled(pooler: PgBouncer, database: str) -> Iterator[bmdb.Connection]:
    """An open bmdb connection that leads through the pooler."""
    with bmdb.connect(pooler.dsn(database), component="pooled", pooler=True) as opened:
        yield opened


def every_machine(q: bmdb.Queries) -> Any:
    return q.fetch("SELECT machine_id FROM machines")


def left_behind(pooler: PgBouncer, database: str) -> list[int]:
    """How much each of its backends keeps of those that it served."""
    with (
        psycopg.connect(pooler.dsn(database), prepare_threshold=None) as one,
        psycopg.connect(pooler.dsn(database), prepare_threshold=None) as other,
    ):
        counts = [connection.execute(LEFT_BEHIND).fetchone() for connection in (one, other)]
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, other)}
        assert len(pids) == BACKENDS, "each in a transaction, they share no backend"
        return [int(row[0]) for row in counts if row is not None]


class TestWithoutTheWord:
    def test_a_transaction_pooler_is_refused_on_first_use(self, narrow: PgBouncer, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=r"transaction pooler .* pass pooler=True to connect\(\)"):
            bmdb.connect(narrow.dsn(database), component="test")

    async def test_by_asyncio_too(self, narrow: PgBouncer, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match=r"pass pooler=True to connect\(\)"):
            await bmdb.AsyncConnection.connect(narrow.dsn(database), component="test")

    def test_a_busy_one_is_refused_all_the_same(self, server: Server, database: str) -> None:
        """Its backends are handed out in turn, so that no two questions in a row meet the same one."""
        with PgBouncer(server, "transaction", size=5, more="server_round_robin = 1") as pooler:
            clients = [psycopg.connect(pooler.dsn(database), prepare_threshold=None) for _ in range(5)]
            for client in clients:
                client.execute("SELECT 1")
            for client in clients:
                client.close()
            for _ in range(5):
                with pytest.raises(bmdb.ConfigError, match="pooler=True"):
                    bmdb.connect(pooler.dsn(database), component="test")

    def test_one_in_session_mode_is_none(self, server: Server, database: str, machines: MakeMachines) -> None:
        machines(1)
        with (
            PgBouncer(server, "session") as pooler,
            bmdb.connect(pooler.dsn(database), component="test") as connection,
            connection.start_session() as session,
        ):
            session.work(PROCESS, every_machine).finish()

    def test_none_finds_out(self, pooler: PgBouncer, database: str, machines: MakeMachines) -> None:
        (machine,) = machines(1)
        with (
            bmdb.connect(pooler.dsn(database), component="test", pooler=None) as connection,
            connection.start_session() as session,
        ):
            assert connection._core.pooled == (pooler.mode == "transaction")
            assert session.work(PROCESS, every_machine).machine == machine

    def test_nothing_else_is_a_word(self, database: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="pooler must be True, False or None"):
            bmdb.connect(database, component="test", pooler="transaction")  # type: ignore[arg-type]

    def test_a_parameter_that_it_does_not_pass_on(self, narrow: PgBouncer, database: str) -> None:
        conninfo = narrow.dsn(database, options="-c work_mem=8MB")
        with pytest.raises(bmdb.ConnectionFailedError, match="options.*take it out of the connection string"):
            bmdb.connect(conninfo, component="test", pooler=True)


def test_many_clients_on_few_backends(
    narrow: PgBouncer,
    database: str,
    machines: MakeMachines,
    sql: psycopg.Connection[Any],
    figure: Figure,
) -> None:
    """Six connections with all that they have: beats, claims, batches, callbacks, ends, looks, collection."""
    fleet, clients = machines(120), 6
    done: list[UUID] = []
    expired: list[bool] = []

    def client() -> None:
        with (
            bmdb.connect(narrow.dsn(database), component="client", pooler=True, pool_size=3) as connection,
            connection.start_session(interval=2) as session,
        ):
            while len(done) < len(fleet):
                try:
                    work = session.work(
                        PROCESS,
                        lambda q: q.fetch(
                            "SELECT machine_id FROM machines m WHERE NOT EXISTS (SELECT 1 FROM work_history h"
                            " WHERE h.machine_id = m.machine_id AND h.event = $1) LIMIT 10",
                            "Finished",
                        ),
                    )
                except (bmdb.NothingToDo, bmdb.WorkConflictError):
                    continue
                session.transact(lambda q: q.fetch_value("SELECT count(*) FROM work WHERE process = $1", PROCESS))
                work.finish()
                done.append(work.machine)
            connection.collect()
            time.sleep(2.5)  # longer than the interval: the beats pass too
            expired.append(session.expired)

    together(*[client] * clients)
    assert sorted(done) == sorted(fleet), "each once"
    assert expired == [False] * clients
    backends = sql.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bmdb%'"
    ).fetchone()
    assert backends is not None
    assert backends[0] <= BACKENDS
    left = left_behind(narrow, database)
    figure("left on a backend", sum(left), of=len(left))
    assert left == [0, 0]


async def test_the_same_by_asyncio(pooler: PgBouncer, database: str, machines: MakeMachines) -> None:
    (machine,) = machines(1)

    async def retrieve(q: bmdb.AsyncQueries) -> Any:
        return await q.fetch("SELECT machine_id FROM machines")

    async def count(q: bmdb.AsyncQueries) -> Any:
        return await q.fetch_value("SELECT count(*) FROM work WHERE machine_id = $1", machine)

    async with (
        await bmdb.AsyncConnection.connect(pooler.dsn(database), component="test", pooler=True) as connection,
        await connection.start_session() as session,
    ):
        work = await session.work(PROCESS, retrieve)
        assert await session.transact(count) == 1
        await work.finish()
        assert [event.event for event in await connection.history_of(machine)] == ["Started", "Finished"]


class TestTypes:
    @pytest.fixture(autouse=True)
    def mood(self, sql: psycopg.Connection[Any]) -> None:
        sql.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        sql.execute("CREATE TYPE pair AS (a int, b mood)")
        sql.execute("CREATE TABLE people (name text, mood mood, moods mood[])")

    def test_of_the_users_own(self, narrow: PgBouncer, database: str) -> None:
        """The driver looks them up by statements with names, which must not stay behind or be wanted elsewhere."""

        def write(q: bmdb.Queries) -> Any:
            q.execute("INSERT INTO people VALUES ($1, $2, $3)", "Ann", "glad", ["sad", "glad"])
            counted = q.fetch_one("SELECT mood, count(*) FROM people GROUP BY 1")
            return q.fetch("SELECT mood, moods FROM people")[0], counted

        def roll_back(q: bmdb.Queries) -> None:
            q.fetch("SELECT mood, moods FROM people")
            raise KeyError("rolled back")

        with (
            bmdb.connect(narrow.dsn(database), component="test", pooler=True, pool_size=2) as connection,
            connection.start_session() as session,
        ):
            for _ in range(5):
                together(*[lambda: session.transact(write)] * 4)
                with pytest.raises(KeyError):
                    session.transact(roll_back)
            (row, _) = session.transact(write)
            assert (row.mood, row.moods) == ("glad", ["sad", "glad"])
        assert left_behind(narrow, database) == [0, 0]

    def test_a_column_that_changes_its_type(
        self, narrow: PgBouncer, database: str, sql: psycopg.Connection[Any]
    ) -> None:
        """What is known of a statement no longer holds: never are bytes of one type taken for those of another."""
        sql.execute("CREATE TABLE t (a int)")
        with (
            bmdb.connect(narrow.dsn(database), component="test", pooler=True) as connection,
            connection.start_session() as session,
        ):

            def write(value: object) -> Any:
                return session.transact(
                    lambda q: (q.execute("INSERT INTO t VALUES ($1)", value), q.fetch_value("SELECT max(a) FROM t"))[1]
                )

            assert write(7) == 7
            sql.execute("ALTER TABLE t ALTER a TYPE float8")
            assert write(8) == 8.0
            sql.execute("ALTER TABLE t ALTER a TYPE bigint")
            with pytest.raises(ValueError, match="does not fit type int4"):
                write(1 << 40)
            assert write(1 << 40) == 1 << 40
            sql.execute("ALTER TABLE t ALTER a TYPE text USING a::text")
            with pytest.raises((bmdb.DatabaseError, TypeError)):
                write("x")
            assert write("x") == "x"


def test_a_name_that_another_client_left_behind(narrow: PgBouncer, database: str) -> None:
    """Drivers name their statements alike: a pooler's backend may have the next hundred names already."""
    with psycopg.connect(narrow.dsn(database), prepare_threshold=None) as rude:
        for number in range(40):
            rude.execute(f"PREPARE s{number} AS SELECT {number}".encode())
    with (
        bmdb.connect(narrow.dsn(database), component="test", pooler=True) as connection,
        connection.start_session() as session,
    ):
        assert [session.transact(lambda q, n=n: q.fetch_value(f"SELECT $1::int + {n}", 1)) for n in range(3)] == [
            1,
            2,
            3,
        ]


@pytest.mark.parametrize(
    "statement", ["SET work_mem = '8MB'", "CREATE TEMP TABLE t (a int)", "LISTEN x", "DISCARD ALL"]
)
def test_nothing_may_be_left_in_the_session(pooled: bmdb.Connection, statement: str) -> None:
    with pooled.start_session() as session:
        with pytest.raises(bmdb.WorkStateError, match="SET LOCAL"):
            session.transact(lambda q: q.execute(statement))
        memory = session.transact(
            lambda q: (q.execute("SET LOCAL work_mem = '9MB'"), q.fetch_value("SHOW work_mem"))[1]
        )
        assert memory == "9MB"
        assert session.transact(lambda q: q.fetch_value("SHOW work_mem")) != "9MB"


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_whose_reply_is_lost(pooler: PgBouncer, database: str, sql: psycopg.Connection[Any], cut: str) -> None:
    sql.execute("CREATE TABLE writes (what text)")
    with (
        Proxy("127.0.0.1", pooler.port) as proxy,
        bmdb.connect(proxy.conninfo(database), component="test", pooler=True) as connection,
        connection.start_session(interval=60) as session,
    ):
        cutting = proxy.cutting_after_commit if cut == "after" else proxy.cutting_before_commit
        with cutting(), pytest.raises(bmdb.AmbiguousCommitError) as caught:
            session.transact(lambda q: q.execute("INSERT INTO writes VALUES ('x')"))
        assert caught.value.resolve() == (cut == "after")
        assert sql.execute("SELECT count(*) FROM writes").fetchall() == [(1 if cut == "after" else 0,)]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_claim_by_eligibility_whose_reply_is_lost(
    pooler: PgBouncer, database: str, sql: psycopg.Connection[Any], machines: MakeMachines, cut: str
) -> None:
    """No backend can be told by its number; the claim is found by its own."""
    unreported = bmdb.eligible(lacking=("hardware_report",))
    with (
        Proxy("127.0.0.1", pooler.port) as proxy,
        bmdb.connect(proxy.conninfo(database), component="test", pooler=True) as connection,
        connection.start_session(interval=60) as session,
    ):
        with pytest.raises(bmdb.NothingToDo):
            session.work(PROCESS, unreported)
        machines(3)
        with (proxy.cutting_after_commit if cut == "after" else proxy.cutting_before_commit)() as cutting:
            work = session.work(PROCESS, unreported)
        assert cutting.hits == 1
        assert sql.execute("SELECT machine_id, token FROM work").fetchall() == [(work.machine, work.token)]
        with (proxy.cutting_after_commit if cut == "after" else proxy.cutting_before_commit)() as cutting:
            work.finish()
        assert cutting.hits == 1
        assert [event.event for event in connection.history_of(work.machine)] == ["Started", "Finished"]


def test_a_statement_is_cancelled_at_the_server(pooled: bmdb.Connection, sql: psycopg.Connection[Any]) -> None:
    """The pooler passes the request on to the backend that is at it."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"

    def count() -> int:
        row = sql.execute(running).fetchone()
        assert row is not None
        return int(row[0])

    session = pooled.start_session()
    failed: list[BaseException] = []

    def sleep() -> None:
        try:
            session.transact(lambda q: q.execute("SELECT pg_sleep(30)"))
        except bmdb.Error as error:
            failed.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    deadline = time.monotonic() + 20
    while not count() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count() == 1
    session.close()  # the loss of a session calls off what runs
    thread.join(20)
    assert isinstance(failed[0], bmdb.SessionExpiredError)
    while count() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count() == 0


class TestPsycopg:
    def test_statements_with_names_are_refused(self, narrow: PgBouncer, database: str) -> None:
        with (
            bmdb.connect(narrow.dsn(database), component="test", pooler=True) as connection,
            connection.start_session() as session,
            psycopg.connect(narrow.dsn(database), autocommit=True) as own,
            pytest.raises(bmdb.ConfigError, match="prepare_threshold=None"),
        ):
            session.transact(lambda q: q.execute("SELECT 1"), connection=own)

    def test_without_names_it_works(self, pooler: PgBouncer, pooled: bmdb.Connection, database: str) -> None:
        with (
            pooled.start_session() as session,
            psycopg.connect(pooler.dsn(database), prepare_threshold=None, autocommit=True) as own,
        ):
            for number in range(12):
                assert (
                    session.transact(lambda q, n=number: q.fetch_value("SELECT $1::int", n), connection=own) == number
                )
            machine = session.transact(lambda q: q.new_machine(), connection=own).machine_id
            session.work(PROCESS, lambda q: [machine]).finish(lambda q: q.execute("SELECT 1"), connection=own)
