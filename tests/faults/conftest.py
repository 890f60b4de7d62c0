"""What the tests of faults share: a table to write to, a connection through the proxy, metrics by name, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from tests.faults.figures import PROPERTY, Figure, Noted, Unit
from tests.proxy import Proxy

# The sum of a metric's samples that carry the labels given.
Metric = Callable[..., float]


@pytest.fixture
def writes(sql: psycopg.Connection[Any]) -> str:
    """Name of an empty table with one text column `what`, for users' transactions to write to."""
    sql.execute("CREATE TABLE writes (what text)")
    return "writes"


@pytest.fixture
def proxied(proxy: Proxy, database: str) -> Iterator[bmdb.Connection]:
    """An open bmdb connection that leads through the proxy."""
    with bmdb.connect(proxy.conninfo(database), component="proxied") as opened:
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
