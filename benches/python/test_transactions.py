"""The price of a transaction fenced by a session, beside the same statements in psycopg.

One after the other: ratios are benches/run.py's to tell, which lets them take turns.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from benches.python.server import Server
from benches.python.transactions import Side, bmdb_side, psycopg_side
from pytest_benchmark.fixture import BenchmarkFixture

SIDES = [pytest.param(bmdb_side, id="bmdb"), pytest.param(psycopg_side, id="psycopg")]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.benchmark(group="empty transaction")
def test_empty_transaction(benchmark: BenchmarkFixture, server: Server, machine: UUID, side: Side) -> None:
    """BEGIN, the session's fence, COMMIT."""
    with side(server.conninfo, machine) as (empty, _):
        benchmark(empty)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.benchmark(group="transaction with one query")
def test_transaction_with_one_query(benchmark: BenchmarkFixture, server: Server, machine: UUID, side: Side) -> None:
    """The same with a query by primary key, whose row is fetched."""
    with side(server.conninfo, machine) as (_, one_query):
        assert benchmark(one_query)[0] == machine
