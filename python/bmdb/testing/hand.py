"""The kit's own hand in a test's database: statements of `rust/core/testing`, outside any session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self, TypeVar

import bmdb
from bmdb import _core
from bmdb._core import Row
from bmdb._sync.transaction import run

__all__ = ["Hand"]

T = TypeVar("T")

STATEMENTS = dict(_core.testing_statements())


class Hand:
    """A connection to one database, opened when it is first needed. A context manager: leaving closes it."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._opened: bmdb.Connection | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _connection(self) -> bmdb.Connection:
        with self._opening:
            if self._opened is None:
                self._opened = bmdb.connect(self._conninfo, component="bmdb.testing", pool_size=2)
            return self._opened

    def _write(self, fn: Callable[[bmdb.Queries], T]) -> T:
        core = self._connection._core
        return run(core, core.unfenced(30.0), fn)

    def _rows(self, statement: str, *params: object) -> list[Row]:
        return self._write(lambda q: q.fetch(STATEMENTS[statement], *params))

    def _count(self, statement: str, *params: object) -> int:
        return self._write(lambda q: q.execute(STATEMENTS[statement], *params))
