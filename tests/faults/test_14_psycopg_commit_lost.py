"""Rows 14, 15, 17: a COMMIT on the user's psycopg connection, or the answer to it, is lost.

Promised: as on bmdb's own connections: claims and ends find it out, a plain transaction is ambiguous, and resolves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from bmdb.psycopg import run_transaction
from tests.proxy import Proxy

# The connections are those of the sync API; tests/behaviour and row 35 run transactions on psycopg's async ones.
pytestmark = pytest.mark.one_twin

Sql = psycopg.Connection[Any]


@pytest.fixture
def pg(proxy: Proxy, database: str) -> Iterator[psycopg.Connection[Any]]:
    """The user's connection leads through the proxy, bmdb's own does not."""
    with psycopg.connect(proxy.conninfo(database)) as opened:
        yield opened


def count(sql: Sql) -> int:
    row = sql.execute("SELECT count(*) FROM writes").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def doubt(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[bool]:
    """Whether the COMMIT, in whose course the connection breaks, takes effect."""
    cutting = proxy.cutting_after_commit if request.param else proxy.cutting_before_commit
    with cutting():
        yield request.param


@pytest.mark.parametrize("doubt", [True, False], indirect=True)
def test_a_plain_transaction_is_ambiguous_and_resolves(
    session: bmdb.Session, pg: psycopg.Connection[Any], sql: Sql, writes: str, doubt: bool
) -> None:
    runs: list[int] = []

    def write(q: Any) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('x')"))

    with pytest.raises(bmdb.AmbiguousCommitError) as caught:
        session.transact(write, connection=pg)
    assert caught.value.xid is not None
    assert caught.value.resolve(timeout=5) is doubt
    assert runs == [1]
    assert count(sql) == doubt


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
@pytest.mark.parametrize("doubt", [True], indirect=True)
def test_an_end_that_took_effect_is_reported_as_done(
    session: bmdb.Session,
    pg: psycopg.Connection[Any],
    sql: Sql,
    writes: str,
    machines: Callable[[int], list[UUID]],
    end: str,
    doubt: bool,
) -> None:
    (machine,) = machines(1)
    work = session.work("Doubtful", lambda q: [machine])

    def commit(q: Any) -> None:
        q.execute("INSERT INTO writes VALUES ('x')")

    if end == "fail":
        work.fail("no answer", bmdb.Backoff(60), commit=commit, connection=pg)
    else:
        getattr(work, end)(commit, connection=pg)
    assert work.state == {"finish": "finished", "fail": "failed", "cancel": "canceled"}[end]
    assert count(sql) == 1


@pytest.mark.parametrize("doubt", [False], indirect=True)
def test_an_end_that_did_not_is_not_run_again_and_may_be_tried_on_another_connection(
    session: bmdb.Session,
    pg: psycopg.Connection[Any],
    sql: Sql,
    writes: str,
    machines: Callable[[int], list[UUID]],
    doubt: bool,
) -> None:
    (machine,) = machines(1)
    work = session.work("Doubtful", lambda q: [machine])
    with pytest.raises(bmdb.ConnectionFailedError):
        work.finish(lambda q: q.execute("INSERT INTO writes VALUES ('x')"), connection=pg)
    assert work.state == "active"
    work.finish(lambda q: q.execute("INSERT INTO writes VALUES ('y')"))
    assert sql.execute("SELECT what FROM writes").fetchall() == [("y",)]


@pytest.mark.parametrize("committed", [True, False])
def test_a_server_that_does_not_know_is_believed(
    session: bmdb.Session, pg: psycopg.Connection[Any], proxy: Proxy, sql: Sql, writes: str, committed: bool
) -> None:
    with proxy.injecting("40003", executed=committed), pytest.raises(bmdb.AmbiguousCommitError) as caught:
        session.transact(lambda q: q.execute("INSERT INTO writes VALUES ('x')"), connection=pg)
    assert caught.value.resolve(timeout=5) is committed
    assert count(sql) == committed


@pytest.mark.parametrize("doubt", [True, False], indirect=True)
def test_without_a_session_it_is_ambiguous(pg: psycopg.Connection[Any], sql: Sql, writes: str, doubt: bool) -> None:
    with pytest.raises(bmdb.AmbiguousCommitError):
        run_transaction(pg, lambda conn: conn.execute("INSERT INTO writes VALUES ('x')"))
    assert count(sql) == doubt
