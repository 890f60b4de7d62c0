"""The settings of who may look and who may act, and how a request is told apart from one that somebody made up."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence

from starlette.types import Scope

from bmdb.errors import ConfigError
from bmdb.unseen import visible

__all__ = ["LOOPBACK", "LOOPBACK_HOSTS", "Access", "Misuse", "name_from", "new_token"]

LOOPBACK = ("127.0.0.1", "::1")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 16
LONGEST_NAME = 100

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?P<port>:[0-9]{1,5})?")
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Misuse(Exception):
    """A request that is refused: with this status, and a sentence for the person who sees it."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


def new_token() -> str:
    """A token that nobody guesses, for whoever has none: 192 bits. Tell it to people, and never put it into a URL."""
    return secrets.token_urlsafe(24)


def name_from(text: str) -> str:
    """A person's name without the spaces around it; ValueError for one that is empty, long, or not all to be seen."""
    name = text.strip()
    if not name or len(name) > LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters")
    if visible(name) != name:
        raise ValueError("a name must consist of characters that can be seen")
    return name


class Access:
    """Who may look and who may act. Raises ConfigError for settings that let everybody act, or that cannot be meant.

    `token` is the secret that people log in with; `trusted_header` the header in which a proxy names the person it has
    authenticated, believed from the addresses and networks in `trusted_proxies` alone ("unix": from whoever reaches the
    server's Unix socket). With either, looking needs it too. `hosts` are the names under which browsers may reach the
    pages, without ports.
    """

    def __init__(
        self,
        *,
        allow_actions: bool = False,
        token: str | None = None,
        trusted_header: str | None = None,
        trusted_proxies: Iterable[str] = LOOPBACK,
        hosts: Iterable[str] = LOOPBACK_HOSTS,
    ) -> None:
        if allow_actions and token is None and trusted_header is None:
            raise ConfigError(
                "actions need somebody who is known to do them: give a token, or a trusted header of a proxy"
            )
        if not _is_usable(token):
            raise ConfigError(f"the token must be a str of at least {SHORTEST_TOKEN} characters")
        if trusted_header is not None and not _HEADER.fullmatch(trusted_header):
            raise ConfigError("the trusted header must be the name of an HTTP header, such as X-Forwarded-User")
        self.allow_actions = allow_actions
        self.by_token = token is not None
        self.trusted_header = None if trusted_header is None else trusted_header.lower().encode("ascii")
        self._networks, self._unix = _proxies(trusted_proxies)
        self._hosts = _names(hosts)
        self._token = b"" if token is None else _digest(token)
        # From the token, so that cookies outlive a restart and hold in several processes; slowly, since a cookie is all
        # that somebody needs who wants to guess it.
        self._key = (
            secrets.token_bytes(32)
            if token is None
            else hashlib.scrypt(token.strip().encode(), salt=b"bmdb web cookies", n=2**14, r=8, p=1, dklen=32)
        )

    @property
    def open(self) -> bool:
        """Whether everybody who reaches the pages may look at them."""
        return not self.by_token and self.trusted_header is None

    def is_token(self, given: str) -> bool:
        """Whether that is the token; takes as long for one that is nearly right."""
        return self.by_token and hmac.compare_digest(self._token, _digest(given))

    def sign(self, purpose: str, text: str) -> str:
        """A signature of a text, in hexadecimal digits, which is good for this purpose alone."""
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def is_signed(self, purpose: str, text: str, signature: str) -> bool:
        """Whether somebody with the key has signed that."""
        return hmac.compare_digest(self.sign(purpose, text).encode(), signature.encode("utf-8", "replace"))

    def is_proxy(self, scope: Scope) -> bool:
        """Whether the request comes from an address that is believed to tell who asks."""
        client = scope.get("client")
        if client is None:
            return self._unix
        try:
            address = ipaddress.ip_address(client[0].partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def named_by_proxy(self, scope: Scope) -> str | None:
        """Who a trusted proxy says it is that asks; None when none says so. Raises Misuse for what is no name."""
        if self.trusted_header is None or not self.is_proxy(scope):
            return None
        given = values(scope, self.trusted_header)
        if not given:
            return None
        if len(given) > 1:
            raise Misuse(400, "The header that names you came twice: the proxy must replace what its clients send.")
        try:
            return name_from(given[0].decode("utf-8"))
        except ValueError:
            raise Misuse(400, "The header that names you holds no name.") from None

    def host(self, scope: Scope) -> str:
        """The Host header in small letters, with its port. Raises Misuse unless it is one of the names allowed."""
        given = values(scope, b"host")
        matched = _HOST.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
        if matched is None:
            raise Misuse(400, "The request must have one Host header.")
        if matched["name"].lower().rstrip(".") not in self._hosts:
            raise Misuse(
                421, "These pages are not served under that name: see the setting hosts (bmdb web --allow-host)."
            )
        return matched[0].lower()

    def secure(self, scope: Scope) -> bool:
        """Whether the browser speaks TLS, with this server or with a trusted proxy in front of it."""
        if scope["scheme"] in ("https", "wss"):
            return True
        return self.is_proxy(scope) and values(scope, b"x-forwarded-proto") == [b"https"]

    def __repr__(self) -> str:
        return f"<Access {'open' if self.open else 'guarded'}{', with actions' if self.allow_actions else ''}>"


def values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a header, whose name is given in small letters."""
    return [value for key, value in scope["headers"] if key.lower() == name]


def _is_usable(token: object) -> bool:
    return token is None or (isinstance(token, str) and len(token.strip()) >= SHORTEST_TOKEN)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()


def _proxies(given: Iterable[str]) -> tuple[list[_Network], bool]:
    if isinstance(given, str):
        raise ConfigError("trusted_proxies must be several addresses, not one str")
    networks: list[_Network] = []
    unix = False
    for proxy in given:
        if proxy == "unix":
            unix = True
            continue
        try:
            networks.append(ipaddress.ip_network(proxy))
        except ValueError as error:
            raise ConfigError(f"a trusted proxy is an address, a network or 'unix': {error}") from None
    return networks, unix


def _names(given: Iterable[str]) -> frozenset[str]:
    if isinstance(given, str):
        raise ConfigError("hosts must be several names, not one str")
    names = frozenset(name.lower().rstrip(".") for name in given)
    for name in names:
        matched = _HOST.fullmatch(name)
        if matched is None or matched["port"]:
            raise ConfigError(f"a host is a name or an address without a port (IPv6 in brackets), not {name!r}")
    return names
