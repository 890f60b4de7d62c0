"""The drivers that a transaction can run on: what `transact` and the ends of work are given besides the callback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

# "native" is bmdb's own; the others are connections of the user's.
DRIVERS = ("native", "psycopg")


@contextmanager
def driver(name: str, conninfo: str) -> Iterator[dict[str, Any]]:
    """Keyword arguments for the sync API: {} or {"connection": …}, open until the end of the block."""
    if name == "native":
        yield {}
    elif name == "psycopg":
        with psycopg.connect(conninfo, application_name="test psycopg") as connection:
            yield {"connection": connection}
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
    else:
        raise ValueError(f"there is no driver {name!r}")
