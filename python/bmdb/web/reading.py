"""Looking at the database without disturbing work: connections that cannot write, and panels that fail alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import bmdb
from bmdb import logs
from bmdb.web.settings import Settings

__all__ = ["Panel", "Problem", "Reading"]

T = TypeVar("T")

# The server ends a statement after one second; what is on top of it is for the way there and back.
STATEMENT_SECONDS = 1.0
PANEL_SECONDS = 2.5
# So much sooner the parts of a panel have to be done than the panel: time to say which of them were not.
PART_RESERVE = 0.3
CONNECTIONS = 4

_CANCELED = "57014"
# What a statement names is no longer there: a table, or one of its columns.
_GONE = ("42P01", "42703")
_logger = logs.logger("bmdb.web")
# When the attempt that this one is part of is given up.
_given_up_at: ContextVar[float | None] = ContextVar("bmdb_web_given_up_at", default=None)


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
                    self._connection = await bmdb.AsyncConnection._reading(
                        self._settings.conninfo,
                        component="bmdb web",
                        pool_size=CONNECTIONS,
                        weak=not self._settings.strict,
                    )
        return self._connection

    async def panel(self, name: str, ask: Callable[[bmdb.AsyncConnection], Awaitable[T]]) -> Panel[T]:
        """What `ask` answers, or why it did not."""
        began = time.monotonic()
        value, problem = await self.attempt(name, ask)
        return Panel(name, value, problem, datetime.now(UTC), time.monotonic() - began)

    async def attempt(
        self, name: str, ask: Callable[[bmdb.AsyncConnection], Awaitable[T]]
    ) -> tuple[T | None, Problem | None]:
        """What `ask` answers, or why it did not; raises nothing.

        One within another is given up before that one is, so that its verdict is still heard.
        """
        began, outer = asyncio.get_running_loop().time(), _given_up_at.get()
        at = began + PANEL_SECONDS
        if outer is not None:
            at = min(at, outer - PART_RESERVE)
        inside = _given_up_at.set(at)
        try:
            async with asyncio.timeout_at(at):
                return await ask(await self.connection()), None
        except TimeoutError:
            waited = max(0.0, at - began)
            if self._connection is None:
                return None, Problem("unreachable", f"there was no connection within {waited:.1f} s")
            return None, Problem("late", f"there was no answer within {waited:.1f} s")
        except bmdb.ConnectionFailedError as error:
            return None, Problem("unreachable", str(error))
        except bmdb.DatabaseError as error:
            if error.sqlstate == _CANCELED:
                return None, Problem("late", f"a statement took longer than {STATEMENT_SECONDS:g} s and was ended")
            if error.sqlstate in _GONE:
                return None, Problem("gone", str(error))
            return None, Problem("refused", str(error))
        except bmdb.Error as error:
            return None, Problem("failed", str(error))
        except Exception as error:
            # A mistake of ours in one panel must not take the page with it.
            _logger.exception("the panel %s failed", name)
            return None, Problem("failed", f"{type(error).__name__}: the log has more")
        finally:
            _given_up_at.reset(inside)

    async def close(self) -> None:
        """Closes the connections; the next look opens new ones."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
