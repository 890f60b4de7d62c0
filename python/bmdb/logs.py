"""Which session, machine, process and token a log record is about.

Records of bmdb's own loggers have the attributes `bmdb_session`, `bmdb_machine`, `bmdb_process` and `bmdb_token`: text
(the token a number) where it is known, else None. The plain names would not do: `process` of a record is the id of the
OS process. Records of one's own get them from `Fields`, or from `add_fields` in structlog.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol
from uuid import UUID

__all__ = ["Fields", "add_fields"]


class About(NamedTuple):
    """What a record is about, as far as that is known."""

    session: str | None = None
    machine: str | None = None
    process: str | None = None
    token: int | None = None

    @property
    def extra(self) -> dict[str, Any]:
        """For `logging`: the attributes of a record."""
        return dict(zip(_ATTRIBUTES, self, strict=True))


_ATTRIBUTES = ("bmdb_session", "bmdb_machine", "bmdb_process", "bmdb_token")
_NOTHING = About()


class Held(Protocol):
    """Work, of either kind."""

    @property
    def machine(self) -> UUID: ...
    @property
    def process(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def session(self) -> Any: ...


# The work whose block this code runs in, and None outside of any. Its fields are made when a record asks for them.
_held: ContextVar[Held | None] = ContextVar("bmdb_work", default=None)


def about(work: Held) -> About:
    """What records on the work are about."""
    return About(str(work.session.uuid), str(work.machine), work.process, work.token)


def current() -> About:
    """What records written here are about: the work whose block is the innermost around this code, if there is one."""
    work = _held.get()
    return _NOTHING if work is None else about(work)


def enter(work: Held) -> Held | None:
    """From here on, in this context, records are about `work`; answers about which they were before."""
    before = _held.get()
    _held.set(work)
    return before


def leave(work: Held, before: Held | None) -> None:
    """The end of that. Does nothing in another context than that of `enter`, as at the end of a generator."""
    if _held.get() is work:
        _held.set(before)


class Fields(logging.Filter):
    """Gives each record the attributes `bmdb_session`, `bmdb_machine`, `bmdb_process` and `bmdb_token`; drops none.

    To be installed on a handler: `handler.addFilter(bmdb.logs.Fields())`. Inside a work block, and so in the function
    of a loop, they are those of the work; else, and for what is not known, None. A thread that is started there is
    outside, unless it is run in a copy of the context, as `asyncio.to_thread` does.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Completes the record."""
        attributes = record.__dict__
        if not all(name in attributes for name in _ATTRIBUTES):
            for name, value in current().extra.items():
                attributes.setdefault(name, value)
        return True


def add_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: adds `session`, `machine`, `process` and `token` to each event, as `Fields` does.

    What the event says already stays. For a record of `logging` that goes through structlog's ProcessorFormatter, they
    are the record's.
    """
    record = event.get("_record")
    known = current()
    for attribute, name, value in zip(_ATTRIBUTES, About._fields, known, strict=True):
        event.setdefault(name, getattr(record, attribute, value))
    return event


_FIELDS = Fields()


def logger(name: str) -> logging.Logger:
    """The logger of that name, whose records have the attributes wherever they are handled."""
    made = logging.getLogger(name)
    # A filter of a logger sees the records of that one only, not those of the loggers below. Adding again does nothing.
    made.addFilter(_FIELDS)
    return made
