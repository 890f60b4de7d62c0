"""Rows 1, 12, 24: a session runs out while its holder sits in a transaction on a psycopg connection of its own.

Promised: collection ends that transaction, and nothing of it lands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb

# The connections are those of the sync API; tests/behaviour and row 35 run transactions on psycopg's async ones.
pytestmark = pytest.mark.one_twin


@pytest.mark.parametrize("end", [True, False])
def test_collection_ends_it_and_nothing_lands(
    connection: bmdb.Connection,
    database: str,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    end: bool,
) -> None:
    offered = machines(1)
    session = connection.start_session(interval=60)
    work = session.work("Stalled", lambda q: offered)

    def stall(q: Any) -> None:
        q.connection.execute("INSERT INTO writes VALUES ('stale')")
        sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '10 seconds'")
        deadline = time.monotonic() + 20
        while sql.execute("SELECT FROM sessions").fetchone() is not None:
            assert time.monotonic() < deadline
            rival.collect()
            time.sleep(0.02)

    with bmdb.connect(database, component="rival") as rival, psycopg.connect(database) as pg:
        stalls = work.finish if end else session.transact
        with pytest.raises((bmdb.SessionExpiredError, bmdb.ConnectionFailedError)):
            stalls(stall, connection=pg)
        with rival.start_session() as successor, successor.work("Stalled", lambda q: offered) as taken:
            assert taken.token == work.token + 1
    assert sql.execute("SELECT what FROM writes").fetchall() == []
    assert [event.event for event in connection.history_of(offered[0])][:2] == ["Started", "Lost"]
