"""The fleet at a glance: counts, backlogs, leases, backoffs, losses, sessions, the lag of collection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import bmdb
from bmdb import overview
from bmdb.web.reading import Problem, Reading
from bmdb.web.site import Part, site_of

__all__ = ["routes"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many machines a process could lease now; None where nothing registered says which it needs."""

    process: str
    machines: int | None
    problem: Problem | None


async def fleet(request: Request) -> Response:
    """The page, or one of its panels."""
    site = site_of(request)

    async def backlogs(connection: bmdb.AsyncConnection) -> list[Backlog]:
        names = [known.process for known in await connection.registered()]
        return list(await asyncio.gather(*(_backlog(site.reading, name) for name in names)))

    parts = {
        "machines": Part("Machines", overview.MACHINES.ask_async, shared=True),
        "backlog": Part("Backlog", backlogs, pace=2.5, shared=True),
        "leases": Part("Leases", overview.LEASES.ask_async, shared=True),
        "backoffs": Part("Backoffs", overview.BACKOFFS.ask_async, shared=True),
        "losses": Part("Losses in the last hour", overview.LOSSES.ask_async, pace=2.5, shared=True),
        "ends": Part("Ends of work in the last hour", overview.ENDS.ask_async, pace=2.5, shared=True),
        "collection": Part("Collection", overview.COLLECTION.ask_async, shared=True),
        "sessions": Part("Sessions", overview.SESSIONS.ask_async, shared=True),
    }
    return await site.parts(request, "fleet.html", parts)


async def _backlog(reading: Reading, process: str) -> Backlog:
    """By itself, so that one process with an expensive condition does not hide the backlogs of the others."""
    machines, problem = await reading.attempt("backlog", lambda connection: connection.backlog(process))
    return Backlog(process, machines, problem)


routes = [Route("/", fleet, name="fleet")]
