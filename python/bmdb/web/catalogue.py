"""Which tags there are, read from the database's catalogue: hourly, and whenever somebody asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import bmdb
from bmdb import _core
from bmdb.web.reading import Problem, Reading

__all__ = ["Catalogue", "Found", "Tag", "Tags", "Unread"]

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Unread:
    """A tag that could not be read, and why."""

    tag: Tag
    problem: Problem


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What was found of tags, in their order, and which of them could not be read."""

    found: list[T]
    unread: list[Unread]


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

    async def ask(
        self, reading: Reading, tags: Tags, ask: Callable[[bmdb.AsyncConnection, Tags], Awaitable[list[T]]]
    ) -> Found[T]:
        """What `ask` finds of all these tags with one statement; if that fails, of each of them alone.

        A table that may not be read, or is locked, costs its own tag only. After one that is gone the catalogue is read
        anew.
        """
        if not tags:
            return Found([], [])

        async def each(some: Tags) -> tuple[list[T] | None, Problem | None]:
            return await reading.attempt("tags", lambda connection: ask(connection, some))

        found, problem = await each(tags)
        if problem is None:
            return Found(found or [], [])
        if problem.kind == "unreachable":
            return Found([], [Unread(tag, problem) for tag in tags])
        alone = await asyncio.gather(*(each(Tags((tag,))) for tag in tags))
        unread = [Unread(tag, why) for tag, (_, why) in zip(tags, alone, strict=True) if why is not None]
        if any(one.problem.kind == "gone" for one in unread):
            self.forget()
        return Found([one for some, _ in alone for one in some or []], unread)
