"""Sessions: all of them, and one: whose it is, whether it lives, what it holds, and everything it ever did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import bmdb
from bmdb.model import SessionInfo, SessionUse
from bmdb.web.site import Part, site_of
from bmdb.web.texts import moment_of

__all__ = ["routes"]

SESSIONS_SHOWN = 100
EVENTS_SHOWN = 50
LEASES_SHOWN = 100
_BETWEEN = "~"


@dataclass(frozen=True, slots=True)
class Lease:
    """What a session holds."""

    machine: UUID
    process: str
    token: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Leases:
    """The oldest leases of a session, and how many there are."""

    shown: list[Lease]
    count: int


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that a session did, and when the lease began that it ended."""

    machine: UUID
    process: str
    event: str
    at: datetime
    cause: str | None
    component: str | None
    token: int | None
    began: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long the lease was held that ended so."""
        return None if self.began is None else (self.at - self.began).total_seconds()

    @property
    def place(self) -> str:
        """Where in the history it stands, for the page after it."""
        return _BETWEEN.join((self.at.astimezone(UTC).isoformat(), str(self.machine), self.event, self.process))


@dataclass(frozen=True, slots=True)
class Deeds:
    """A page of deeds, and where the next one begins, if there is more."""

    shown: list[Deed]
    before: str | None


@dataclass(frozen=True, slots=True)
class Sessions:
    """A page of sessions, and where the next one begins, if there is more."""

    shown: list[SessionUse]
    after: UUID | None


async def sessions(request: Request) -> Response:
    """All sessions by id: those that live, and those that expired and are not collected yet."""
    try:
        after = UUID(request.query_params["after"]) if "after" in request.query_params else None
    except ValueError:
        return PlainTextResponse("after must be the id of a session", 400)

    async def ask(connection: bmdb.AsyncConnection) -> Sessions:
        found = await connection._read(lambda q: q.sessions(after, SESSIONS_SHOWN + 1))
        more = len(found) > SESSIONS_SHOWN
        return Sessions(found[:SESSIONS_SHOWN], found[SESSIONS_SHOWN - 1].session_id if more else None)

    return await site_of(request).parts(request, "sessions.html", {"list": Part("Sessions", ask)})


async def session(request: Request) -> Response:
    """One session. What it did is there to be read when it has long been closed or collected."""
    wanted: UUID = request.path_params["session"]
    try:
        before = _place(request.query_params.get("before"))
    except ValueError:
        return PlainTextResponse("before must be what the link to older events says", 400)

    async def info(connection: bmdb.AsyncConnection) -> SessionInfo | None:
        return await connection.session_info(wanted)

    async def leases(connection: bmdb.AsyncConnection) -> Leases:
        rows = await connection._read(lambda q: q._core.call_async("web_session_leases", (wanted, LEASES_SHOWN)))
        return Leases([Lease(*row[:4]) for row in rows], rows[0][4] if rows else 0)

    async def history(connection: bmdb.AsyncConnection) -> Deeds:
        asked = (wanted, *before, EVENTS_SHOWN + 1)
        rows = await connection._read(lambda q: q._core.call_async("web_session_history", asked))
        deeds = [Deed(*row) for row in rows]
        more = len(deeds) > EVENTS_SHOWN
        return Deeds(deeds[:EVENTS_SHOWN], deeds[EVENTS_SHOWN - 1].place if more else None)

    parts = {
        "info": Part("Session", info),
        "leases": Part("Leases", leases),
        "history": Part("History", history, live=before[0] is None),
    }
    return await site_of(request).parts(request, "session.html", parts, session=wanted)


def _place(given: str | None) -> tuple[Any, ...]:
    if given is None:
        return None, None, None, None
    # A process may have any name; an event of others' may not have the mark in between.
    at, machine, event, process = given.split(_BETWEEN, 3)
    if "\0" in event + process:
        raise ValueError(given)
    return moment_of(at), UUID(machine), process, event


routes = [
    Route("/sessions", sessions, name="sessions"),
    Route("/sessions/{session:uuid}", session, name="session"),
]
