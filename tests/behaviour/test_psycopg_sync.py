"""What is peculiar to psycopg on the sync side: the other kind of connection, threads, Ctrl-C, values."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import bmdb


@pytest.fixture
def pg(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as opened:
        yield opened


async def test_an_async_connection_is_refused(session: bmdb.Session, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as other:
        with pytest.raises(TypeError, match="Async classes"):
            session.transact(lambda q: None, connection=other)  # type: ignore[call-overload]


def test_q_belongs_to_its_thread(session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
    caught: list[BaseException] = []

    def use(q: Any) -> None:
        try:
            q.count_machines()
        except BaseException as error:
            caught.append(error)

    def elsewhere(q: Any) -> None:
        thread = threading.Thread(target=use, args=[q])
        thread.start()
        thread.join()

    session.transact(elsewhere, connection=pg)
    assert isinstance(caught[0], bmdb.WorkStateError)


def test_ctrl_c_in_a_statement_rolls_back_and_leaves_the_connection_usable(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: psycopg.Connection[Any]
) -> None:
    def waits(q: Any) -> None:
        q.new_machine()
        timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
        timer.start()
        try:
            q.execute("SELECT pg_sleep(20)")
        finally:
            timer.join()

    with pytest.raises(KeyboardInterrupt):
        session.transact(waits, connection=pg)
    assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)
    assert session.transact(lambda q: q.count_machines(), connection=pg) == 0


@pytest.mark.parametrize("deferred", ["true", "false"])
def test_ctrl_c_in_commit_tells_how_it_ended(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: psycopg.Connection[Any], deferred: str
) -> None:
    """COMMIT waits in a deferred trigger; psycopg then cancels it, which rolls back."""
    sql.execute("CREATE TABLE slow (n int)")
    sql.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.n = 1 THEN PERFORM pg_sleep(20); END IF; RETURN NULL; END $$"
    )
    sql.execute(
        "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    timers: list[threading.Timer] = []

    def write(q: Any) -> None:
        q.execute("INSERT INTO slow VALUES (1)")
        timers.append(threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]))
        timers[0].start()

    with pytest.raises(KeyboardInterrupt) as caught:
        session.transact(write, connection=pg)
    timers[0].join()
    assert caught.value.committed is False  # type: ignore[attr-defined]
    assert sql.execute("SELECT count(*) FROM slow").fetchone() == (0,)
    session.transact(lambda q: q.execute("INSERT INTO slow VALUES (2)"), connection=pg)
    assert sql.execute("SELECT n FROM slow").fetchall() == [(2,)]


VALUES = [
    "NULL::int", "true", "1::int2", "-2::int8", "7::oid", "1.5::float8", "'NaN'::float8", "12.3400::numeric",
    "'a é'::text", "'x'::char(3)", "'n'::name", "'\\x00ff'::bytea", "gen_random_uuid()", "'2024-02-29'::date",
    "'12:34:56.789'::time", "'2024-02-29 12:34:56.789+05:30'::timestamptz", "'2024-02-29 12:34:56.789'::timestamp",
    "'3 days 04:05:06.7'::interval", """'{"a": [1, 2.5, null, "x"]}'::jsonb""", "'[1]'::json", "'10.0.0.1'::inet",
    "'10.0.0.1/24'::inet", "'10.0.0.0/8'::cidr", "'::1'::inet", "'{1,2,NULL}'::int[]", "'{{a,b},{c,d}}'::text[]",
    "ARRAY['2024-02-29 12:00Z'::timestamptz]", "ARRAY['b6a1f6c0-0000-4000-8000-000000000001'::uuid]",
    "'{}'::numeric[]", "'sad'::mood",
]  # fmt: skip


@pytest.mark.parametrize("expression", VALUES)
def test_values_are_read_as_on_a_connection_of_bmdbs_own(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: psycopg.Connection[Any], expression: str
) -> None:
    sql.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    sql.execute(f"CREATE TABLE kept AS SELECT {expression} AS value, {expression} IS NULL AS empty")  # type: ignore[arg-type]
    pg.execute("SET TimeZone TO 'Asia/Kolkata'")
    pg.commit()

    def read(q: bmdb.Queries) -> Any:
        return q.fetch_one("SELECT value, empty FROM kept")

    ours, theirs = session.transact(read), session.transact(read, connection=pg)
    assert type(ours) is type(theirs) is bmdb.Row
    assert repr(theirs) == repr(ours)
    assert theirs._fields == ours._fields
    if expression != "'NaN'::float8":
        assert theirs == ours


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("jsonb", {"a": [1, {"b": None}]}), ("json", {"a": 1}), ("text", "x"), ("int8", 2**40), ("int2", 3),
        ("numeric", 2**70),
        ("text[]", ["a", None]), ("int[]", [1, 2]), ("bytea", b"\0x"),
        ("text", bmdb.model.ProcessName.UNIT_TEST_1), ("bool", True),
    ],
)  # fmt: skip
def test_parameters_mean_what_they_mean_on_a_connection_of_bmdbs_own(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: psycopg.Connection[Any], type_: str, given: object
) -> None:
    sql.execute(f"CREATE TABLE kept (value {type_})")  # type: ignore[arg-type]

    def keep(q: bmdb.Queries) -> Any:
        q.execute("DELETE FROM kept")
        assert q.execute("INSERT INTO kept VALUES ($1)", given) == 1
        return q.fetch_value("SELECT value FROM kept")

    assert session.transact(keep, connection=pg) == session.transact(keep)
