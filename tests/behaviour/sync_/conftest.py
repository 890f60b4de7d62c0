# Generated from tests/behaviour/async_/conftest.py by tools/generate_sync.py: do not edit.
"""The fixtures `connection` and `session` of the suites for both twins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests import drivers

import bmdb


@pytest.fixture
def connection(database: str) -> Iterator[bmdb.Connection]:
    """An open connection to `database`, component "test"."""
    with bmdb.connect(database, component="test") as opened:
        yield opened


@pytest.fixture
def session(connection: bmdb.Connection) -> Iterator[bmdb.Session]:
    """A session of `connection`, interval 5 s."""
    with connection.start_session(interval=5.0) as started:
        yield started


@pytest.fixture
def pg(database: str) -> Iterator[psycopg.Connection[Any]]:
    """The user's connection, as psycopg makes it: not in autocommit mode."""
    with psycopg.connect(database) as opened:
        yield opened


@pytest.fixture(params=["native", "psycopg", "sqlalchemy"])
def driver(request: pytest.FixtureRequest, database: str) -> Iterator[drivers.Driver]:
    """What transactions and ends are given besides their callback: on bmdb's own connections, and on a user's."""
    with drivers.driver(request.param, database) as keywords:
        yield keywords
