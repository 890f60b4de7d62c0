"""What the benchmarks under pytest-benchmark share: a server with durable commits, and a machine on it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from benches.python.server import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this run."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def machine(server: Server) -> UUID:
    """Any machine."""
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute("SELECT machine_id FROM machines LIMIT 1").fetchone()
    assert row is not None
    return row[0]
