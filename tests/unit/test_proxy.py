"""The test proxy itself: its framing whatever the chunks, and each rule and mode with psycopg as the client."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors
from psycopg.pq import DiagnosticField, TransactionStatus
from tests.database import Server
from tests.processes import eventually
from tests.proxy import FramingError, Proxy
from tests.proxy.framing import FrameReader, Message, error_fields, error_response, query, startup_parameters, sync
from tests.proxy.statements import BatchReader, Statement, plain

Connect = Callable[..., psycopg.Connection[Any]]

TYPED = st.builds(Message, st.sampled_from([bytes([letter]) for letter in b"QPBESCZTDX"]), st.binary(max_size=40))
STARTUP = Message(b"", b"\0\3\0\0user\0ada\0application_name\0loom\0\0")
SSL_REQUEST = Message(b"", (80877103).to_bytes(4))


# Framing.


@given(st.lists(TYPED, max_size=8), st.lists(st.integers(1, 17), min_size=1, max_size=9))
def test_messages_survive_any_chunking(messages: list[Message], sizes: list[int]) -> None:
    stream = b"".join(message.raw for message in [SSL_REQUEST, STARTUP, *messages])
    reader = FrameReader(untyped=True)
    seen: list[Message] = []
    position = 0
    while position < len(stream):
        size = sizes[position % len(sizes)]
        seen += reader.feed(stream[position : position + size])
        position += size
    assert seen == [SSL_REQUEST, STARTUP, *messages]
    assert reader.pending == 0


@given(TYPED, st.data())
def test_an_unfinished_message_waits(message: Message, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(message.raw) - 1))
    reader = FrameReader()
    assert reader.feed(message.raw[:cut]) == []
    assert reader.pending == cut
    assert reader.feed(message.raw[cut:]) == [message]


@pytest.mark.parametrize(
    ("untyped", "stream"),
    [(True, b"GET / HTTP/1.1\r\n"), (True, b"\0\0\0\7abc"), (False, b"Q\0\0\0\3"), (False, b"Q\xff\xff\xff\xff")],
)
def test_an_impossible_length_is_refused(untyped: bool, stream: bytes) -> None:
    with pytest.raises(FramingError, match="impossible message length"):
        FrameReader(untyped=untyped).feed(stream)


def test_startup_parameters() -> None:
    assert startup_parameters(STARTUP) == {"user": "ada", "application_name": "loom"}


def test_error_fields_round_trip() -> None:
    fields = error_fields(error_response("23505", "taken", fields={"constraint": "work_pkey"}))
    assert fields == {"S": "ERROR", "V": "ERROR", "C": "23505", "M": "taken", "n": "work_pkey"}


# Statements.


def test_prepared_statements_are_known_by_their_text() -> None:
    reader = BatchReader()
    assert reader.add(Message(b"P", b"s1\0UPDATE sessions -- beat\n SET x = $1\0\0\0")) is None
    assert reader.add(Message(b"P", b"\0SELECT 2\0\0\0")) is None
    first = reader.add(sync())
    assert first is not None
    assert first.executions == []
    reader.add(Message(b"B", b"p1\0s1\0\0\0\0\0\0\0"))
    reader.add(Message(b"E", b"p1\0\0\0\0\0"))
    reader.add(Message(b"B", b"\0\0\0\0\0\0\0\0"))
    reader.add(Message(b"E", b"\0\0\0\0\0"))
    second = reader.add(sync())
    assert second is not None
    assert second.executions == [(1, "execute", "UPDATE sessions SET x = $1"), (3, "execute", "SELECT 2")]
    third = reader.add(query("BEGIN;\n  SELECT /* one */ 1"))
    assert third is not None
    assert third.executions == [(0, "query", "BEGIN; SELECT 1")]


@pytest.mark.parametrize(
    ("text", "commits", "releases"),
    [
        ("COMMIT", True, False),
        ("select 1;\n commit", True, False),
        ("-- the end\nEND", True, False),
        ("RELEASE SAVEPOINT cockroach_restart", True, True),
        ("CREATE TEMP TABLE t () ON COMMIT DROP", False, False),
        ("SELECT 'commitment'", False, False),
        ("ROLLBACK", False, False),
    ],
)
def test_commits_are_told_from_other_statements(text: str, commits: bool, releases: bool) -> None:
    statement = Statement("query", plain(text), 0.0, 0, None)
    assert (statement.commits, statement.releases) == (commits, releases)


# The proxy, with psycopg before it and a server behind it.


@pytest.fixture
def connect(proxy: Proxy, empty_database: str) -> Iterator[Connect]:
    opened: list[psycopg.Connection[Any]] = []

    def make(**parameters: Any) -> psycopg.Connection[Any]:
        autocommit = parameters.pop("autocommit", False)
        connection = psycopg.connect(proxy.conninfo(empty_database, **parameters), autocommit=autocommit)
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def truth(empty_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int CONSTRAINT t_pkey PRIMARY KEY)")
        yield connection


def rows(truth: psycopg.Connection[Any]) -> list[int]:
    return [n for (n,) in truth.execute("SELECT n FROM t ORDER BY n")]


def in_thread(function: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_traffic_passes_and_is_counted(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    with connect(application_name="first") as connection:
        for n in range(20):
            connection.execute("INSERT INTO t VALUES (%s)", [n], prepare=n > 3)
        assert connection.execute("SELECT repeat('x', 300000)").fetchone() == ("x" * 300_000,)
    assert rows(truth) == list(range(20))
    assert proxy.count("^insert into t") == 20
    assert proxy.count("COMMIT", application_name="first") == 1
    assert proxy.count("COMMIT", application_name="second") == 0
    (record,) = proxy.connections
    eventually(lambda: not record.open)
    assert record.application_name == "first"
    assert record.statements == 23  # BEGIN, 20 inserts, SELECT, COMMIT
    assert record.bytes_to_client > 300_000
    assert not record.cut


def test_errors_of_the_server_pass(connect: Connect, truth: psycopg.Connection[Any]) -> None:
    connection = connect()
    with pytest.raises(errors.UndefinedTable):
        connection.execute("SELECT * FROM absent")
    connection.rollback()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_cancel_requests_pass(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    running = in_thread(lambda: connection.execute("SELECT pg_sleep(30)"))
    eventually(lambda: proxy.count("pg_sleep"))
    connection.cancel_safe(timeout=10)
    with pytest.raises(errors.QueryCanceled):
        running.result(10)


def test_encryption_is_refused(connect: Connect) -> None:
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        connect(sslmode="require")


def test_requests_for_encryption_can_reach_the_server(server: Server, empty_database: str) -> None:
    with (
        Proxy(*server.address, encryption="pass") as proxy,
        psycopg.connect(proxy.conninfo(empty_database, sslmode="prefer")) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_cut_before_commit_rolls_back(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    connection = connect()
    with proxy.cutting_before_commit() as cut:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        cut.wait()
        assert cut.hits == 1
        assert proxy.connections[0].cut
        other = connect()
        other.execute("INSERT INTO t VALUES (2)")
        other.commit()
    assert rows(truth) == [2]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_cut_after_commit_keeps_the_rows(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any], how: Any
) -> None:
    connection = connect()
    with proxy.cutting_after_commit(how=how) as cut:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        cut.wait()
    assert rows(truth) == [1]


def test_a_silent_cut_after_commit_answers_nothing(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect()
    with proxy.cutting_after_commit(how="silence") as cut:
        connection.execute("INSERT INTO t VALUES (1)")
        committing = in_thread(connection.commit)
        cut.wait()
        assert rows(truth) == [1]
        with pytest.raises(TimeoutError):
            committing.result(0.2)
    proxy.reset()
    with pytest.raises(psycopg.OperationalError):
        committing.result(10)


def test_cut_after_commit_ignores_a_commit_that_failed(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect()
    with proxy.cutting_after_commit() as cut:
        with pytest.raises(errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        # COMMIT of a failed transaction is answered by the tag ROLLBACK.
        connection.commit()
        assert cut.hits == 0
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        cut.wait()
    assert rows(truth) == [1]


def test_a_commit_within_a_longer_query_is_seen(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    connection = connect(autocommit=True)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (1)")
    with proxy.cutting_after_commit() as cut:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1; COMMIT")
        cut.wait()
    assert rows(truth) == [1]


def test_cut_by_statement_counts_and_skips(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    first, second = connect(application_name="a", autocommit=True), connect(application_name="b", autocommit=True)
    with proxy.cutting_before(r"insert\s+into t", skip=2, application_name="b") as cut:
        for n in (1, 2, 3):
            first.execute("INSERT INTO t VALUES (%s)", [n], prepare=True)
        for n in (4, 5):
            second.execute("INSERT  INTO\n t VALUES (%s)", [n], prepare=True)
        with pytest.raises(psycopg.OperationalError):
            second.execute("INSERT INTO t VALUES (%s)", [6], prepare=True)
        cut.wait()
        first.execute("INSERT INTO t VALUES (7)")
    assert rows(truth) == [1, 2, 3, 4, 5, 7]


def test_hold_before_and_after_commit(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (1)")
    with proxy.holding_before() as hold:
        committing = in_thread(connection.commit)
        hold.wait()
        assert rows(truth) == []
        hold.release()
        committing.result(10)
    assert rows(truth) == [1]
    connection.execute("INSERT INTO t VALUES (2)")
    with proxy.holding_after() as hold:
        committing = in_thread(connection.commit)
        hold.wait()
        assert rows(truth) == [1, 2]
        assert not committing.done()
    committing.result(10)


def test_a_rule_that_did_not_strike_times_out(proxy: Proxy) -> None:
    with proxy.holding_before() as hold, pytest.raises(TimeoutError, match="took effect 0 times"):
        hold.wait(0.05)


@pytest.mark.parametrize("prepare", [False, True])
def test_an_injected_error_aborts_the_transaction_for_real(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any], prepare: bool
) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (%s)", [1], prepare=prepare)
    with proxy.injecting("40001", "INSERT", fields={"detail": "a story"}) as error:
        with pytest.raises(errors.SerializationFailure) as raised:
            connection.execute("INSERT INTO t VALUES (%s)", [2], prepare=prepare)
        assert raised.value.diag.message_detail == "a story"
        assert error.hits == 1
    assert connection.info.transaction_status == TransactionStatus.INERROR
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    connection.execute("INSERT INTO t VALUES (%s)", [3], prepare=prepare)
    connection.commit()
    assert rows(truth) == [3]


def test_an_injected_error_outside_a_transaction_changes_nothing(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect(autocommit=True)
    with (
        proxy.injecting("23505", "INSERT", fields={"constraint": "t_pkey", "table": "t"}),
        pytest.raises(errors.UniqueViolation) as raised,
    ):
        connection.execute("INSERT INTO t VALUES (1)")
    assert (raised.value.diag.constraint_name, raised.value.diag.table_name) == ("t_pkey", "t")
    assert connection.info.transaction_status == TransactionStatus.IDLE
    connection.execute("INSERT INTO t VALUES (1)")
    assert rows(truth) == [1]


@pytest.mark.parametrize("executed", [False, True])
def test_an_injected_error_at_commit(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any], executed: bool
) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (1)")
    with proxy.injecting("40003", executed=executed) as error:
        with pytest.raises(errors.StatementCompletionUnknown):
            connection.commit()
        assert error.hits == 1
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert rows(truth) == ([1] if executed else [])
    connection.execute("INSERT INTO t VALUES (2)")
    connection.commit()
    assert rows(truth)[-1] == 2


def test_an_injected_error_at_release_leaves_the_savepoint(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect(autocommit=True)
    connection.execute("BEGIN; SAVEPOINT cockroach_restart")
    connection.execute("INSERT INTO t VALUES (1)")
    with proxy.injecting("40001"), pytest.raises(errors.SerializationFailure):
        connection.execute("RELEASE SAVEPOINT cockroach_restart")
    connection.execute("ROLLBACK TO SAVEPOINT cockroach_restart")
    connection.execute("INSERT INTO t VALUES (2)")
    connection.execute("RELEASE SAVEPOINT cockroach_restart")
    connection.execute("COMMIT")
    assert rows(truth) == [2]


def test_an_injected_fatal_error_ends_the_connection(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (1)")
    with proxy.injecting("57P01", "INSERT", severity="FATAL") as error:
        with pytest.raises(errors.AdminShutdown):
            connection.execute("INSERT INTO t VALUES (2)")
        error.wait()
    assert connection.closed
    assert rows(truth) == []


def test_what_a_terminated_backend_says_reaches_the_client(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect()
    pid = connection.info.backend_pid
    connection.execute("SELECT 1")
    with proxy.holding_before("pg_sleep") as hold, proxy.cutting_after("pg_sleep") as cut:
        running = in_thread(lambda: connection.execute("SELECT pg_sleep(30)"))
        hold.wait()
        hold.release()
        truth.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises((errors.AdminShutdown, psycopg.OperationalError)):
            running.result(10)
        assert cut.hits == 0


def test_an_answer_cut_short_by_the_server_is_forwarded(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    connection = connect()
    pid = connection.info.backend_pid
    with proxy.cutting_after("pg_sleep") as cut:
        running = in_thread(lambda: connection.execute("SELECT pg_sleep(30)"))
        eventually(lambda: proxy.count("pg_sleep"))
        eventually(lambda: truth.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone())
        truth.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(errors.AdminShutdown):
            running.result(10)
        assert cut.hits == 0


def test_swallowing_kills_what_it_touches(proxy: Proxy, connect: Connect) -> None:
    touched, idle = connect(autocommit=True), connect(autocommit=True)
    with proxy.swallowing():
        waiting = in_thread(lambda: touched.execute("SELECT 1"))
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(connect_timeout="2")
    with pytest.raises(TimeoutError):
        waiting.result(0.2)
    assert idle.execute("SELECT 2").fetchone() == (2,)
    assert connect().execute("SELECT 3").fetchone() == (3,)
    proxy.reset(connection=0)
    with pytest.raises(psycopg.OperationalError):
        waiting.result(10)


def test_swallowing_one_direction_loses_only_the_answers(
    proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]
) -> None:
    lost, kept = connect(autocommit=True), connect(autocommit=True)
    lost.execute("SELECT 'beat'")
    with proxy.swallowing("to_client", executed="'beat'"):
        waiting = in_thread(lambda: lost.execute("INSERT INTO t VALUES (1)"))
        eventually(lambda: rows(truth) == [1])
        kept.execute("INSERT INTO t VALUES (2)")
        assert not waiting.done()
    proxy.reset()
    with pytest.raises(psycopg.OperationalError):
        waiting.result(10)


def test_freezing_loses_nothing(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    connection = connect(autocommit=True)
    with proxy.freezing("to_server"):
        waiting = in_thread(lambda: connection.execute("INSERT INTO t VALUES (1)"))
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        assert rows(truth) == []
    waiting.result(10)
    assert rows(truth) == [1]


def test_delaying(proxy: Proxy, connect: Connect) -> None:
    connection = connect(autocommit=True)
    with proxy.delaying(0.1):
        started = time.monotonic()
        connection.execute("SELECT 1")
        assert time.monotonic() - started >= 0.2
    connection.execute("SELECT 1")


def test_refusing_and_accepting_again(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    with proxy.refusing():
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connect().execute("SELECT 2").fetchone() == (2,)


def test_resetting_one_of_three_new_connections(proxy: Proxy, connect: Connect) -> None:
    outcomes = []
    with proxy.resetting(every=3):
        for _ in range(6):
            try:
                # Without a second attempt in the clear, which libpq would make on a reset.
                connect(sslmode="disable", gssencmode="disable")
                outcomes.append("open")
            except psycopg.OperationalError:
                outcomes.append("reset")
    assert outcomes == ["open", "open", "reset"] * 2


def test_resetting_now(proxy: Proxy, connect: Connect) -> None:
    first, second = connect(application_name="a"), connect(application_name="b")
    assert proxy.reset(application_name="^a$") == 1
    with pytest.raises(psycopg.OperationalError):
        first.execute("SELECT 1")
    assert second.execute("SELECT 2").fetchone() == (2,)


def test_a_reset_is_one_and_a_close_is_none(proxy: Proxy) -> None:
    address = (proxy.host, proxy.port)
    with socket.create_connection(address, timeout=10) as client:
        eventually(lambda: proxy.reset() == 1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with socket.create_connection(address, timeout=10) as client:
        eventually(lambda: proxy.reset(how="close") == 1)
        assert client.recv(1) == b""


def test_an_unreachable_server_resets_the_client(server: Server) -> None:
    with (
        Proxy("/nonexistent", 1) as proxy,
        pytest.raises(psycopg.OperationalError, match=r"(?i)reset|closed"),
    ):
        psycopg.connect(proxy.conninfo(server.dsn()))


def test_pipelined_batches_keep_their_order(proxy: Proxy, connect: Connect, truth: psycopg.Connection[Any]) -> None:
    # Three batches are on their way before the first answer is read. Through libpq itself, as psycopg would read in
    # between; its blocking calls keep the GIL, which the proxy needs, so it must not block.
    raw = connect().pgconn
    raw.enter_pipeline_mode()
    outcomes: list[bytes | None] = []
    with proxy.injecting("40P01", "VALUES .2.$"):
        for n in (1, 2, 3):
            raw.send_query_params(b"INSERT INTO t VALUES (%d)" % n, None)
            raw.pipeline_sync()
        eventually(lambda: raw.flush() == 0)
        while len(outcomes) < 6:
            readable, _, _ = select.select([raw.socket], [], [], 10)
            assert readable
            raw.consume_input()
            while not raw.is_busy() and len(outcomes) < 6:
                if (result := raw.get_result()) is not None:
                    outcomes.append(result.error_field(DiagnosticField.SQLSTATE) or result.command_status)
    assert outcomes == [b"INSERT 0 1", b"", b"40P01", b"", b"INSERT 0 1", b""]
    assert rows(truth) == [1, 3]


def test_closing_leaves_no_thread(server: Server, empty_database: str) -> None:
    before = threading.active_count()
    proxy = Proxy(*server.address)
    connection = psycopg.connect(proxy.conninfo(empty_database))
    proxy.close()
    proxy.close()
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    assert threading.active_count() == before
