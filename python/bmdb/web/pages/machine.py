"""One machine: what it is, who works on it, what keeps whom off it, and everything that ever happened to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import bmdb
from bmdb.model import Hold, WorkLoss
from bmdb.web.reading import Problem, Reading
from bmdb.web.site import NO_NAME, Part, site_of
from bmdb.web.texts import moment_of
from bmdb.web.values import TagValues, tag_values

if TYPE_CHECKING:
    from bmdb.explanation import Explanation

__all__ = ["routes"]

EVENTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease with the session that holds it."""

    machine: UUID
    process: str
    session: UUID
    token: int
    started_at: datetime
    component: str
    runtime_info: str
    deadline: datetime
    live: bool


@dataclass(frozen=True, slots=True)
class Backoff:
    """A backoff; one whose time has passed keeps nobody off, but its period still feeds the next one."""

    machine: UUID
    process: str
    until: datetime
    cause: str
    period: int | None
    active: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """What people and losses keep off a machine."""

    holds: list[Hold]
    losses: list[WorkLoss]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a process works on the machine or not, or why that could not be found out."""

    process: str
    explanation: Explanation | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Happening:
    """One event. `began` is when its lease did, `attempt` which lease it is since the last one that was finished."""

    process: str
    event: str
    at: datetime
    cause: str | None
    session: UUID | None
    component: str | None
    token: int | None
    began: datetime | None
    attempt: int | None

    @property
    def seconds(self) -> float | None:
        """How long the lease had been held when this happened to it."""
        if self.began is None or self.event == "Started":
            return None
        return (self.at - self.began).total_seconds()


@dataclass(frozen=True, slots=True)
class Timeline:
    """Some events, newest first, and where older ones begin, as part of an address."""

    shown: list[Happening]
    before: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of history begins: events no younger than `at`, without the first `skipped` of that moment."""

    at: datetime | None = None
    skipped: int = 0

    @classmethod
    def read(cls, text: str) -> Place:
        """The place that an address names. Raises ValueError, which says so, for text that names none."""
        at, _, skipped = text.partition("~")
        if not text:
            return cls()
        try:
            place = cls(moment_of(at), int(skipped))
        except ValueError:
            raise ValueError("history does not begin there: the place cannot be read") from None
        if not 0 <= place.skipped < 1_000_000:
            raise ValueError("history does not begin there: the place cannot be read")
        return place

    def after(self, shown: list[Happening]) -> str:
        """The place behind these events, as part of an address."""
        last = shown[-1].at
        same = sum(1 for event in shown if event.at == last)
        return f"{last.isoformat()}~{same + (self.skipped if last == self.at else 0)}"


async def machine(request: Request) -> Response:
    """The page, or one of its panels."""
    site = site_of(request)
    wanted: UUID = request.path_params["machine"]
    try:
        place = Place.read(request.query_params.get("before", ""))
    except ValueError as error:
        return site.page(request, "complaint.html", status=400, complaint=str(error))
    known: datetime | None = None
    problem: Problem | None = None
    if "panel" not in request.query_params:
        # A panel alone does not say it, and should not wait for it.
        known, problem = await site.reading.attempt("machine", lambda connection: _known(connection, wanted))

    async def tags(connection: bmdb.AsyncConnection) -> list[TagValues]:
        return await tag_values(site.catalogue, site.reading, await site.catalogue.tags(connection), wanted)

    async def work(connection: bmdb.AsyncConnection) -> list[Lease]:
        return [Lease(*row) for row in await _rows(connection, "web_machine_work", wanted)]

    async def backoffs(connection: bmdb.AsyncConnection) -> list[Backoff]:
        return [Backoff(*row) for row in await _rows(connection, "web_machine_backoffs", wanted)]

    async def kept(connection: bmdb.AsyncConnection) -> Kept:
        losses = [WorkLoss(*row) for row in await _rows(connection, "web_machine_quarantines", wanted)]
        return Kept(await connection.holds(wanted), losses)

    async def reasons(connection: bmdb.AsyncConnection) -> list[Reason]:
        names = {known.process for known in await connection.registered()}
        names |= {row.process for row in await _rows(connection, "web_machine_work", wanted)}
        names |= {row.process for row in await _rows(connection, "web_machine_backoffs", wanted)}
        return list(await asyncio.gather(*(_reason(site.reading, wanted, name) for name in sorted(names))))

    async def history(connection: bmdb.AsyncConnection) -> Timeline:
        return await timeline(connection, wanted, place, EVENTS_SHOWN)

    parts = {
        "work": Part("Work", work),
        "why": Part("Why it is worked on, or not", reasons),
        "backoffs": Part("Backoffs", backoffs),
        "holds": Part("Holds and losses", kept),
        "tags": Part("Tags", tags, pace=2.5),
        "history": Part("History", history, live=place.at is None),
    }
    said = None
    if getattr(request.state, "may_act", False):
        # An address says nothing by itself: anybody can send one.
        given = request.query_params.get("said", "")
        said = request.state.guard.visits.noticed(request.state.binding, str(wanted), given)
        # Loaded only where somebody may act, since nothing else here could write.
        choices = import_module("bmdb.web.actions").choices
        parts = {"actions": Part("Actions", lambda connection: choices(connection, wanted), live=False), **parts}
    missing = known is None and problem is None
    status = 404 if missing else 200
    return await site.parts(
        request, "machine.html", parts, status=status, machine=wanted, known=known, missing=missing, said=said
    )


async def explanation(request: Request) -> Response:
    """Why one process works on the machine or not, clause by clause."""
    wanted: UUID = request.path_params["machine"]
    process: str = request.path_params["process"]
    if "\0" in process:
        return site_of(request).page(request, "complaint.html", status=404, complaint=NO_NAME)

    async def explain(connection: bmdb.AsyncConnection) -> Explanation:
        return await connection.explain(wanted, process)

    parts = {"explanation": Part("What decides it", explain)}
    return await site_of(request).parts(request, "explain.html", parts, machine=wanted, process=process)


async def timeline(connection: bmdb.AsyncConnection, machine: UUID, place: Place, limit: int) -> Timeline:
    """One page of a machine's history, newest first."""
    # One more than is shown tells whether there is another page.
    asked = (machine, place.at, place.skipped, limit + 1)
    rows = await connection._read(lambda q: q._core.call_async("web_machine_history", asked))
    shown = [Happening(*row) for row in rows[:limit]]
    return Timeline(shown, place.after(shown) if len(rows) > limit else "")


async def _reason(reading: Reading, machine: UUID, process: str) -> Reason:
    found, problem = await reading.attempt("why", lambda connection: connection.explain(machine, process))
    return Reason(process, found, problem)


async def _known(connection: bmdb.AsyncConnection, machine: UUID) -> datetime | None:
    found = await connection._read(lambda q: q.machine(machine))
    return None if found is None else found.machine_created_at


async def _rows(connection: bmdb.AsyncConnection, query: str, machine: UUID) -> list[bmdb.Row]:
    return await connection._read(lambda q: q._core.call_async(query, (machine,)))


routes = [
    Route("/machines/{machine:uuid}", machine, name="machine"),
    Route("/machines/{machine:uuid}/explain/{process:path}", explanation, name="explain"),
]
