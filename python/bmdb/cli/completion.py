"""What a shell completes beyond commands and options: processes, machines and sessions.

A shell waits for the answer while somebody types, so there is a limit to how long the database may take and to how many
are offered, and whatever goes wrong is no answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import typer

import bmdb
from bmdb.cli.terminal import visible
from bmdb.conninfo import ENVIRONMENT_VARIABLE, is_embedded

__all__ = ["complete_machine", "complete_process", "complete_session"]

MOST = 50
CONNECT_SECONDS = 2

T = TypeVar("T")


def complete_process(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of processes that begin so."""
    names = _asked(ctx, lambda connection: [row[0] for row in _call(connection, "process_known", (incomplete, MOST))])
    # A name that a terminal would act on cannot be typed either.
    return [name for name in names if visible(name) == name]


def complete_machine(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of machines that begin so, once there is a beginning."""
    return _ids(ctx, incomplete, "completion_machines")


def complete_session(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of sessions that begin so."""
    return _ids(ctx, incomplete, "completion_sessions")


def _ids(ctx: typer.Context, incomplete: str, query: str) -> list[str]:
    bounds = _bounds(incomplete)
    if bounds is None:
        return []
    return _asked(ctx, lambda connection: [str(row[0]) for row in _call(connection, query, (*bounds, MOST))])


def _bounds(beginning: str) -> tuple[UUID, UUID] | None:
    """The lowest and the highest id that begin so; None where no id does."""
    digits = beginning.lower().replace("-", "")
    if len(digits) > 32 or not all(digit in "0123456789abcdef" for digit in digits):
        return None
    low, high = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    # Dashes stand where they stand in an id, or it would not begin so.
    return (low, high) if str(low).startswith(beginning.lower()) else None


def _call(connection: bmdb.Connection, query: str, params: tuple[object, ...]) -> Sequence[Any]:
    return connection._look(lambda q: q._core.call(query, params), seconds=CONNECT_SECONDS)


def _asked(ctx: typer.Context, ask: Callable[[bmdb.Connection], list[T]]) -> list[T]:
    conninfo = ctx.params.get("conninfo") or os.environ.get(ENVIRONMENT_VARIABLE)
    # A server is not started for the sake of a key that was pressed.
    if not conninfo or is_embedded(conninfo):
        return []
    found: list[T] = []
    with _quiet():
        limited = {"connect_timeout": str(CONNECT_SECONDS), **bmdb.conninfo.resolve(conninfo)}
        with bmdb.connect(
            bmdb.conninfo.compose(limited), component="bmdb completion", pool_size=1, pooler=None
        ) as connection:
            found = ask(connection)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing may be written between the words of a line that somebody types."""
    logger = logging.getLogger("bmdb")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.suppress(bmdb.Error, ValueError, TypeError):
            yield
    finally:
        logger.setLevel(before)
