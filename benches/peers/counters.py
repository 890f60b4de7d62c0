"""What a run costs: processor time of process trees from /proc, WAL and commits from the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psycopg

_TICKS = os.sysconf("SC_CLK_TCK")


def parse_stat(text: str) -> tuple[int, int, int]:
    """Process id, parent, and ticks with those of reaped children, from the line in /proc/PID/stat."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return int(pid), int(fields[1]), sum(int(ticks) for ticks in fields[11:15])


def tree_ticks(stats: list[tuple[int, int, int]], root: int) -> int:
    """The ticks of a process and of all that descend from it."""
    children: dict[int, list[int]] = {}
    ticks = {}
    for pid, parent, used in stats:
        children.setdefault(parent, []).append(pid)
        ticks[pid] = used
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, ())
    return total


def cpu_seconds(root: int) -> float:
    """User and system time of a process tree, those of it that have ended included."""
    stats = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stats.append(parse_stat((directory / "stat").read_text()))
            except (OSError, ValueError, IndexError):
                continue  # it ended just now
    return tree_ticks(stats, root) / _TICKS


@dataclass(frozen=True)
class Written:
    """What the server had written by some moment: bytes of WAL, and commits in one database."""

    wal: int
    commits: int

    @classmethod
    def now(cls, sql: psycopg.Connection, database: str) -> Written:
        """As the server tells it; `sql` must be connected to another database, whose commits do not count."""
        row = sql.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, xact_commit"
            " FROM pg_stat_database WHERE datname = %s",
            [database],
        ).fetchone()
        assert row is not None
        return cls(*row)
