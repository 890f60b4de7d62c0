"""What a loop does just now in this OS process, in numbers: for the health page and for whoever runs a Runner."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from bmdb.identity import Unique

# A loop without a session is given so long before it counts as unwell, in seconds.
PATIENCE = 10.0


@dataclass(frozen=True)
class Snapshot:
    """One loop in one OS process at one moment.

    `session` is its session's id, `running` how many machines it works on; `leased` and `ended`, by how, count since
    the process began. `without_session_for` is in seconds; `trouble` says why the last look failed, if it did. `pid` is
    None for a process that has not begun, or has died and is about to be started again.
    """

    name: str
    process: str
    session: str | None = None
    running: int = 0
    leased: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    without_session_for: float = 0.0
    trouble: str | None = None
    pid: int | None = None

    @property
    def well(self) -> bool:
        """Whether it has a session, or has been without one for a moment only."""
        return self.session is not None or self.without_session_for < PATIENCE

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        return {**asdict(self), "well": self.well}


class State(Unique):
    """Counted by the instances of a loop, on whatever thread they are."""

    def __init__(self, name: str, process: str) -> None:
        self._lock = threading.Lock()
        self._name = name
        self._process = process
        self._session: str | None = None
        self._without = time.monotonic()
        self._running = 0
        self._leased = 0
        self._ended: Counter[str] = Counter()
        self._trouble: str | None = None

    def has_session(self, session: str | None) -> None:
        """There is this session now, or none any more."""
        with self._lock:
            if session is None and self._session is not None:
                self._without = time.monotonic()
            self._session = session

    def lost_session(self, session: str) -> None:
        """This session is lost; there may be another by now."""
        with self._lock:
            if self._session == session:
                self._session, self._without = None, time.monotonic()

    def began(self) -> None:
        """A machine was leased."""
        with self._lock:
            self._running += 1
            self._leased += 1

    def ended(self, how: str) -> None:
        """The work on a machine ended."""
        with self._lock:
            self._running -= 1
            self._ended[how] += 1

    def troubled(self, what: str | None) -> None:
        """The last look failed, or did not."""
        with self._lock:
            self._trouble = what

    @property
    def running(self) -> int:
        """How many machines are being worked on."""
        return self._running

    def snapshot(self) -> Snapshot:
        """As it stands."""
        with self._lock:
            without = 0.0 if self._session else time.monotonic() - self._without
            return Snapshot(
                self._name,
                self._process,
                self._session,
                self._running,
                self._leased,
                dict(self._ended),
                round(without, 3),
                self._trouble,
                os.getpid(),
            )
