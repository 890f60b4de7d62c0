"""The fleet at a glance: counts, backlogs, leases, backoffs, losses, sessions, the lag of collection."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import bmdb
from bmdb.web.site import Part, site_of

__all__ = ["routes"]


async def fleet(request: Request) -> Response:
    """The page, or one of its panels."""
    return await site_of(request).parts(request, "fleet.html", {"machines": Part("Machines", _machines)})


async def _machines(connection: bmdb.AsyncConnection) -> int:
    return await connection._read(lambda q: q.count_machines())


routes = [Route("/", fleet, name="fleet")]
