"""Fixtures for tests of workers that lease work with bmdb; `bmdb.testing` is what they are made of.

pytest imports this module in every run where bmdb is installed, so it imports nothing of bmdb until a fixture is
used, and stands outside the package, whose import takes long.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import bmdb
    from bmdb import testing

__all__ = [
    "bmdb_async_connect",
    "bmdb_clock",
    "bmdb_connect",
    "bmdb_connection",
    "bmdb_database",
    "bmdb_faults",
    "bmdb_fleet",
    "bmdb_server",
    "bmdb_session",
    "bmdb_spawn",
]


@pytest.fixture(scope="session")
def bmdb_server(request: pytest.FixtureRequest) -> Iterator[testing.Server]:
    """The PostgreSQL server of this run: embedded, one for all processes of pytest-xdist, gone afterwards.

    Or the one that $BMDB_TESTING_CONNINFO names, whose user must be allowed to create databases.
    """
    from bmdb.testing import Server

    worker: dict[str, Any] = getattr(request.config, "workerinput", {})
    with Server(worker.get("testrunuid"), conninfo=os.environ.get("BMDB_TESTING_CONNINFO")) as server:
        yield server


@pytest.fixture
def _bmdb_fresh(bmdb_server: testing.Server) -> Iterator[str]:
    with bmdb_server.database() as conninfo:
        yield conninfo


@pytest.fixture
def bmdb_database(request: pytest.FixtureRequest, _bmdb_fresh: str) -> str:
    """Connection string of a database for this test alone, with bmdb's newest schema and no machines.

    If the test also asks for `bmdb_faults`, it leads through them.
    """
    if "bmdb_faults" in request.fixturenames:
        faults: testing.Faults = request.getfixturevalue("bmdb_faults")
        return faults.conninfo
    return _bmdb_fresh


@pytest.fixture
def bmdb_faults(_bmdb_fresh: str) -> Iterator[testing.Faults]:
    """Faults between this test's workers and the server: see `bmdb.testing.Faults`."""
    from bmdb.testing import Faults

    with Faults(_bmdb_fresh) as faults:
        yield faults


@pytest.fixture
def bmdb_connect(bmdb_database: str) -> Iterator[Callable[..., bmdb.Connection]]:
    """A function that opens connections to the test's database, closed after the test.

    Takes the keywords of `bmdb.connect`; `component` is "test" unless given.
    """
    import bmdb

    with contextlib.ExitStack() as opened:

        def connect(*, component: str = "test", **settings: Any) -> bmdb.Connection:
            return opened.enter_context(bmdb.connect(bmdb_database, component=component, **settings))

        yield connect


@pytest.fixture
def bmdb_connection(bmdb_connect: Callable[..., bmdb.Connection]) -> bmdb.Connection:
    """An open connection to the test's database, component "test"."""
    return bmdb_connect()


@pytest.fixture
def bmdb_session(bmdb_connection: bmdb.Connection) -> Iterator[bmdb.Session]:
    """A session of `bmdb_connection`, interval 5 s."""
    with bmdb_connection.start_session() as session:
        yield session


@pytest.fixture
def bmdb_async_connect(bmdb_database: str) -> Callable[..., AbstractAsyncContextManager[bmdb.AsyncConnection]]:
    """A function for `async with bmdb_async_connect() as connection:`, on whatever event loop the test runs.

    Takes the keywords of `bmdb.AsyncConnection.connect`; `component` is "test" unless given.
    """
    import bmdb

    @contextlib.asynccontextmanager
    async def connect(*, component: str = "test", **settings: Any) -> Any:
        connection = await bmdb.AsyncConnection.connect(bmdb_database, component=component, **settings)
        async with connection:
            yield connection

    return connect


@pytest.fixture
def bmdb_fleet(_bmdb_fresh: str) -> Iterator[testing.Fleet]:
    """Makes machines in the test's database and tells what became of them: see `bmdb.testing.Fleet`."""
    from bmdb.testing import Fleet

    with Fleet(_bmdb_fresh) as fleet:
        yield fleet


@pytest.fixture
def bmdb_clock(_bmdb_fresh: str) -> Iterator[testing.Clock]:
    """Expires sessions and lets backoffs pass in the test's database: see `bmdb.testing.Clock`."""
    from bmdb.testing import Clock

    with Clock(_bmdb_fresh) as clock:
        yield clock


@pytest.fixture
def bmdb_spawn(bmdb_database: str) -> Iterator[Callable[..., testing.Child]]:
    """A function that starts a worker as a process of its own, killed after the test: see `bmdb.testing.Child`.

    It finds the test's database in $BMDB_CONNINFO.
    """
    from bmdb.testing import Child

    with contextlib.ExitStack() as started:

        def spawn(command: Path | Sequence[str], **env: str) -> testing.Child:
            return started.enter_context(Child(command, env={"BMDB_CONNINFO": bmdb_database, **env}))

        yield spawn
