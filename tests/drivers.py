"""The drivers that a transaction can run on: what `transact` and the ends of work are given besides the callback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

# What a transaction is given to run on that driver.
Driver = dict[str, Any]

# "native" is bmdb's own; the others are connections of the user's.
DRIVERS = ("native", "psycopg", "sqlalchemy")


def url(conninfo: str) -> sqlalchemy.URL:
    """The database of a connection string, as SQLAlchemy names it."""
    parts = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    return sqlalchemy.URL.create("postgresql+psycopg", database=parts.pop("dbname"), query=parts)


@contextmanager
def driver(name: str, conninfo: str) -> Iterator[dict[str, Any]]:
    """Keyword arguments for the sync API: {}, {"connection": …} or {"engine": …}, open until the end of the block."""
    if name == "native":
        yield {}
    elif name == "psycopg":
        with psycopg.connect(conninfo, application_name="test psycopg") as connection:
            yield {"connection": connection}
    elif name == "sqlalchemy":
        engine = sqlalchemy.create_engine(url(conninfo))
        try:
            yield {"engine": engine}
        finally:
            engine.dispose()
    else:
        raise ValueError(f"there is no driver {name!r}")


@asynccontextmanager
async def driver_async(name: str, conninfo: str) -> AsyncIterator[dict[str, Any]]:
    """The same for the async API."""
    if name == "native":
        yield {}
    elif name == "psycopg":
        async with await psycopg.AsyncConnection.connect(conninfo, application_name="test psycopg") as connection:
            yield {"connection": connection}
    elif name == "sqlalchemy":
        engine = create_async_engine(url(conninfo))
        try:
            yield {"engine": engine}
        finally:
            await engine.dispose()
    else:
        raise ValueError(f"there is no driver {name!r}")
