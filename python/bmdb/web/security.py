"""The guard in front of the pages: it sees every request first, and every answer last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bmdb.web.access import Access, Misuse, values
from bmdb.web.visits import Failures, Visit, Visits

__all__ = ["LOGIN", "LOGOUT", "Guarded", "is_page"]

LOGIN = "/login"
LOGOUT = "/logout"
STATIC = "/static/"
LARGEST_FORM = 16 * 1024
MOST_FIELDS = 32
# A path on this server: what a browser would take for another server's address begins with two slashes.
_PAGE = re.compile(r"/(?![/\\])[!-\[\]-~]*")

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_TOO_OLD = "This form is too old or not from here: go back, load the page again, and repeat it."


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, and what their forms are bound to; neither, for somebody unknown."""

    person: str | None
    binding: str | None
    visit: Visit | None


class Guarded:
    """Lets through what may come through, and tells the app who asks.

    Every request must name a host that is allowed, so that no page of others can reach these ones under a name of
    theirs. Whatever is not GET or HEAD must be a small form that was sent by a page of ours (Origin, Sec-Fetch-Site)
    and brings along a token that is bound to the visit or the person; without actions only logging in and out is left.
    With a token or a trusted header, nothing but the login and the static files is to be seen without it.

    The app finds in `request.state`: `person`, `may_act`, `csrf` (what each form has to send as "csrf"), `form` (the
    fields of a POST), `visit` (None unless the person has logged in by token, or is about to) and `guard`. Its answers
    get the security headers, those to errors in the app, too.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access
        self.visits = Visits(access)
        self.failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answering = _Answer(scope, send)
        try:
            admitted = await self._admit(scope, receive)
            if isinstance(admitted, Response):
                await admitted(scope, receive, answering)
            else:
                await self.app(admitted, receive, answering)
        except Misuse as misuse:
            if answering.begun:
                raise
            await _refusal(misuse)(scope, receive, answering)
        except Exception:
            if not answering.begun:
                await PlainTextResponse("Something went wrong here; the log tells what.", 500)(
                    scope, receive, answering
                )
            raise

    async def _admit(self, scope: Scope, receive: Receive) -> Scope | Response:
        """The request as the app gets it, or the answer in its place; raises Misuse."""
        host = self.access.host(scope)
        path = _path(scope)
        posted = scope["method"] not in ("GET", "HEAD")
        if posted:
            self._may_be_posted(scope, host, path)
        asker = self._asker(scope)
        if asker.person is None and not self.access.open and path != LOGIN and (posted or not path.startswith(STATIC)):
            return self._unknown(scope, path, posted)
        form: Mapping[str, str] = {}
        if posted:
            form = await _form(scope, receive)
            if asker.binding is None or not self.visits.is_form_token(asker.binding, form.get("csrf", "")):
                raise Misuse(403, _TOO_OLD)
        state = {
            "person": asker.person,
            "may_act": self.access.allow_actions and asker.person is not None,
            "binding": asker.binding,
            "csrf": "" if asker.binding is None else self.visits.form_token(asker.binding),
            "form": form,
            "visit": asker.visit,
            "guard": self,
        }
        return {**scope, "state": {**scope.get("state", {}), **state}}

    def _may_be_posted(self, scope: Scope, host: str, path: str) -> None:
        if scope["method"] != "POST":
            raise Misuse(405, "These pages know GET, HEAD and POST.", [("Allow", "GET, HEAD, POST")])
        if not self.access.allow_actions and not (self.access.by_token and path in (LOGIN, LOGOUT)):
            raise Misuse(405, "These pages were started without actions.", [("Allow", "GET, HEAD")])
        site, origin = values(scope, b"sec-fetch-site"), values(scope, b"origin")
        if not site and not origin:
            raise Misuse(403, "The request does not say which page it comes from: it must have an Origin header.")
        schemes = ("https",) if self.access.secure(scope) else ("http", "https")
        ours = [f"{scheme}://{host}".encode() for scheme in schemes]
        if (site and site != [b"same-origin"]) or (origin and [value.lower() in ours for value in origin] != [True]):
            raise Misuse(
                403, "The request comes from a page of others, or the proxy in between changes the Host header."
            )

    def _asker(self, scope: Scope) -> _Asker:
        named = self.access.named_by_proxy(scope)
        if named is not None:
            return _Asker(named, f"person {named}", None)
        visit = self.visits.of(scope)
        if visit is None:
            return _Asker(None, None, None)
        return _Asker(visit.person, visit.binding, visit)

    def _unknown(self, scope: Scope, path: str, posted: bool) -> Response:
        if not self.access.by_token:
            raise Misuse(403, "These pages are for those whom the proxy in front of them names, and it named nobody.")
        if posted:
            raise Misuse(403, "Log in first.")
        root = scope.get("root_path", "")
        login = root + LOGIN
        if values(scope, b"hx-request"):
            shown = _shown(scope)
            back = f"?next={quote(shown, safe='')}" if shown else ""
            return PlainTextResponse("Log in first.", 401, {"HX-Redirect": login + back})
        query = scope.get("query_string", b"").decode("latin-1")
        # As it was asked for: a name in the path may hold an encoded slash.
        asked = scope.get("raw_path", b"").decode("latin-1").removeprefix(quote(root)) or quote(path)
        target = asked + (f"?{query}" if query else "")
        return RedirectResponse(f"{login}?next={quote(target, safe='')}", 303)


class _Answer:
    """Sends, with the headers that every answer has."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._caching = "no-cache" if _path(scope).startswith(STATIC) else "no-store"
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("cache-control", self._caching)
        await self._send(message)


def _path(scope: Scope) -> str:
    """The path below the place where the app is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def is_page(text: str) -> bool:
    """Whether it is a path, with a query perhaps, that a browser looks for on this server and nowhere else."""
    return _PAGE.fullmatch(text) is not None


def _shown(scope: Scope) -> str:
    """The page that the browser shows while it asks for a part of it, below the place where the app is mounted."""
    given = values(scope, b"hx-current-url")
    try:
        address = urlsplit(given[0].decode("ascii")) if len(given) == 1 else None
    except ValueError:
        return ""
    root = quote(scope.get("root_path", ""))
    if address is None or not address.path.startswith(f"{root}/"):
        return ""
    shown = address.path.removeprefix(root) + (f"?{address.query}" if address.query else "")
    return shown if is_page(shown) else ""


def _refusal(misuse: Misuse) -> Response:
    answer = PlainTextResponse(misuse.text, misuse.status)
    for name, value in misuse.headers:
        answer.headers[name] = value
    return answer


async def _form(scope: Scope, receive: Receive) -> Mapping[str, str]:
    """The fields of the form, each of which may come once."""
    kinds = [value.partition(b";")[0].strip().lower() for value in values(scope, b"content-type")]
    if kinds != [b"application/x-www-form-urlencoded"]:
        raise Misuse(415, "The request must be a form of the kind application/x-www-form-urlencoded.")
    body = b""
    more = True
    while more:
        message: Mapping[str, Any] = await receive()
        if message["type"] != "http.request":
            raise Misuse(400, "The request broke off.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST_FORM:
            raise Misuse(413, f"A form has {LARGEST_FORM} bytes at most.")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Misuse(400, "The form cannot be read.") from None
    form = {name: value.replace("\r\n", "\n") for name, value in fields}
    if len(form) < len(fields) or any("\0" in value for value in form.values()):
        raise Misuse(400, "The form cannot be read.")
    return form
