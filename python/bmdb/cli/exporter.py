"""A page of metrics for Prometheus, served until a signal ends it."""

from __future__ import annotations

import threading
from typing import Any, Self

from bmdb.janitor import Janitor
from bmdb.loops.health import Health


class Exporter:
    """Serves /metrics, with the statistics alone, and /healthz: status 200 while all statistics can be read."""

    def __init__(self, listen: str, janitor: Janitor) -> None:
        """Raises ConfigError when it cannot listen there."""
        self.janitor = janitor
        self._ended = threading.Event()
        self._page = Health(listen, self)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._page.address

    def start(self) -> Self:
        """It serves from the time that it is made."""
        return self

    def stop(self, *, now: bool = False) -> None:
        """Ends it."""
        self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, and closes the page; whether it has ended."""
        if not self._ended.wait(timeout):
            return False
        self._page.stop()
        self.janitor.close()
        return True

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all statistics could be read the last time, and which could not."""
        failing = {
            " ".join(filter(None, (reading.kind.name, reading.process))): reading.error
            for reading in self.janitor.read()
            if reading.error is not None
        }
        return not failing, {"status": "unwell" if failing else "ok", "failing": failing}

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """None of its own."""
        return []
