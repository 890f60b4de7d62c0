"""Visits: what the cookie of a browser says and what its forms must bring along, both signed; and failed logins."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from starlette.types import Scope

from bmdb.web.access import Access, values

__all__ = ["LASTING_SECONDS", "NOTICE_SECONDS", "Failures", "Visit", "Visits"]

LASTING_SECONDS = 12 * 3600
# How long after an action its page may say what became of it.
NOTICE_SECONDS = 60
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Visit:
    """One browser, from the login on or from the page that asks for it: then there is no name yet."""

    nonce: str
    began: int
    person: str | None

    @property
    def binding(self) -> str:
        """What the forms of this visit are bound to."""
        return f"visit {self.nonce}"


class Visits:
    """Makes and reads the cookies of visits, the tokens of their forms, and notices.

    Keeps nothing but which visits were ended, and which notices were given.
    """

    def __init__(self, access: Access, now: Callable[[], float] = time.time) -> None:
        self._access = access
        self._now = now
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._noticed: OrderedDict[str, None] = OrderedDict()

    def begin(self, person: str | None = None) -> Visit:
        """A new visit, of which no cookie before it knows anything."""
        return Visit(secrets.token_urlsafe(16), int(self._now()), person)

    def end(self, visit: Visit) -> None:
        """From now on its cookie says nothing, whoever has kept it."""
        self._ended[visit.nonce] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def of(self, scope: Scope) -> Visit | None:
        """The visit that the request's cookie tells of; None without one, or if it is old, ended or not of ours."""
        name = self._name(scope)
        for header in values(scope, b"cookie"):
            for part in header.decode("latin-1").split(";"):
                key, _, value = part.strip().partition("=")
                if key == name and (visit := self._opened(value)) is not None:
                    return visit
        return None

    def cookie(self, scope: Scope, visit: Visit) -> str:
        """The Set-Cookie header with which the browser keeps it."""
        told = json.dumps([visit.nonce, visit.began, visit.person], ensure_ascii=True).encode()
        text = base64.urlsafe_b64encode(told).decode().rstrip("=")
        return self._header(scope, f"{text}.{self._access.sign('visit', text)}", LASTING_SECONDS)

    def no_cookie(self, scope: Scope) -> str:
        """The Set-Cookie header with which the browser forgets it."""
        return self._header(scope, "", 0)

    def form_token(self, binding: str) -> str:
        """What a form has to bring along that is sent in this visit, or by this person."""
        issued = str(int(self._now()))
        return f"{issued}.{self._access.sign('form', f'{issued} {binding}')}"

    def is_form_token(self, binding: str, given: str) -> bool:
        """Whether that is one of ours, for this visit or person, and of late."""
        issued, _, signature = given.partition(".")
        return self._access.is_signed("form", f"{issued} {binding}", signature) and self._is_recent(int(issued))

    def notice(self, binding: str, place: str, said: str) -> str:
        """What an address brings along so that the page of that place says something to this visit or person, once."""
        told = f"{said}.{int(self._now())}.{secrets.token_hex(8)}"
        return f"{told}.{self._access.sign('notice', f'{told} {place} {binding}')}"

    def noticed(self, binding: str, place: str, given: str) -> str | None:
        """What is to be said there; None for what is not of ours, of somebody else, of another place, old, or said."""
        told, _, signature = given.rpartition(".")
        if given in self._noticed or not self._access.is_signed("notice", f"{told} {place} {binding}", signature):
            return None
        said, issued, _ = told.split(".")
        if not 0 <= self._now() - int(issued) < NOTICE_SECONDS:
            return None
        self._noticed[given] = None
        while len(self._noticed) > _REMEMBERED:
            self._noticed.popitem(last=False)
        return said

    def _opened(self, cookie: str) -> Visit | None:
        text, _, signature = cookie.partition(".")
        if not self._access.is_signed("visit", text, signature):
            return None
        try:
            nonce, began, person = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError):
            return None
        if nonce in self._ended or not self._is_recent(began):
            return None
        return Visit(nonce, began, person)

    def _is_recent(self, issued: int) -> bool:
        return 0 <= self._now() - issued < LASTING_SECONDS

    def _name(self, scope: Scope) -> str:
        """Its own for each place, since the ports of one host share their cookies; with TLS nobody else can set it."""
        place = self._access.sign("place", f"{self._access.host(scope)} {scope.get('root_path', '')}")[:8]
        return f"__Host-bmdb-{place}" if self._access.secure(scope) else f"bmdb-{place}"

    def _header(self, scope: Scope, value: str, seconds: int) -> str:
        secure = "; Secure" if self._access.secure(scope) else ""
        return f"{self._name(scope)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


class Failures:
    """How often somebody may give a wrong token: so many times in so many seconds for each address (IPv6: each /64)."""

    def __init__(self, allowed: int = 10, seconds: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._now = now
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, scope: Scope) -> float:
        """How many seconds nothing that comes from there is listened to."""
        times = self._failed.get(_origin(scope))
        if times is None or len(times) < self._allowed:
            return 0.0
        return max(0.0, times[0] + self._seconds - self._now())

    def note(self, scope: Scope) -> None:
        """A wrong one came from there."""
        origin = _origin(scope)
        self._failed.setdefault(origin, deque(maxlen=self._allowed)).append(self._now())
        self._failed.move_to_end(origin)
        while len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)


def _origin(scope: Scope) -> str:
    client = scope.get("client")
    if client is None:
        return "unix"
    try:
        address = ip_address(client[0].partition("%")[0])
    except ValueError:
        return str(client[0])
    return str(address if address.version == 4 else ip_network((address, 64), strict=False))
