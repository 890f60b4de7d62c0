"""What the commands write: tables and JSON on standard output, one line for each error on standard error.

Causes, runtime infos, names of components and processes, and the database's messages come from outside. Here they are
made harmless to a terminal: a control character, an escape sequence or a mark that turns the direction of text is shown
as what it is, and rich's markup means nothing in them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any
from uuid import UUID

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bmdb.unseen import SUMMARY_LENGTH, said, visible

__all__ = [
    "SUMMARY_LENGTH",
    "WarningHandler",
    "one_line",
    "print_error",
    "print_json",
    "print_table",
    "summary",
    "visible",
]

_GAP = 2
# A column that is squeezed further cannot be read.
_NARROWEST = 8


def one_line(text: str) -> str:
    """The text on one line, with each run of white space as one space, and visible."""
    return visible(" ".join(text.split()))


def summary(cause: str) -> str:
    """A cause in a few words: its first line, or the last one of a Python traceback, cut to SUMMARY_LENGTH."""
    shown = visible(said(cause))
    return shown if len(shown) <= SUMMARY_LENGTH else shown[: SUMMARY_LENGTH - 1] + "…"


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"bmdb: {one_line(message)}", file=sys.stderr)


class WarningHandler(logging.Handler):
    """Shows the library's warnings like errors: one line each, and visible. A mistake's traceback follows."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        print_error(f"{record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            for line in "".join(traceback.format_exception(record.exc_info[1])).splitlines():
                print(visible(line), file=sys.stderr)


def print_json(value: Any) -> None:
    """One JSON document; timestamps in ISO 8601 and UTC, ids as text, rows as objects; ASCII only."""
    print(json.dumps(value, default=_plain, indent=2, ensure_ascii=True))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not asdict, which copies values that are no plain dict, such as read-only mappings, and fails on some.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _print_records(columns: Sequence[str], rows: Iterable[Sequence[Sequence[str]]]) -> None:
    label = max(map(cell_len, columns))
    for number, row in enumerate(rows):
        if number:
            print()
        for column, lines in zip(columns, row, strict=True):
            for name, line in zip_longest((column,), lines, fillvalue=""):
                print(f"{set_cell_size(name, label)}{' ' * _GAP}{line}".rstrip())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, fixed: frozenset[str] = frozenset()) -> None:
    """A table of cells that are already visible; what is not for a terminal is as wide as it has to be.

    Where a terminal is too narrow, cells are wrapped, except those of the `fixed` columns, which stay whole; where
    that is still too wide, each row is written as lines of its own, a cell after the other.
    """
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    cells = [[cell.split("\n") for cell in row] for row in (columns, *rows)]
    widths = [max(cell_len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    fits = sum(widths) + _GAP * (len(widths) - 1) <= console.width
    if fits or not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        # Rich takes seconds for thousands of rows, which is for nothing when there is nothing to wrap.
        for row in cells:
            for lines in zip_longest(*row, fillvalue=""):
                padded = (set_cell_size(line, width) for line, width in zip(lines, widths, strict=True))
                print((" " * _GAP).join(padded).rstrip())
        return
    kept = (width if name in fixed else min(width, _NARROWEST) for name, width in zip(columns, widths, strict=True))
    if sum(kept) + _GAP * (len(widths) - 1) > console.width:
        _print_records(columns, cells[1:])
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in fixed, overflow="fold")
    for row in cells[1:]:
        table.add_row(*(Text("\n".join(cell)) for cell in row))
    # Rich would end the process when the pipe is closed.
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
