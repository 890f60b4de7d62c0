"""`bmdb web`: the debug pages, served by this process alone."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from bmdb.cli.application import BadAnswer, Conninfo, Refused, app, check_given
from bmdb.cli.terminal import print_error

TOKEN_VARIABLE = "BMDB_WEB_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST_TOKEN = 16
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@app.command()
def web(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = 8080,
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Operators may hold and free machines there.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help=f"Who comes in has to know what is in it; or ${TOKEN_VARIABLE}."
        ),
    ] = None,
    trusted_header: Annotated[
        str | None,
        typer.Option("--trusted-header", metavar="NAME", help="The header in which a proxy says who it is."),
    ] = None,
    trusted_proxies: Annotated[
        list[str] | None,
        typer.Option("--trusted-proxy", metavar="ADDRESS", help="That proxy; by default on this machine."),
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which browsers get here, beside localhost."),
    ] = None,
    providers: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME=URL", help="A provider's console, with {provider_id} in the URL."),
    ] = None,
    conninfo: Conninfo = None,
) -> None:
    """Serve the debug pages.

    They only look, on a read-only connection, unless --allow-actions. Actions need a token or a trusted header: on
    loopback a token is made for this run and printed, elsewhere one must be given. Runs until SIGTERM or Ctrl-C.
    """
    check_given(conninfo)
    token = _token(token_file)
    if allow_actions and not is_loopback(host) and token is None and trusted_header is None:
        raise Refused(
            f"with --allow-actions on {host} anybody could free machines: say --token-file or --trusted-header,"
            " or listen on 127.0.0.1"
        )
    if trusted_proxies and trusted_header is None:
        raise Refused("--trusted-proxy says whose header is believed: say --trusted-header, too")
    if not is_loopback(host) and token is None and trusted_header is None:
        print_error(
            f"everybody who reaches {host} may look at the fleet: --token-file or --trusted-header keeps them out"
        )
    consoles = dict(map(_provider, providers or ()))
    try:
        # By name, as they belong to another extra, which need not be there.
        uvicorn, pages = import_module("uvicorn"), import_module("bmdb.web")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "bmdb":
            raise
        raise BadAnswer(f'the debug pages need {package}: pip install "pybmdb[web]"') from None
    if allow_actions and token is None and trusted_header is None:
        token = pages.new_token()
        # Said once, and never in an address, which browsers remember.
        print_error(f"the token for this run: {token}")
    proxies: dict[str, Any] = {"trusted_proxies": tuple(trusted_proxies)} if trusted_proxies else {}
    site = pages.app(
        conninfo or None,
        allow_actions=allow_actions,
        token=token,
        trusted_header=trusted_header,
        hosts=_names(host, allowed_hosts or ()),
        providers=consoles,
        **proxies,
    )
    with _listening(host, port) as listening:
        bound, reached = listening.getsockname()[:2]
        print_error(f"the debug pages are at http://{f'[{bound}]' if ':' in bound else bound}:{reached}/")
        # Forwarded addresses are believed by the pages themselves, and only from trusted proxies.
        config = uvicorn.Config(site, log_level="warning", proxy_headers=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _token(path: Path | None) -> str | None:
    """The token that was given, if one was; from a file without the white space around it."""
    if path is None:
        found = os.environ.get(TOKEN_VARIABLE) or None
        where = f"${TOKEN_VARIABLE}"
    else:
        where = str(path)
        try:
            found = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise Refused(
                f"the token cannot be read from {path}: {getattr(error, 'strerror', None) or error}"
            ) from None
    if found is not None and len(found) < SHORTEST_TOKEN:
        raise Refused(f"the token in {where} is shorter than {SHORTEST_TOKEN} characters: anybody could guess it")
    return found


def _provider(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not (name and equals and url.startswith(("https://", "http://")) and "{provider_id}" in url):
        # Without what was given, which may look like a connection string and be hidden as one.
        raise Refused(
            "a --provider is not like NAME=https://…/{provider_id}, where {provider_id} stands for a machine's id there"
        )
    return name, url


def _names(host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """What may stand in a request's Host header: a page of somebody else's, under a name of his, must not ask here."""
    own = f"[{host}]" if ":" in host and not host.startswith("[") else host
    names = dict.fromkeys((*_LOOPBACK_NAMES, *allowed))
    if own not in ("0.0.0.0", "[::]"):  # noqa: S104 - these name no host
        names[own] = None
    return tuple(names)


def _listening(host: str, port: int) -> socket.socket:
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise BadAnswer(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
