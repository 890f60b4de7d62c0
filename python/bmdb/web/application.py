"""The app: its routes, and what lives as long as it does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

try:
    import jinja2  # noqa: F401
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute, Mount
    from starlette.staticfiles import StaticFiles
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'bmdb.web needs Starlette and Jinja2: pip install "pybmdb[web]"', name=error.name
    ) from error

from bmdb.web import actions
from bmdb.web.access import Access
from bmdb.web.pages import fleet, login, machine, machines, process, provider, session
from bmdb.web.security import Guarded
from bmdb.web.settings import Settings
from bmdb.web.site import Site

__all__ = ["app"]

STATIC = Path(__file__).with_name("static")


def app(
    conninfo: str | None = None,
    *,
    allow_actions: bool = False,
    token: str | None = None,
    trusted_header: str | None = None,
    trusted_proxies: Sequence[str] = ("127.0.0.1", "::1"),
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "[::1]"),
    providers: Mapping[str, str] | None = None,
    strict: bool = False,
    refresh: float = 2.0,
) -> Starlette:
    """The debug pages as an ASGI app, to be run by itself or mounted under a prefix of another one.

    It connects at the first request, read-only: a page never writes, nor waits longer than a second for one statement.
    By itself it closes its connections when the server stops; where it is mounted, await `app.state.site.close()`.

    * `conninfo`: as for `bmdb.connect`.
    * `allow_actions`: whether operators may hold and free machines here, on a connection of their own.
    * `token`, `trusted_header`, `trusted_proxies`, `hosts`: who may come in; see docs/web.md.
    * `providers`: for a provider's name the address of its console, with `{provider_id}` in it.
    * `strict`: read the newest state on CockroachDB, too, where a look otherwise goes to the nearest replica.
    * `refresh`: seconds from one look of a live panel to the next.

    Raises ValueError for a refresh that is not above 0.
    """
    if not (isfinite(refresh) and refresh > 0):
        raise ValueError(f"refresh must be more than 0 seconds, not {refresh}")
    settings = Settings(
        conninfo=conninfo,
        allow_actions=allow_actions,
        token=token,
        trusted_header=trusted_header,
        trusted_proxies=tuple(trusted_proxies),
        hosts=tuple(hosts),
        providers=provider.checked(providers or {}),
        strict=strict,
        refresh=refresh,
    )
    access = Access(
        allow_actions=allow_actions,
        token=token,
        trusted_header=trusted_header,
        trusted_proxies=trusted_proxies,
        hosts=hosts,
    )
    site = Site(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await site.close()

    routes: list[BaseRoute] = [
        *fleet.routes,
        *machines.routes,
        *machine.routes,
        *session.routes,
        *process.routes,
        *provider.routes,
        *login.routes,
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
    ]
    if allow_actions:
        routes += actions.routes
    # Outermost, so that nothing else sees a request that it refuses.
    middleware: list[Middleware] = [Middleware(Guarded, access)]
    made = Starlette(routes=routes, middleware=middleware, lifespan=lifespan)
    made.state.site = site
    if allow_actions:
        # Without actions there is nothing that could write.
        made.state.acting = actions.Acting(conninfo)
        site.closing.append(made.state.acting.close)
    return made
