"""Counters of a worker that alerts are made of: sessions that were lost, and retries that were exhausted."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry

import bmdb
from bmdb.metrics import Collector
from tests.conftest import MakeMachines
from tests.processes import eventually

CONFLICT = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"


@pytest.fixture
def count(connection: bmdb.Connection) -> Any:
    """Reads a counter of processor "p"."""
    registry = CollectorRegistry()
    registry.register(Collector(connection))
    return lambda name: registry.get_sample_value(name, {"processor": "p"})


def test_a_session_that_is_lost_is_counted_and_one_that_is_closed_is_not(
    connection: bmdb.Connection, sql: psycopg.Connection[Any], count: Any
) -> None:
    connection.start_session(processor="p").close()
    assert count("bmdb_session_lost_total") == 0
    session = connection.start_session(interval=1, processor="p")
    sql.execute("DELETE FROM sessions")
    eventually(lambda: session.expired)
    assert (count("bmdb_session_lost_total"), count("bmdb_sessions_live")) == (1, 0)


def test_exhausted_retries_are_counted_apart_from_other_failures(
    connection: bmdb.Connection, machines: MakeMachines, database: str, count: Any
) -> None:
    (machine,) = machines(1)
    session = connection.start_session(processor="p")
    with pytest.raises(bmdb.DatabaseError):
        session.transact(lambda q: q.execute("SELECT 1/0"))
    assert (count("bmdb_transaction_failed"), count("bmdb_transaction_exhausted_total")) == (1, 0)
    with pytest.raises(bmdb.RetriesExhaustedError):
        session.transact(lambda q: q.execute(CONFLICT), max_retries=1)
    assert count("bmdb_transaction_exhausted_total") == 1
    with psycopg.connect(database) as pg, pytest.raises(bmdb.RetriesExhaustedError):
        session.transact(lambda q: q.execute(CONFLICT), max_retries=1, connection=pg)
    assert count("bmdb_transaction_exhausted_total") == 2
    work = session.work("Fix", lambda q: [machine])
    with pytest.raises(bmdb.RetriesExhaustedError):
        work.finish(lambda q: q.execute(CONFLICT), max_retries=1)
    assert count("bmdb_transaction_exhausted_total") == 3
