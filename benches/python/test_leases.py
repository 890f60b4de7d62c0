"""The price of leasing a machine and finishing it with one tag."""

from __future__ import annotations

import pytest
from benches.python.leases import COMPONENT, ISOLATIONS, cycle
from benches.python.server import Server
from pytest_benchmark.fixture import BenchmarkFixture

import bmdb


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.benchmark(group="lease cycle, one thread")
def test_lease_cycle(benchmark: BenchmarkFixture, server: Server, isolation: str) -> None:
    """work() with a retrieval callback, finish() with one tag."""
    server.reset()
    with (
        bmdb.connect(server.conninfo, component=COMPONENT) as connection,
        connection.start_session(interval=60) as session,
    ):
        benchmark(cycle, session, isolation)
