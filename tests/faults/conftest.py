"""What the tests of faults share: a table to write to, a connection through the proxy, metrics by name, figures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

import bmdb
from tests import portal
from tests.database import Server
from tests.faults.figures import PROPERTY, Figure, Noted, Unit
from tests.processes import Spawn, WorkerProcess
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


def sides_of(item: pytest.Item) -> set[str]:
    """Which APIs a test uses: sync, async, psycopg."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    source = item.path.read_text(encoding="utf-8")
    sides = (
        {"psycopg"} if "psycopg" in item.path.name or not {"psycopg", "sqlalchemy"}.isdisjoint(_words(item)) else set()
    )
    if "connect" in parameters:
        return sides | {str(parameters["connect"])}
    if inspect.iscoroutinefunction(getattr(item, "function", None)):
        return sides | {"async"}
    if "AsyncConnection" in source or "portal import" in source:
        # A worker process that the test starts.
        sides.add("async")
    return sides | {"sync"}


def _words(item: pytest.Item) -> set[str]:
    return set(re.findall(r"\w+", item.name.partition("[")[2]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note with each test of a fault which APIs it uses, for docs/guarantees.md."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.user_properties.append(("sides", " ".join(sorted(sides_of(item)))))


@pytest.fixture(scope="session")
def postgresql(server: Server) -> str:
    """The version of the server of this run."""
    with psycopg.connect(server.dsn()) as asking:
        (version,) = asking.execute("SHOW server_version").fetchone() or ("",)
    return str(version).partition(" ")[0]


@pytest.fixture(autouse=True)
def version_noted(postgresql: str, record_property: Callable[[str, object], None]) -> None:
    """Noted with each test, for docs/guarantees.md."""
    record_property("postgresql", postgresql)


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Connect:
    """`bmdb.connect`, or the same for the async API."""
    return TWINS[request.param]


@pytest.fixture
def spawn(request: pytest.FixtureRequest, spawn: Spawn) -> Spawn:
    """Starts worker processes, which use the same twin as their test."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("connect") != "async":
        return spawn

    def start(source: str | Path, *arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
        assert isinstance(source, str)
        ours = re.sub(r"^( *)import bmdb$", r"\1import bmdb\n\1from tests import portal", source, flags=re.MULTILINE)
        return spawn(ours.replace("bmdb.connect(", "portal.connect("), *arguments, env=env)

    return start


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
