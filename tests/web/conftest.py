"""The pages of a database, asked in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest

import bmdb.web
from tests.web.reader import Element, read


@dataclass(frozen=True)
class Answer:
    """What a page answered."""

    status: int
    headers: httpx.Headers
    html: str
    page: Element

    def panel(self, name: str) -> Element:
        """One panel of the page."""
        return self.page.one("section", id=f"panel-{name}")

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong, by the panel that says so."""
        return {
            panel.attributes["id"].removeprefix("panel-"): problem.text
            for panel in self.page.all("section")
            for problem in panel.all(class_="problem")
        }


Get = Callable[..., Awaitable[Answer]]


@pytest.fixture
def conninfo(database: str) -> str:
    """Where the pages look; a test may say otherwise."""
    return database


@pytest.fixture
async def get(conninfo: str) -> AsyncIterator[Get]:
    """Asks for a page of the app; redirects are followed."""
    # Nothing is as old as this: each look is a new one.
    app = bmdb.web.app(conninfo, refresh=1e-6)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", follow_redirects=True) as client:

        async def ask(path: str, **query: str | int | list[str]) -> Answer:
            response = await client.get(path, params=query or None)
            return Answer(response.status_code, response.headers, response.text, read(response.text))

        yield ask
    await app.state.site.close()
