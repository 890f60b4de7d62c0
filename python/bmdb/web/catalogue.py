"""Which tags there are, read from the database's catalogue: hourly, and whenever somebody asks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import bmdb

__all__ = ["Catalogue", "Tag"]

SECONDS_KEPT = 3600.0


@dataclass(frozen=True)
class Tag:
    """One tag: its name, its table, and its fields with their types."""

    name: str
    table: str
    fields: tuple[tuple[str, str], ...]


class Catalogue:
    """The tags as they were last read. Names are only ever compared with these, and never part of a statement."""

    def __init__(self) -> None:
        self._tags: tuple[Tag, ...] = ()
        self._read: float | None = None
        self.at: datetime | None = None

    async def tags(self, connection: bmdb.AsyncConnection) -> tuple[Tag, ...]:
        """The tags by name; read anew if that was an hour ago."""
        if self._read is None or time.monotonic() - self._read > SECONDS_KEPT:
            found = await connection.tags()
            self._tags = tuple(Tag(name, table, tuple(fields)) for name, table, fields in found)
            self._read, self.at = time.monotonic(), datetime.now(UTC)
        return self._tags

    def forget(self) -> None:
        """Lets the next look read the catalogue anew."""
        self._read = None
