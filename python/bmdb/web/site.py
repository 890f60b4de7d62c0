"""What every page needs: the settings, the reading connections, the catalogue of tags, and the templates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import bmdb
from bmdb import logs
from bmdb.web import charts, texts
from bmdb.web.catalogue import Catalogue
from bmdb.web.reading import Panel, Problem, Reading
from bmdb.web.settings import Settings

__all__ = ["NO_NAME", "Part", "Site", "here", "link", "site_of"]

_logger = logs.logger("bmdb.web")

NO_NAME = "No process has that name: a name has no NUL in it."
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Part:
    """A part of a page: its heading, what it asks, and whether it is asked again and again.

    `pace` makes that rarer than the site's refresh, for what costs more than it changes. One answer of a `shared` part
    is for everybody who asks within half of that time: it depends on nothing but the database.
    """

    title: str
    ask: Callable[[bmdb.AsyncConnection], Awaitable[Any]]
    live: bool = True
    pace: float = 1.0
    shared: bool = False


@dataclass(frozen=True)
class _Shared:
    """A panel that several wait for, or have seen."""

    asked: asyncio.Future[Panel[Any]]
    at: float = field(default_factory=time.monotonic)

    def serves(self, seconds: float) -> bool:
        """Whether it is under way, or has an answer that is no older than that; a failure is not kept."""
        if not self.asked.done():
            return True
        if self.asked.cancelled() or self.asked.exception() is not None:
            return False
        return self.asked.result().problem is None and time.monotonic() - self.at < seconds


@dataclass
class Site:
    """One for each app; `request.app.state.site`."""

    settings: Settings
    reading: Reading = field(init=False)
    catalogue: Catalogue = field(default_factory=Catalogue)
    templates: jinja2.Environment = field(init=False)
    # What else is closed with it.
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _shared: dict[str, _Shared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reading = Reading(self.settings)
        self.templates = _environment()

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """A page made of a template, which knows `request`, `settings`, `site` and `link`."""
        return HTMLResponse(self._written(request, template, values), status, headers)

    async def parts(
        self, request: Request, template: str, parts: Mapping[str, Part], *, status: int = 200, **values: Any
    ) -> Response:
        """A page of several parts, `panels` in its template; or, when the query asks for one `panel`, that one alone.

        Part `x` of `fleet.html` is written by `fleet/x.html`, which knows its value as `value`. A part alone answers
        503 when it has failed, so that the browser keeps what it shows, and says how old that is.
        """
        folder = template.removesuffix(".html")
        wanted = request.query_params.get("panel")
        if wanted is not None:
            if wanted not in parts:
                return HTMLResponse("no such panel", 404)
            panel = await self._panel(folder, wanted, parts[wanted])
            inside, problem = self._inside(request, folder, panel, parts[wanted], values)
            headers = {"Panel-Problem": problem.kind} if problem else None
            return HTMLResponse(inside, 503 if problem else 200, headers)
        found = await asyncio.gather(*(self._panel(folder, name, part) for name, part in parts.items()))
        panels: dict[str, Panel[Any]] = {panel.name: panel for panel in found}
        insides = {name: self._inside(request, folder, panel, parts[name], values)[0] for name, panel in panels.items()}
        return self.page(request, template, status=status, panels=panels, insides=insides, live=parts, **values)

    async def _panel(self, folder: str, name: str, part: Part) -> Panel[Any]:
        if not part.shared:
            panel = await self.reading.panel(name, part.ask)
            if panel.problem is not None and panel.problem.kind == "gone":
                # A tag, most likely, that was dropped since: the next look shall know.
                self.catalogue.forget()
            return panel
        key = f"{folder}/{name}"
        shared = self._shared.get(key)
        if shared is None or not shared.serves(self.settings.refresh * part.pace / 2):
            shared = self._shared[key] = _Shared(asyncio.ensure_future(self.reading.panel(name, part.ask)))
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(shared.asked)

    def _inside(
        self, request: Request, folder: str, panel: Panel[Any], part: Part, values: dict[str, Any]
    ) -> tuple[Markup, Problem | None]:
        """The inside of a panel, and what went wrong with it if anything did, writing it down included."""
        known = {**values, "panel": panel, "part": part, "folder": folder}
        try:
            return Markup(self._written(request, "panel.html", known)), panel.problem  # noqa: S704 - escaped already
        except Exception as error:
            _logger.exception("the panel %s could not be written", panel.name)
            problem = Problem("failed", f"{type(error).__name__}: the log has more")
        known["panel"] = replace(panel, value=None, problem=problem)
        return Markup(self._written(request, "panel.html", known)), problem  # noqa: S704 - escaped already

    def _written(self, request: Request, template: str, values: dict[str, Any]) -> str:
        known = {
            "request": request,
            "site": self,
            "settings": self.settings,
            "link": partial(link, request),
            "here": partial(here, request),
        }
        return self.templates.get_template(template).render(known | values)

    def has(self, request: Request, route: str) -> bool:
        """Whether there is such a page in this app."""
        return any(getattr(known, "name", None) == route for known in request.app.routes)

    async def close(self) -> None:
        """Closes the connections: at the end of an app that runs by itself; the host of a mounted one may do it."""
        await self.reading.close()
        for close in self.closing:
            await close()


def site_of(request: Request) -> Site:
    """The site that a request is for."""
    site: Site = request.app.state.site
    return site


def link(request: Request, route: str, /, query: Mapping[str, Any] | None = None, **path: Any) -> str:
    """The path of a route below wherever the app is mounted, with a query of what is neither None nor empty."""
    app: Starlette = request.app
    wanted = {name: value for name, value in (query or {}).items() if value not in (None, "", [], ())}
    # Processes and providers may have any name: nothing of one may be taken for another part of the path.
    parts = {name: quote(value, safe="") if isinstance(value, str) else value for name, value in path.items()}
    url = request.scope.get("root_path", "") + str(app.url_path_for(route, **parts))
    return f"{url}?{urlencode(wanted, doseq=True)}" if wanted else url


def here(request: Request, changed: Mapping[str, Any]) -> str:
    """The address of this very page with other values in its query; None takes one out."""
    query = [(name, value) for name, value in request.query_params.multi_items() if name not in changed]
    query += [(name, value) for name, value in changed.items() if value is not None]
    # As it was asked for: a name in it may hold what would be taken for another part of the path.
    path = request.scope.get("raw_path", b"").decode("ascii") or quote(request.scope["path"])
    return f"{path}?{urlencode(query)}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        # Every template is HTML, and whatever it writes is text from outside.
        autoescape=True,
        finalize=texts.written,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"age": texts.age, "duration": texts.duration, "moment": texts.moment}
    environment.filters |= {"lines": texts.lines, "left": texts.left, "summary": texts.summary, "bars": charts.bars}
    environment.filters["named"] = texts.named
    return environment
