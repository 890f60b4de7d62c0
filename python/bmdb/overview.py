"""The fleet at a glance, as data: for the pages and for `bmdb top`.

Each question is one statement, asked by itself, so that one that fails or takes long spoils no other. `ask` asks on a
`bmdb.Connection`, `ask_async` on a `bmdb.AsyncConnection`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from bmdb._async.connection import AsyncConnection
    from bmdb._core import Row
    from bmdb._sync.connection import Connection

__all__ = [
    "BACKOFFS",
    "COLLECTION",
    "ENDS",
    "LEASES",
    "LOSSES",
    "MACHINES",
    "SESSIONS",
    "STEPS",
    "STEP_SECONDS",
    "Backoffs",
    "CollectionLag",
    "Events",
    "Leases",
    "MachineCounts",
    "Question",
    "SessionAge",
    "Sessions",
]

T = TypeVar("T")

# An hour in steps of two minutes.
STEP_SECONDS = 120.0
STEPS = 30
_LONGEST_SESSIONS = 10


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One of the library's statements, and what to make of its rows."""

    query: str
    make: Callable[[Sequence[Row]], T]
    params: tuple[object, ...] = ()

    def ask(self, connection: Connection) -> T:
        """The answer now. Raises DatabaseError and ConnectionFailedError."""
        return self.make(connection._look(lambda q: q._core.call(self.query, self.params)))

    async def ask_async(self, connection: AsyncConnection) -> T:
        """The answer now. Raises DatabaseError and ConnectionFailedError."""
        return self.make(await connection._read(lambda q: q._core.call_async(self.query, self.params)))


@dataclass(frozen=True, slots=True)
class MachineCounts:
    """How many machines are in which state. One may be in several; it is idle if it is in none."""

    machines: int
    leased: int
    waiting: int
    held: int
    quarantined: int
    idle: int


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of a process: how many, in how many sessions, how many in expired ones, and since when the oldest."""

    process: str
    leases: int
    sessions: int
    orphaned: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Backoffs:
    """How many machines a process leaves alone, when the first of them is due, and how many are in quarantine."""

    process: str
    backoffs: int
    next: datetime | None
    quarantined: int


@dataclass(frozen=True, slots=True)
class Events:
    """How often an event happened to a process in the last hour: a number for each step, the newest last."""

    process: str
    event: str
    steps: tuple[int, ...]

    @property
    def total(self) -> int:
        """All of the hour."""
        return sum(self.steps)


@dataclass(frozen=True, slots=True)
class SessionAge:
    """One of the sessions that have lived longest."""

    session_id: UUID
    component: str
    created_at: datetime
    interval_seconds: int
    deadline: datetime
    live: bool
    leases: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """How many sessions live and how many have expired uncollected; those that have lived longest, longest first."""

    live: int = 0
    expired: int = 0
    longest: tuple[SessionAge, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class CollectionLag:
    """Expired sessions that nobody has collected, since when the first has expired, and the leases that they keep."""

    sessions: int
    oldest: datetime | None
    leases: int


def _events(rows: Sequence[Row]) -> list[Events]:
    found: dict[tuple[str, str], list[int]] = {}
    for process, event, step, count in rows:
        # What happens while the question is asked is of the newest step, too.
        found.setdefault((process, event), [0] * STEPS)[STEPS - 1 - min(max(step, 0), STEPS - 1)] += count
    return [Events(process, event, tuple(steps)) for (process, event), steps in found.items()]


def _sessions(rows: Sequence[Row]) -> Sessions:
    if not rows:
        return Sessions()
    longest = tuple(SessionAge(*row[:7]) for row in rows)
    return Sessions(rows[0].live, rows[0].expired, longest)


def _each(make: Callable[..., T]) -> Callable[[Sequence[Row]], list[T]]:
    return lambda rows: [make(*row) for row in rows]


def _only(make: Callable[..., T]) -> Callable[[Sequence[Row]], T]:
    return lambda rows: make(*rows[0])


def _last_hour(*events: str) -> Question[list[Events]]:
    params: tuple[Any, ...] = (list(events), STEPS * STEP_SECONDS, STEP_SECONDS)
    return Question("overview_events", _events, params)


MACHINES = Question("overview_machines", _only(MachineCounts))
LEASES = Question("overview_leases", _each(Leases))
BACKOFFS = Question("overview_backoffs", _each(Backoffs))
LOSSES = _last_hour("Lost")
ENDS = _last_hour("Finished", "Failed")
SESSIONS = Question("overview_sessions", _sessions, (_LONGEST_SESSIONS,))
COLLECTION = Question("overview_collection", _only(CollectionLag))
