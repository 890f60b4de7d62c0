"""What grows during a soak: the workers that are never killed, and what lies dead in the database."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg

from tests.chaos.crew import Crew

SAMPLE_SECONDS = 5.0

# Only tables that are written without end; what history grows by is its purpose.
DATABASE = """
    SELECT
        (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
            WHERE relname IN ('work', 'sessions', 'work_token', 'work_backoff', 'work_loss', 'machines')) AS dead,
        (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'bmdb %') AS connections
"""


@dataclass(frozen=True)
class Worker:
    """A worker at a moment: seconds since the beginning, resident MiB, open file descriptors, TCP connections."""

    name: str
    at: float
    resident: float
    descriptors: int
    connections: int


@dataclass(frozen=True)
class Database:
    """The database at a moment: dead tuples of the tables that leases live in, and connections of all workers."""

    at: float
    dead: int
    connections: int


@dataclass
class Samples:
    """All that was seen."""

    workers: list[Worker] = field(default_factory=list)
    database: list[Database] = field(default_factory=list)

    def of(self, name: str) -> list[Worker]:
        """Those of one worker."""
        return [sample for sample in self.workers if sample.name == name]

    def names(self) -> list[str]:
        """The workers, in the order of their first samples."""
        return list(dict.fromkeys(sample.name for sample in self.workers))


class Gauge:
    """Looks every few seconds, for `chaos.run` to call; prints a line each minute."""

    def __init__(self, dsn: str, watched: int) -> None:
        self.samples = Samples()
        self._sql: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True, application_name="gauge")
        self._watched = watched
        self._next = 0.0
        self._line = 60.0

    def __call__(self, crew: Crew, passed: float) -> None:
        """Take a sample if it is time for one."""
        if passed < self._next:
            return
        self._next = passed + SAMPLE_SECONDS
        for place in crew.places[: self._watched]:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.samples.workers.append(look_at(f"{place.name} ({place.style})", place.process.pid, passed))
        row = self._sql.execute(DATABASE).fetchone()
        assert row is not None
        self.samples.database.append(Database(passed, *row))
        if passed >= self._line:
            self._line += 60.0
            last = self.samples.workers[-self._watched :]
            shown = "; ".join(f"{each.name} {each.resident:.1f} MiB, {each.descriptors} descriptors" for each in last)
            print(f"{passed / 60:.0f} min: {shown}; {row[0]} dead tuples, {row[1]} connections", flush=True)

    def close(self) -> None:
        """Close its connection."""
        self._sql.close()


def look_at(name: str, pid: int, at: float) -> Worker:
    """One process now. Raises psutil.NoSuchProcess."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Worker(
            name, at, process.memory_info().rss / 2**20, process.num_fds(), len(process.net_connections("tcp"))
        )
