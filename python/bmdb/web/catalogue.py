"""Which tags there are, read from the database's catalogue: hourly, and whenever somebody asks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import bmdb
from bmdb import _core

__all__ = ["Catalogue", "Tag", "Tags"]

SECONDS_KEPT = 3600.0


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag: its name, its table, and its fields with their types."""

    name: str
    table: str
    fields: tuple[tuple[str, str], ...]

    @property
    def told(self) -> tuple[str, str, list[tuple[str, str]]]:
        """As `Connection.tags` tells it, for the core."""
        return self.name, self.table, list(self.fields)


class Tags(tuple[Tag, ...]):
    """The tags at some time, by name, and the statements that ask about them."""

    def __new__(cls, tags: tuple[Tag, ...] = ()) -> Tags:
        made = super().__new__(cls, tags)
        made.holders, made.counts, made.values = _core.tag_statements([tag.told for tag in tags])
        return made

    holders: str
    counts: str
    values: str

    @property
    def told(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """As `Connection.tags` tells them."""
        return [tag.told for tag in self]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [tag.name for tag in self]


class Catalogue:
    """The tags as they were last read. Names are only ever compared with these, and never part of a statement."""

    def __init__(self) -> None:
        self._tags = Tags()
        self._read: float | None = None
        self.at: datetime | None = None

    async def tags(self, connection: bmdb.AsyncConnection) -> Tags:
        """The tags by name; read anew if that was an hour ago."""
        if self._read is None or time.monotonic() - self._read > SECONDS_KEPT:
            found = await connection.tags()
            self._tags = Tags(tuple(Tag(name, table, tuple(fields)) for name, table, fields in found))
            self._read, self.at = time.monotonic(), datetime.now(UTC)
        return self._tags

    @property
    def known(self) -> Tags:
        """The tags as they were last read, without a look now."""
        return self._tags

    def forget(self) -> None:
        """Lets the next look read the catalogue anew."""
        self._read = None
