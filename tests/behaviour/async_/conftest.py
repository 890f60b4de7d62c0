"""The fixtures `connection` and `session` of the suites for both twins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

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
