"""What the pages were set up with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `bmdb.web.app`, as they were given."""

    conninfo: str | None = field(default=None, repr=False)
    allow_actions: bool = False
    # Not for a log: it lets people in.
    token: str | None = field(default=None, repr=False)
    trusted_header: str | None = None
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    providers: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    refresh: float = 2.0
