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


async def test_what_the_user_has_set_does_not_matter_and_is_left_as_found(
    session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
) -> None:
    class Cursor(psycopg.AsyncClientCursor[Any]):
        pass

    await pg.execute("SET TimeZone TO 'Asia/Tokyo'")
    await pg.commit()
    await pg.set_autocommit(True)
    await pg.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await pg.set_read_only(True)
    await pg.set_deferrable(True)
    pg.row_factory, pg.cursor_factory, pg.prepare_threshold = dict_row, Cursor, 0
    before = dict(vars(pg))

    async def write(q: Any) -> Any:
        await q.execute("UPDATE tally SET n = n + 1")
        row = await q.fetch_one("SELECT n, now() AS at FROM tally")
        assert row is not None and row.at.utcoffset().total_seconds() == 0
        assert await (await pg.execute("SELECT n FROM tally")).fetchone() == {"n": row.n}
        return row.n

    for n in range(1, 8):
        assert await session.transact(write, connection=pg) == n
    changing = {"_prepared", "_begin_statement"}
    assert {key: kept for key, kept in vars(pg).items() if key not in changing} == {
        key: kept for key, kept in before.items() if key not in changing
    }
    assert value(sql) == 7


async def test_settings_are_put_back_after_an_error_too(
    session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]
) -> None:
    async def broken(q: Any) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await session.transact(broken, connection=pg)
    assert (pg.isolation_level, pg.read_only, "wait" in vars(pg)) == (None, None, False)


async def test_inside_a_transaction_it_is_refused_and_left_alone(
    session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
) -> None:
    await pg.execute("UPDATE tally SET n = 7")

    async def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(bmdb.WorkStateError, match="in a transaction already"):
        await session.transact(never, connection=pg)
    await pg.commit()
    assert value(sql) == 7


async def test_a_closed_one_is_refused(session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any]) -> None:
    async def never(q: Any) -> None:
        raise AssertionError

    await pg.close()
    with pytest.raises(bmdb.ConfigError, match="closed"):
        await session.transact(never, connection=pg)


async def test_one_to_another_database_is_refused(session: bmdb.AsyncSession, empty_database: str) -> None:
    async def never(q: Any) -> None:
        raise AssertionError

    async with await psycopg.AsyncConnection.connect(empty_database) as elsewhere:
        with pytest.raises(bmdb.ConfigError, match="nothing would fence it"):
            await session.transact(never, connection=elsewhere)
        assert not elsewhere.closed
        assert elsewhere.info.transaction_status is TransactionStatus.IDLE


async def test_one_that_breaks_is_not_replaced_and_nothing_is_committed(
    session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
) -> None:
    runs: list[int] = []

    async def cut_off(q: Any) -> None:
        runs.append(1)
        await q.execute("UPDATE tally SET n = 7")
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pg.info.backend_pid])
        await q.execute("UPDATE tally SET n = 8")

    with pytest.raises(bmdb.ConnectionFailedError):
        await session.transact(cut_off, connection=pg)
    with pytest.raises(bmdb.ConnectionFailedError, match="open a new one"):
        await session.transact(cut_off, connection=pg)
    assert runs == [1]
    assert value(sql) == 0
    assert not session.expired


async def test_what_is_no_connection_is_refused(session: bmdb.AsyncSession, sql: Sql) -> None:
    async def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="must be a psycopg"):
        await session.transact(never, connection=object())  # type: ignore[call-overload]
    # async only
    with pytest.raises(TypeError, match="is a sync psycopg"):
        await session.transact(never, connection=sql)  # type: ignore[call-overload]
    # end async only


async def test_one_that_broke_unnoticed_before_the_commit_leaves_no_doubt(
    session: bmdb.AsyncSession, pg: psycopg.AsyncConnection[Any], sql: Sql
) -> None:
    async def cut_off(q: Any) -> None:
        await q.execute("UPDATE tally SET n = 7")
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pg.info.backend_pid])

    with pytest.raises(bmdb.ConnectionFailedError):
        await session.transact(cut_off, connection=pg)
    assert value(sql) == 0
