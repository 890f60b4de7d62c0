"""What a machine's tags say, typed and for people: moments with their age, bytes and long texts folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import bmdb
from bmdb import _core
from bmdb.web import texts
from bmdb.web.catalogue import Catalogue, Tag, Tags
from bmdb.web.reading import Problem, Reading

__all__ = ["FieldValue", "TagValues", "hex_dump", "tag_values"]

_BYTES_A_LINE = 16


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One field: its name and type, and its value as text, as far as that was read; `size` is the size of all of it.

    `kind` says how to show it: "null", "bytes" (`text` is hex), "moment" and "duration" (`seconds` has it in seconds),
    "json", "flag", "number" or "text".
    """

    name: str
    type: str
    kind: str
    text: str
    size: int
    seconds: float | None

    @property
    def cut(self) -> bool:
        """Whether there is more of it than `text`."""
        return self.size > (len(self.text) // 2 if self.kind == "bytes" else len(self.text))

    @property
    def dump(self) -> str:
        """Bytes for people: sixteen a line, with the letters among them."""
        return hex_dump(bytes.fromhex(self.text))

    @property
    def at(self) -> datetime | None:
        """The moment, if it is one that the calendar has."""
        return _moment(self.seconds) if self.kind == "moment" and self.seconds is not None else None

    @property
    def lasts(self) -> str:
        """A duration in words."""
        return "" if self.seconds is None else _lasting(self.seconds)


@dataclass(frozen=True, slots=True)
class TagValues:
    """A tag that a machine has, or one that could not be read, and then why."""

    tag: Tag
    fields: tuple[FieldValue, ...]
    problem: Problem | None = None


async def tag_values(catalogue: Catalogue, reading: Reading, tags: Tags, machine: UUID) -> list[TagValues]:
    """The machine's tags, by name, and those that could not be read."""
    asked = await catalogue.ask(reading, tags, lambda connection, some: _asked(connection, some, machine))
    unread = [TagValues(one.tag, (), one.problem) for one in asked.unread]
    return sorted([*asked.found, *unread], key=lambda values: values.tag.name)


async def _asked(connection: bmdb.AsyncConnection, tags: Tags, machine: UUID) -> list[TagValues]:
    rows = await connection._read(lambda q: q.fetch(tags.values, machine))
    fields: dict[int, list[FieldValue]] = {}
    for row in rows:
        of = fields.setdefault(row.tag, [])
        if row.field >= 0:
            of.append(_field(tags[row.tag].fields[row.field], row))
    return [TagValues(tags[position], tuple(values)) for position, values in fields.items()]


def _field(field: Sequence[str], row: _core.Row) -> FieldValue:
    name, kind = field
    if row.text is None:
        return FieldValue(name, kind, "null", "", 0, None)
    return FieldValue(name, kind, _kind(kind), row.text, row.size, row.epoch)


def _kind(declared: str) -> str:
    if declared.startswith("timestamp") and declared.endswith("with time zone"):
        return "moment"
    if declared.startswith("interval"):
        return "duration"
    if declared in ("smallint", "integer", "bigint", "real", "double precision") or declared.startswith("numeric"):
        return "number"
    return {"bytea": "bytes", "json": "json", "jsonb": "json", "boolean": "flag"}.get(declared, "text")


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _lasting(seconds: float) -> str:
    return texts.duration(seconds) if abs(seconds) < float("inf") else "for ever"


def hex_dump(data: bytes) -> str:
    """Sixteen bytes a line: where it begins, the bytes, and the printable ASCII among them."""
    lines = []
    for start in range(0, len(data), _BYTES_A_LINE):
        part = data[start : start + _BYTES_A_LINE]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<{3 * _BYTES_A_LINE - 1}}  {letters}")
    return "\n".join(lines)
