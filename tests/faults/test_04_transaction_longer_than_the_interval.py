"""Row 4: a transaction takes six intervals.

Promised: heartbeats pass beside it, and it commits.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.proxy import Proxy

INTERVALS = 6


@pytest.mark.slow
def test_heartbeats_pass_a_long_transaction(
    proxy: Proxy, proxied: bmdb.Connection, database: str, sql: psycopg.Connection[Any], writes: str
) -> None:
    """The check of the session locks its row for a reason; FOR SHARE instead of FOR KEY SHARE would stop the beats.

    The transaction has read the row that the beats write. Were a beat serializable, a rival that reads what the
    transaction writes would complete a dangerous structure (rival, transaction, beat), and the transaction would have
    to run again, and again.
    """
    session = proxied.start_session(interval=1)
    deadlines: set[Any] = set()
    runs: list[int] = []

    def dawdle(q: bmdb.Queries) -> str:
        runs.append(q.execute("INSERT INTO writes VALUES ('slow')"))
        end = time.monotonic() + INTERVALS
        while time.monotonic() < end:
            deadlines.update(sql.execute("SELECT session_deadline FROM sessions").fetchall())
            time.sleep(0.05)
        with psycopg.connect(database) as rival:
            rival.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            assert rival.execute("SELECT count(*) FROM writes").fetchone() == (0,)
        q.fetch_value("SELECT count(*) FROM writes")
        return "done"

    assert session.transact(dawdle) == "done"
    assert runs == [1]
    assert not session.expired
    assert sql.execute("SELECT what FROM writes").fetchall() == [("slow",)]
    # A beat goes out after half an interval at the latest.
    assert len(deadlines) >= 2 * INTERVALS - 2
    # They all went out on one connection: none had to be given up.
    assert len({beat.connection for beat in proxy.statements("UPDATE sessions")}) == 1
