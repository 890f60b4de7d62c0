"""An app of one page behind the guard, and requests to it."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bmdb.web.access import Access
from bmdb.web.security import Guarded
from tests.web.client import Client

HEADER = "X-Forwarded-User"


async def echo(request: Request) -> Response:
    """Does what it is asked for and says for whom."""
    return PlainTextResponse(f"{request.state.person} {request.state.may_act} {request.state.csrf}")


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret of the database")


def guarded(**settings: Any) -> Starlette:
    """An app with one page that may be asked for and written to, behind the guard."""
    made = Starlette(
        routes=[
            Route("/", echo),
            Route("/act", echo, methods=["GET", "POST"]),
            Route("/broken", broken),
        ]
    )
    made.add_middleware(Guarded, access=Access(**settings))
    return made


def by_header(**settings: Any) -> Starlette:
    return guarded(allow_actions=True, trusted_header=HEADER, **settings)


async def acting(client: Client, **headers: str) -> int:
    """Acts with a token of the page, from a page of ours; headers in place of what a browser sends. The status."""
    csrf = (await client.get("/")).text.split()[-1]
    answer = await client.post(
        "/act", {"csrf": csrf}, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return answer.status_code


async def raw(application: Any, *, headers: list[tuple[bytes, bytes]], method: str = "GET", **more: Any) -> list[Any]:
    """What the app sends for a request that no client library would make."""
    scope = {
        "type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "headers": headers, "client": ("127.0.0.1", 1), "server": ("x", 1),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope | more, receive, send)
    return sent


def assert_armoured(headers: Any) -> None:
    policy = {
        name: value
        for name, _, value in (rule.strip().partition(" ") for rule in headers["content-security-policy"].split(";"))
    }
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
