"""What the tests of faults share: a table to write to, a connection through the proxy, metrics by name, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest

import bmdb
from tests import portal
from tests.faults.figures import PROPERTY, Figure, Noted, Unit
from tests.proxy import Proxy

Connect = Callable[..., bmdb.Connection]
TWINS: Mapping[str, Connect] = {"sync": bmdb.connect, "async": portal.connect}

# The sum of a metric's samples that carry the labels given.
Metric = Callable[..., float]


@pytest.fixture
def writes(sql: psycopg.Connection[Any]) -> str:
    """Name of an empty table with one text column `what`, for users' transactions to write to."""
    sql.execute("CREATE TABLE writes (what text)")
    return "writes"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What connects in a test runs on both twins, unless the test or its file has the mark `one_twin`."""
    if "connect" in metafunc.fixturenames:
        one = metafunc.definition.get_closest_marker("one_twin") is not None
        metafunc.parametrize("connect", TWINS if not one else ["sync"], indirect=True, scope="function")


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Connect:
    """`bmdb.connect`, or the same for the async API."""
    return TWINS[request.param]


@pytest.fixture
def connection(connect: Connect, database: str) -> Iterator[bmdb.Connection]:
    """An open bmdb connection to `database`, component "test"."""
    with connect(database, component="test") as opened:
        yield opened


@pytest.fixture
def proxied(connect: Connect, proxy: Proxy, database: str) -> Iterator[bmdb.Connection]:
    """An open bmdb connection that leads through the proxy."""
    with connect(proxy.conninfo(database), component="proxied") as opened:
        yield opened


@pytest.fixture
def metric() -> Metric:
    """A function (connection, name, **labels) that answers the sum of the counters or gauges that match."""

    def total(connection: bmdb.Connection, name: str, **labels: str) -> float:
        return sum(
            float(value)
            for found, kind, having, value in connection.metrics()
            if found == name and kind != "histogram" and labels.items() <= having.items()
        )

    return total


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Notes what the test has measured, for docs/guarantees.md: see `tests.faults.figures.Figure`."""

    def note(text: str, value: float, unit: Unit = "", *, of: int | None = None) -> None:
        noted: Noted = (text, value, unit, of)
        record_property(PROPERTY, noted)

    return note
