"""The price of crossing the border between Python and the core: rows, and awaited calls."""

from __future__ import annotations

import pytest
from benches.python import awaiting, fetching
from benches.python.server import Server
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("side", ["bmdb", "psycopg"])
@pytest.mark.benchmark(group="fetch of 1,000 rows")
def test_fetch(benchmark: BenchmarkFixture, server: Server, side: str) -> None:
    """1,000 rows of five columns."""
    with fetching.sides(server.conninfo) as acts:
        assert benchmark(acts[side]) == fetching.ROWS


def test_awaited_calls(benchmark: BenchmarkFixture, server: Server) -> None:
    """Half a second of awaited calls in 256 tasks."""
    assert benchmark.pedantic(awaiting.core_calls, (server.conninfo, 0.5), rounds=3) > 0
