"""Real work, as Prometheus sees it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.processes import eventually

import bmdb
from bmdb.metrics import Collector


def read(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Every sample of the page but buckets, by name and the values of its labels."""
    return {
        (sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_what_was_done_is_counted(connection: bmdb.Connection, machines: Any) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(connection))
    ids = machines(3)
    session = connection.start_session(interval=1, processor="starter")
    before = read(registry)
    held = [session.work("UnitTest1", lambda q, machine=machine: [machine]) for machine in ids]
    held[0].finish()
    held[1].fail("no answer", bmdb.Backoff(60))
    assert read(registry)["bmdb_leases_live", "starter"] == 1
    held[2].cancel()

    def broken(q: bmdb.Queries) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        session.transact(broken)
    session.transact(lambda q: q.count_machines())
    after = read(registry)
    assert after["bmdb_session_started", "starter"] == 1
    assert after["bmdb_sessions_live", "starter"] == 1
    assert after["bmdb_leases_live", "starter"] == 0
    assert after["bmdb_work_started", "UnitTest1 starter"] == 3
    for result in ("finished", "failed", "canceled"):
        assert after["bmdb_work_finished", f"UnitTest1 starter {result}"] == 1
    assert after["bmdb_transaction_failed", "starter"] == 1
    assert after["bmdb_transaction_executed", "starter"] - before["bmdb_transaction_executed", "starter"] >= 5
    assert after["bmdb_transaction_seconds_count", "failed starter"] == 1
    assert after["bmdb_transaction_seconds_count", "committed starter"] >= 4
    assert after["bmdb_transaction_seconds_sum", "committed starter"] > 0
    eventually(lambda: read(registry)["bmdb_heartbeats_total", ""] >= 2, 10)
    lateness = read(registry)
    assert lateness["bmdb_heartbeat_lateness_seconds_count", ""] >= 2
    session.close()
    assert read(registry)["bmdb_sessions_live", "starter"] == 0


def test_connections_of_both_kinds_may_be_closed_and_are_still_read(connection: bmdb.Connection) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(connection))
    connection.start_session(processor="p").close()
    connection.close()
    assert read(registry)["bmdb_session_started", "p"] == 1


async def test_an_async_connection_is_read_alike(database: str, connection: bmdb.Connection) -> None:
    async with await bmdb.AsyncConnection.connect(database, component="test") as other:
        registry = CollectorRegistry()
        registry.register(Collector(connection, other))
        connection.start_session(processor="p")
        await other.start_session(processor="p")
        assert read(registry)["bmdb_session_started", "p"] == 2
        assert read(registry)["bmdb_sessions_live", "p"] == 2
