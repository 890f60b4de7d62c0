"""The doctor's own connection: a plain one, since the library's would not even open where something is wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from bmdb import _core
from bmdb import conninfo as _conninfo

__all__ = ["Probe"]

# Milliseconds for one look. What takes longer is not worth it on a database that has work to do.
LIMIT = 5000
CONNECT_SECONDS = 10


class Probe:
    """Runs the library's statements by name, each in a transaction of its own, and knows how it got to the server."""

    def __init__(self, keywords: Mapping[str, str]) -> None:
        self.keywords = keywords
        self._texts: Mapping[str, str] = dict(_core.queries())
        limited = {"connect_timeout": str(CONNECT_SECONDS), **keywords, "application_name": "bmdb doctor"}
        begun = time.monotonic()
        self._connection = psycopg.connect(
            _conninfo.compose(limited),
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            row_factory=namedtuple_row,
            prepare_threshold=None,
        )
        self.connect_seconds = time.monotonic() - begun

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """What libpq knows of the connection."""
        return self._connection.info

    @property
    def encrypted(self) -> bool:
        """Whether what leaves this process is encrypted."""
        return bool(self._connection.pgconn.ssl_in_use)

    @property
    def alive(self) -> bool:
        """False once the connection is lost."""
        return not self._connection.closed

    def ask(self, name: str, *params: object) -> Sequence[Any]:
        """The rows that a statement answers with. Raises psycopg.Error."""
        with self._connection.transaction():
            self._connection.execute(self._texts["doctor_limit"].encode(), [str(LIMIT)])
            return self._rows(name, params)

    def tell(self, name: str, *params: object) -> Sequence[Any]:
        """The same by the statement alone, in a transaction that is it, as the heartbeat sends its own."""
        return self._rows(name, params)

    def write(self) -> None:
        """Lets what is told from now on write, whatever the role begins with."""
        self._rows("doctor_write", ())

    def _rows(self, name: str, params: Sequence[object]) -> Sequence[Any]:
        cursor = self._connection.execute(self._texts[name].encode(), params)
        return cursor.fetchall() if cursor.description is not None else ()

    def settings(self, *names: str) -> Mapping[str, str]:
        """What each session of this role begins with; without what the role may not see or the server does not know."""
        return {row.name: row.value for row in self.ask("doctor_settings", list(names))}

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
