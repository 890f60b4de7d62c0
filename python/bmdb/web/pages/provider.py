"""The way from a machine to its provider's console, along templates that the operator gave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from bmdb.errors import ConfigError
from bmdb.web.site import site_of

__all__ = ["checked", "routes"]

PLACE = "{provider_id}"
_TEMPLATE = re.compile(r"[!-\[\]-~]+")  # what a browser takes for a slash is none here


def checked(providers: Mapping[str, str]) -> dict[str, str]:
    """The templates; ConfigError for one that does not lead to a fixed server, whatever the id is."""
    for name, template in providers.items():
        try:
            parts = urlsplit(template)
            server = parts.netloc if parts.hostname and (parts.port is None or parts.port) else ""
        except ValueError:
            raise ConfigError(f"the address of the provider {name!r} is none: {template!r}") from None
        if parts.scheme not in ("http", "https") or not server or not _TEMPLATE.fullmatch(template):
            raise ConfigError(f"the address of the provider {name!r} must begin with https:// or http:// and a server")
        if template.count(PLACE) != 1 or PLACE in server or "@" in server:
            raise ConfigError(f"the address of the provider {name!r} must have {PLACE} once, after the server's name")
    return dict(providers)


async def to_provider(request: Request) -> Response:
    """Redirects to where the template says. The id comes from a database: it is never more than one part of a path."""
    template = site_of(request).settings.providers.get(request.path_params["provider"])
    provider_id = request.path_params["provider_id"]
    # Encoded or not, browsers take dots for the way up.
    if template is None or provider_id.strip() in ("", ".", ".."):
        return PlainTextResponse("No address is known of that provider: see the setting providers.", 404)
    return RedirectResponse(template.replace(PLACE, quote(provider_id, safe="")), 302)


routes = [Route("/providers/{provider}/{provider_id:path}", to_provider, name="provider")]
