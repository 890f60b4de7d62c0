# Generated from tests/behaviour/async_/test_psycopg_connection.py by tools/generate_sync.py: do not edit.
"""A psycopg connection of the user's: what is refused, and that it comes back as it was found."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

import bmdb

Sql = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def tally(sql: Sql) -> None:
    sql.execute("CREATE TABLE tally (id int PRIMARY KEY, n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (1, 0)")


def value(sql: Sql) -> int:
    row = sql.execute("SELECT n FROM tally WHERE id = 1").fetchone()
    assert row is not None
    return int(row[0])


def test_what_the_user_has_set_does_not_matter_and_is_left_as_found(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
) -> None:
    class Cursor(psycopg.ClientCursor[Any]):
        pass

    pg.execute("SET TimeZone TO 'Asia/Tokyo'")
    pg.commit()
    pg.set_autocommit(True)
    pg.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    pg.set_read_only(True)
    pg.set_deferrable(True)
    pg.row_factory, pg.cursor_factory, pg.prepare_threshold = dict_row, Cursor, 0
    before = dict(vars(pg))

    def write(q: Any) -> Any:
        q.execute("UPDATE tally SET n = n + 1")
        row = q.fetch_one("SELECT n, now() AS at FROM tally")
        assert row is not None and row.at.utcoffset().total_seconds() == 0
        assert pg.execute("SELECT n FROM tally").fetchone() == {"n": row.n}
        return row.n

    for n in range(1, 8):
        assert session.transact(write, connection=pg) == n
    changing = {"_prepared", "_begin_statement"}
    assert {key: kept for key, kept in vars(pg).items() if key not in changing} == {
        key: kept for key, kept in before.items() if key not in changing
    }
    assert value(sql) == 7


def test_settings_are_put_back_after_an_error_too(session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
    def broken(q: Any) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        session.transact(broken, connection=pg)
    assert (pg.isolation_level, pg.read_only, "wait" in vars(pg)) == (None, None, False)


def test_inside_a_transaction_it_is_refused_and_left_alone(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
) -> None:
    pg.execute("UPDATE tally SET n = 7")

    def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(bmdb.WorkStateError, match="in a transaction already"):
        session.transact(never, connection=pg)
    pg.commit()
    assert value(sql) == 7


def test_a_closed_one_is_refused(session: bmdb.Session, pg: psycopg.Connection[Any]) -> None:
    def never(q: Any) -> None:
        raise AssertionError

    pg.close()
    with pytest.raises(bmdb.ConfigError, match="closed"):
        session.transact(never, connection=pg)


def test_one_to_another_database_is_refused(session: bmdb.Session, empty_database: str) -> None:
    def never(q: Any) -> None:
        raise AssertionError

    with psycopg.connect(empty_database) as elsewhere:
        with pytest.raises(bmdb.ConfigError, match="nothing would fence it"):
            session.transact(never, connection=elsewhere)
        assert not elsewhere.closed
        assert elsewhere.info.transaction_status is TransactionStatus.IDLE


def test_one_that_breaks_is_not_replaced_and_nothing_is_committed(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
) -> None:
    runs: list[int] = []

    def cut_off(q: Any) -> None:
        runs.append(1)
        q.execute("UPDATE tally SET n = 7")
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pg.info.backend_pid])
        q.execute("UPDATE tally SET n = 8")

    with pytest.raises(bmdb.ConnectionFailedError):
        session.transact(cut_off, connection=pg)
    with pytest.raises(bmdb.ConnectionFailedError, match="open a new one"):
        session.transact(cut_off, connection=pg)
    assert runs == [1]
    assert value(sql) == 0
    assert not session.expired


def test_what_is_no_connection_is_refused(session: bmdb.Session, sql: Sql) -> None:
    def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="must be a psycopg"):
        session.transact(never, connection=object())  # type: ignore[call-overload]


def test_one_that_broke_unnoticed_before_the_commit_leaves_no_doubt(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql
) -> None:
    def cut_off(q: Any) -> None:
        q.execute("UPDATE tally SET n = 7")
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pg.info.backend_pid])

    with pytest.raises(bmdb.ConnectionFailedError):
        session.transact(cut_off, connection=pg)
    assert value(sql) == 0
