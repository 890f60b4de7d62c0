"""A browser as far as the server can tell, without one: it keeps cookies and says where a form comes from."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Self

import httpx
from starlette.types import ASGIApp

TOKEN = "a token that nobody guesses"
ORIGIN = "http://localhost:8000"
NOWHERE = "host=127.0.0.1 port=1 user=nobody dbname=nowhere connect_timeout=1"
_CSRF = re.compile(r'name="csrf" value="([^"]*)"')


def form_token(page: httpx.Response) -> str:
    """What the first form of the page has to send along."""
    found = _CSRF.search(page.text)
    assert found is not None, f"no form in a page of status {page.status_code}: {page.text[:300]}"
    return found[1]


class Client:
    """Asks the app in this process, from `address`, as a browser would that has it open at `origin`."""

    def __init__(
        self, app: ASGIApp, *, origin: str = ORIGIN, address: str = "127.0.0.1", headers: dict[str, str] | None = None
    ) -> None:
        self.origin = origin
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50000))
        self.http = httpx.AsyncClient(transport=transport, base_url=origin, headers=headers)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """GETs a path, and follows no redirect."""
        return await self.http.get(path, **options)

    async def post(self, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        """Sends a form from a page of the same origin; a header that is "" is left out."""
        sent = {"origin": self.origin, "sec-fetch-site": "same-origin"} | (headers or {})
        return await self.http.post(path, data=form, headers={name: value for name, value in sent.items() if value})

    async def log_in(self, token: str = TOKEN, person: str = "Ada", after: str = "/sessions") -> httpx.Response:
        """Asks for the login page, fills in its form and sends it."""
        page = await self.get("/login")
        form = {"csrf": form_token(page), "token": token, "person": person, "next": after}
        return await self.post("/login", form)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.http.aclose()
