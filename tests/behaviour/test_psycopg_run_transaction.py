"""`run_transaction`: the retry executor without a session, for both kinds of connection."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb.psycopg import run_transaction


@pytest.fixture(autouse=True)
def tally(sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")


def test_a_conflict_is_run_again(sql: psycopg.Connection[Any], database: str) -> None:
    runs: list[int] = []

    def add(conn: psycopg.Connection[Any]) -> str:
        runs.append(1)
        conn.execute("SELECT n FROM tally").fetchone()
        if len(runs) == 1:
            sql.execute("UPDATE tally SET n = n + 1")
        conn.execute("UPDATE tally SET n = n + %s", [1000])
        return "done"

    with psycopg.connect(database, autocommit=True) as conn:
        assert run_transaction(conn, add) == "done"
        assert len(runs) == 2
        assert conn.execute("SELECT n FROM tally").fetchone() == (1001,)
        assert conn.isolation_level is None and conn.autocommit


async def test_with_an_async_connection(database: str, sql: psycopg.Connection[Any]) -> None:
    runs: list[int] = []

    async def add(conn: psycopg.AsyncConnection[Any]) -> str:
        runs.append(1)
        await (await conn.execute("SELECT n FROM tally")).fetchone()
        if len(runs) == 1:
            sql.execute("UPDATE tally SET n = n + 1")
        await conn.execute("UPDATE tally SET n = n + %s", [1000])
        return "done"

    async with await psycopg.AsyncConnection.connect(database) as conn:
        assert await run_transaction(conn, add) == "done"
    assert len(runs) == 2
    assert sql.execute("SELECT n FROM tally").fetchone() == (1001,)


def test_what_it_swallowed_surfaces(database: str, sql: psycopg.Connection[Any]) -> None:
    def swallow(conn: psycopg.Connection[Any]) -> None:
        conn.execute("UPDATE tally SET n = 7")
        with contextlib.suppress(psycopg.Error):
            conn.execute("SELECT 1 / 0")

    with psycopg.connect(database) as conn, pytest.raises(bmdb.DatabaseError) as caught:
        run_transaction(conn, swallow)
    assert caught.value.sqlstate == "22012"
    assert sql.execute("SELECT n FROM tally").fetchone() == (0,)


def test_isolation_and_refusals(database: str) -> None:
    with psycopg.connect(database) as conn:
        level = run_transaction(
            conn, lambda c: c.execute("SHOW transaction_isolation").fetchone(), isolation="read committed"
        )
        assert level == ("read committed",)
        with pytest.raises(bmdb.ConfigError, match="isolation"):
            run_transaction(conn, lambda c: None, isolation="chaos")
        with pytest.raises(bmdb.ConfigError, match="max_retries"):
            run_transaction(conn, lambda c: None, max_retries=-1)
        with pytest.raises(TypeError, match="callable"):
            run_transaction(conn, 7)  # type: ignore[call-overload]
        with pytest.raises(bmdb.WorkStateError, match="in a transaction"):
            run_transaction(conn, lambda c: run_transaction(c, lambda d: None))
    with pytest.raises(bmdb.ConfigError, match="closed"):
        run_transaction(conn, lambda c: None)
    with pytest.raises(TypeError, match="must be a psycopg"):
        run_transaction(object(), lambda c: None)  # type: ignore[call-overload]
