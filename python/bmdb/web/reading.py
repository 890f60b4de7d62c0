"""Looking at the database without disturbing work: connections that cannot write, and panels that fail alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import bmdb
from bmdb.web.settings import Settings

__all__ = ["Panel", "Problem", "Reading"]

T = TypeVar("T")

# The server ends a statement after one second; what is on top of it is for the way there and back.
STATEMENT_SECONDS = 1.0
PANEL_SECONDS = 2.5
CONNECT_SECONDS = 2.0
CONNECTIONS = 4

_CANCELED = "57014"
_logger = logging.getLogger("bmdb.web")


@dataclass(frozen=True)
class Problem:
    """Why a panel has nothing to show. `text` may hold what the database said, and is not escaped."""

    kind: str
    text: str


@dataclass(frozen=True)
class Panel(Generic[T]):
    """One part of a page: its value, or why there is none, and when that was found out."""

    name: str
    value: T | None
    problem: Problem | None
    at: datetime
    seconds: float


class Reading:
    """A small pool of read-only connections, opened when first needed, and again once the database is back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: bmdb.AsyncConnection | None = None
        self._connecting = asyncio.Lock()

    async def connection(self) -> bmdb.AsyncConnection:
        """The connection. Raises ConnectionFailedError, ConfigError or MigrationError while there is none to be had."""
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await bmdb.AsyncConnection.connect(
                        self._settings.conninfo, component="bmdb web", pool_size=CONNECTIONS, isolation="read committed"
                    )
        return self._connection

    async def panel(self, name: str, ask: Callable[[bmdb.AsyncConnection], Awaitable[T]]) -> Panel[T]:
        """What `ask` answers, or why it did not. Raises nothing but what a caller of the page is to see whole."""
        began = time.monotonic()
        value: T | None = None
        problem: Problem | None = None
        try:
            async with asyncio.timeout(PANEL_SECONDS):
                value = await ask(await self.connection())
        except TimeoutError:
            problem = Problem("unreachable", "the database did not answer in time")
        except bmdb.DatabaseError as error:
            late = error.sqlstate == _CANCELED
            problem = Problem("late", f"took longer than {STATEMENT_SECONDS:g} s") if late else _told("refused", error)
        except bmdb.ConnectionFailedError as error:
            problem = _told("unreachable", error)
        except bmdb.Error as error:
            problem = _told("failed", error)
        except Exception as error:
            # A mistake of ours in one panel must not take the page with it.
            _logger.exception("the panel %s failed", name)
            problem = Problem("failed", f"{type(error).__name__}; the log has more")
        return Panel(name, value, problem, datetime.now(UTC), time.monotonic() - began)

    async def close(self) -> None:
        """Closes the connections; the next look opens new ones."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _told(kind: str, error: Exception) -> Problem:
    return Problem(kind, str(error))
