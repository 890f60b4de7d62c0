"""A page that says how the loops are, and the metrics, on a port of their own. Standard library only."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from bmdb.errors import ConfigError
from bmdb.janitor import Janitor

# A client that says nothing for so long, in seconds, is let go.
_PATIENCE = 5.0


class Watched(Protocol):
    """What the pages are about: a Runner."""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and a document that says more."""

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """A snapshot of the metrics, as a connection's."""

    @property
    def janitor(self) -> Janitor | None:
        """Who reads statistics of the database, if anybody does."""


class Health:
    """Serves /healthz (JSON; status 200 while all is well, else 503) and /metrics on a daemon thread.

    `listen` is HOST:PORT; port 0 takes a free one, no host means all. Raises ConfigError when it cannot be had.
    """

    def __init__(self, listen: str, watched: Watched) -> None:
        class Handler(_Handler):
            pages = {"/healthz": lambda: _health(watched), "/metrics": lambda: _metrics(watched)}  # noqa: RUF012

        host, port = split(listen)
        try:
            self._server = (_Server6 if ":" in host else _Server)((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {listen}: {error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="bmdb-health", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def split(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, [HOST]:PORT or :PORT. Raises ConfigError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listen must be HOST:PORT, such as 127.0.0.1:9180, not {listen!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Closing must not wait for clients that keep their connection.
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


Answer = tuple[int, str, bytes]


class _Handler(BaseHTTPRequestHandler):
    pages: dict[str, Callable[[], Answer]]
    timeout = _PATIENCE
    server_version = "bmdb"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        status, kind, body = (404, "text/plain", b"there is /healthz and /metrics\n") if page is None else page()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing: probes come every few seconds."""


def _health(watched: Watched) -> Answer:
    well, document = watched.health()
    return (200 if well else 503), "application/json", json.dumps(document, indent=2).encode() + b"\n"


def _metrics(watched: Watched) -> Answer:
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        from bmdb.metrics import Collector, StatisticsCollector
    except ModuleNotFoundError as error:
        return 501, "text/plain", f'needs {error.name}: pip install "pybmdb[metrics]"\n'.encode()
    registry = CollectorRegistry()
    registry.register(Collector(watched))
    if (janitor := watched.janitor) is not None:
        registry.register(StatisticsCollector(janitor))
    return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
