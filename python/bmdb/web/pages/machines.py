"""Machines: those that a filter leaves, a hundred at a time, with their tags and what they are kept busy or idle by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import bmdb
from bmdb.web.catalogue import Found, Tag, Tags, Unread
from bmdb.web.filters import ORDERS, ROWS, STATES, Filter
from bmdb.web.site import Part, Site, link, site_of

__all__ = ["routes"]


@dataclass(frozen=True, slots=True)
class State:
    """What a machine is leased for, held for, waiting for or in quarantine for; '' as process means all of them."""

    kind: str
    process: str
    said: str
    session: UUID | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Line:
    """A machine in the list."""

    machine: UUID
    created_at: datetime
    tags: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """Some machines, and the places before and after which there are more, as parts of an address.

    Not `told`: nothing that is registered says which machines the process needs.
    """

    lines: list[Line]
    before: str = ""
    after: str = ""
    told: bool = True
    unread: list[Unread] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TagCount:
    """How many machines have a tag."""

    tag: Tag
    machines: int


async def machines(request: Request) -> Response:
    """The list, or one of its panels."""
    site = site_of(request)
    tags, problem = await site.reading.attempt("catalogue", site.catalogue.tags)
    try:
        wanted = Filter.read(request.query_params)
        if problem is None:
            wanted.check_tags(tags or Tags())
    except ValueError as error:
        return site.page(
            request,
            "machines.html",
            status=400,
            complaint=str(error),
            filter=Filter(),
            tags=site.catalogue.known,
            states=STATES,
            orders=ORDERS,
        )

    async def page(connection: bmdb.AsyncConnection) -> Page:
        tags = await site.catalogue.tags(connection)
        found = await machines_page(connection, tags, wanted, ROWS)
        return replace(found, unread=await _tag_names(site, tags, found.lines))

    async def counts(connection: bmdb.AsyncConnection) -> Found[TagCount]:
        return await _tag_counts(site, await site.catalogue.tags(connection))

    parts = {"list": Part("Machines", page, pace=2.5), "tags": Part("Tags", counts, live=False)}
    return await site.parts(
        request,
        "machines.html",
        parts,
        complaint="",
        filter=wanted,
        tags=site.catalogue.known,
        states=STATES,
        orders=ORDERS,
    )


async def machines_page(connection: bmdb.AsyncConnection, tags: Tags, wanted: Filter, rows: int) -> Page:
    """One page of machines, without the names of their tags.

    The statement looks at no more rows than its filter makes it: pages follow a key.
    """
    backlog = None
    if wanted.state == "eligible":
        backlog = await connection._backlog_sql(wanted.process)
        if backlog is None:
            return Page([], told=False)
    sql, params = wanted.statement(tags, rows + 1, backlog)

    async def ask(q: bmdb.AsyncQueries) -> tuple[list[Line], bool]:
        # One more than is shown tells whether there is another page.
        found = [Line(*row) for row in await q.fetch(sql, *params)]
        lines = {line.machine: line for line in found[:rows]}
        for machine, *state in await q._core.call_async("web_machines_states", (list(lines),)):
            lines[machine].states.append(State(*state))
        return list(lines.values()), len(found) > rows

    lines, more = await connection._read(ask)
    if wanted.before:
        lines.reverse()
    backwards, forwards = (more, True) if wanted.before else (bool(wanted.after), more)
    if not lines and (wanted.after or wanted.before):
        # Nothing is there any more; what was before that place, or behind it, still is.
        return Page([], "" if wanted.before else wanted.after, wanted.before)
    return Page(
        lines,
        wanted.place_of(lines[0].machine, lines[0].created_at) if lines and backwards else "",
        wanted.place_of(lines[-1].machine, lines[-1].created_at) if lines and forwards else "",
    )


async def _tag_names(site: Site, tags: Tags, lines: list[Line]) -> list[Unread]:
    """Writes down which tags the machines have; answers which tags could not be read."""
    of = {line.machine: line.tags for line in lines}

    async def ask(connection: bmdb.AsyncConnection, some: Tags) -> list[tuple[UUID, str]]:
        rows = await connection._read(lambda q: q.fetch(some.holders, list(of)))
        return [(machine, some[position].name) for machine, position in rows]

    asked = await site.catalogue.ask(site.reading, tags if lines else Tags(), ask)
    for machine, name in asked.found:
        of[machine].append(name)
    return asked.unread


async def _tag_counts(site: Site, tags: Tags) -> Found[TagCount]:
    """How many machines have each tag."""

    async def ask(connection: bmdb.AsyncConnection, some: Tags) -> list[TagCount]:
        rows = await connection._read(lambda q: q.fetch(some.counts))
        return [TagCount(some[position], count) for position, count in rows]

    return await site.catalogue.ask(site.reading, tags, ask)


async def tag_list(request: Request) -> Response:
    """The tags with their fields; with `again` the catalogue is read anew first."""
    site = site_of(request)
    if request.query_params.get("again"):
        site.catalogue.forget()
        return RedirectResponse(link(request, "tags"), 303)

    async def counts(connection: bmdb.AsyncConnection) -> Found[TagCount]:
        return await _tag_counts(site, await site.catalogue.tags(connection))

    return await site.parts(request, "tags.html", {"list": Part("Tags", counts, live=False)})


routes = [Route("/machines", machines, name="machines"), Route("/tags", tag_list, name="tags")]
