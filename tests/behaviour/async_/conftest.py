"""The fixtures `connection` and `session` of the suites for both twins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from tests import drivers

import bmdb


@pytest.fixture
async def connection(database: str) -> AsyncIterator[bmdb.AsyncConnection]:
    """An open connection to `database`, component "test"."""
    async with await bmdb.AsyncConnection.connect(database, component="test") as opened:
        yield opened


@pytest.fixture
async def session(connection: bmdb.AsyncConnection) -> AsyncIterator[bmdb.AsyncSession]:
    """A session of `connection`, interval 5 s."""
    async with await connection.start_session(interval=5.0) as started:
        yield started


@pytest.fixture
async def pg(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """The user's connection, as psycopg makes it: not in autocommit mode."""
    async with await psycopg.AsyncConnection.connect(database) as opened:
        yield opened


@pytest.fixture(params=["native", "psycopg", "sqlalchemy"])
async def driver(request: pytest.FixtureRequest, database: str) -> AsyncIterator[drivers.Driver]:
    """What transactions and ends are given besides their callback: on bmdb's own connections, and on a user's."""
    async with drivers.driver_async(request.param, database) as keywords:
        yield keywords
