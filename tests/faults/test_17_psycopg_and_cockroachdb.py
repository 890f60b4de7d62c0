"""Row 17: CockroachDB's retry protocol on the user's psycopg connection, where the RELEASE is the commit.

Promised: the same as natively; played on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.crdb import CrdbConnection
from psycopg.pq import TransactionStatus

import bmdb
from bmdb.psycopg import run_transaction
from tests.proxy import Proxy

RESTART = "ROLLBACK TO SAVEPOINT cockroach_restart"
RELEASE = "RELEASE SAVEPOINT cockroach_restart"


@pytest.fixture
def roach(
    proxy: Proxy, database: str, writes: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """A connection that takes its server for CockroachDB."""
    monkeypatch.setattr(CrdbConnection, "is_crdb", lambda conn: True)
    with psycopg.connect(proxy.conninfo(database)) as opened:
        yield opened


class Write:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, conn: psycopg.Connection[Any]) -> int:
        self.runs += 1
        return conn.execute("INSERT INTO writes VALUES ('x')").rowcount


def count(sql: psycopg.Connection[Any]) -> int:
    row = sql.execute("SELECT count(*) FROM writes").fetchone()
    assert row is not None
    return int(row[0])


def test_one_run_is_a_savepoint_and_its_release(
    roach: psycopg.Connection[Any], proxy: Proxy, sql: psycopg.Connection[Any]
) -> None:
    assert run_transaction(roach, Write()) == 1
    assert count(sql) == 1
    sent = [statement.text for statement in proxy.statements()]
    assert [text for text in sent if "INSERT" not in text] == [
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE", "SAVEPOINT cockroach_restart", RELEASE, "COMMIT"
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["INSERT INTO writes", RELEASE])
def test_a_conflict_goes_back_to_the_savepoint(
    roach: psycopg.Connection[Any], proxy: Proxy, sql: psycopg.Connection[Any], where: str
) -> None:
    write = Write()
    with proxy.injecting("40001", where) as told:
        assert run_transaction(roach, write) == 1
    assert told.hits == 1
    assert write.runs == 2
    assert proxy.count(RESTART) == 1 and proxy.count("BEGIN") == 1
    assert count(sql) == 1


@pytest.mark.parametrize("sqlstate", ["40003", "XX000", "53100"])
def test_another_error_of_the_release_is_ambiguous(roach: psycopg.Connection[Any], proxy: Proxy, sqlstate: str) -> None:
    write = Write()
    with proxy.injecting(sqlstate, RELEASE), pytest.raises(bmdb.AmbiguousCommitError) as caught:
        run_transaction(roach, write)
    assert write.runs == 1
    with pytest.raises(bmdb.WorkStateError, match="nobody to ask"):
        caught.value.resolve()


def test_a_restart_that_fails_keeps_both_causes(roach: psycopg.Connection[Any], proxy: Proxy) -> None:
    with (
        proxy.injecting("40001", "INSERT INTO writes"),
        proxy.injecting("XX000", RESTART),
        pytest.raises(bmdb.TransactionRestartError) as caught,
    ):
        run_transaction(roach, Write())
    assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)
    assert roach.closed or roach.info.transaction_status is TransactionStatus.IDLE


def test_conflicts_without_end_exhaust_the_retries(
    roach: psycopg.Connection[Any], proxy: Proxy, sql: psycopg.Connection[Any]
) -> None:
    write = Write()
    with (
        proxy.injecting("40001", "INSERT INTO writes", times=None),
        pytest.raises(bmdb.RetriesExhaustedError) as caught,
    ):
        run_transaction(roach, write, max_retries=2)
    assert caught.value.attempts == write.runs == 3
    assert roach.info.transaction_status is TransactionStatus.IDLE
    assert count(sql) == 0


def test_an_error_after_the_release_changes_nothing(roach: psycopg.Connection[Any], proxy: Proxy) -> None:
    with proxy.cutting_before(r"^COMMIT"):
        assert run_transaction(roach, Write()) == 1
    assert roach.closed
