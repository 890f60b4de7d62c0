"""Row 20: an error comes after the first row of an answer.

Promised: it is never lost, whether the callback looks at the rest or not.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest

import bmdb

# The second row cannot be computed; the first has been sent by then.
FAILS_IN_ROW_TWO = "SELECT 1 / (2 - n) AS quotient FROM generate_series(1, 5) AS n"


@pytest.fixture(autouse=True)
def tally(sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE tally (n int NOT NULL)")
    sql.execute("INSERT INTO tally VALUES (0)")


@pytest.mark.parametrize("ask", ["fetch", "fetch_one", "fetch_value", "execute"])
def test_the_statement_fails_although_its_first_row_was_there(
    session: bmdb.Session, sql: psycopg.Connection[Any], ask: str
) -> None:
    def fn(q: bmdb.Queries) -> None:
        q.execute("UPDATE tally SET n = 5")
        getattr(q, ask)(FAILS_IN_ROW_TWO)

    with pytest.raises(bmdb.DatabaseError) as caught:
        session.transact(fn)
    assert caught.value.sqlstate == "22012"
    assert sql.execute("SELECT n FROM tally").fetchone() == (0,)


@pytest.mark.parametrize("ask", ["fetch", "fetch_one", "fetch_value", "execute"])
def test_swallowing_it_is_no_success_either(session: bmdb.Session, sql: psycopg.Connection[Any], ask: str) -> None:
    def fn(q: bmdb.Queries) -> str:
        q.execute("UPDATE tally SET n = 5")
        with contextlib.suppress(bmdb.DatabaseError):
            getattr(q, ask)(FAILS_IN_ROW_TWO)
        return "as if nothing had happened"

    with pytest.raises(bmdb.DatabaseError) as caught:
        session.transact(fn)
    assert caught.value.sqlstate == "22012"
    assert sql.execute("SELECT n FROM tally").fetchone() == (0,)


def test_a_conflict_in_the_second_row_is_run_again(session: bmdb.Session, sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE line (id int PRIMARY KEY, n int NOT NULL)")
    sql.execute("INSERT INTO line SELECT i, 0 FROM generate_series(1, 3) AS i")
    runs = 0
    swallowed: list[str] = []

    def fn(q: bmdb.Queries) -> None:
        nonlocal runs
        runs += 1
        q.fetch("SELECT * FROM line")
        if runs == 1:
            sql.execute("UPDATE line SET n = n + 1 WHERE id = 2")
        try:
            q.fetch_one("UPDATE line SET n = n + 10 RETURNING id")
        except bmdb.DatabaseError as error:
            swallowed.append(error.sqlstate)

    session.transact(fn)
    assert swallowed == ["40001"] and runs == 2
    assert sql.execute("SELECT n FROM line ORDER BY id").fetchall() == [(10,), (11,), (10,)]
