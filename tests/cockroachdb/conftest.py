"""A migrated database behind the stand-in for CockroachDB, and a connection to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

import bmdb
from tests.cockroachdb.stand_in import StandIn
from tests.database import Server
from tests.proxy import Proxy


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """What speaks as CockroachDB would. A test in which it has to refuse something of the library's fails."""
    spoken = StandIn()
    yield spoken
    assert spoken.refused == []


@pytest.fixture
def roach_proxy(server: Server, stand_in: StandIn) -> Iterator[Proxy]:
    """The proxy that the stand-in speaks through."""
    with Proxy(*server.address, interpreter=stand_in) as running:
        yield running


@pytest.fixture
def roach_dsn(roach_proxy: Proxy, empty_database: str) -> str:
    """Connection string of a database that was migrated as CockroachDB is."""
    dsn = roach_proxy.conninfo(empty_database)
    with bmdb.connect(dsn, component="migrator", migrate=True):
        return dsn


@pytest.fixture
def roach(roach_dsn: str) -> Iterator[bmdb.Connection]:
    """An open connection to it."""
    with bmdb.connect(roach_dsn, component="roach") as opened:
        yield opened


@pytest.fixture
def new_machines(roach: bmdb.Connection) -> Callable[[int], list[UUID]]:
    """A function that inserts so many machines and answers their ids."""

    def make(count: int) -> list[UUID]:
        with roach.start_session(interval=60) as session:
            return session.transact(lambda q: [q.new_machine().machine_id for _ in range(count)])

    return make
