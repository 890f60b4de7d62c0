"""How late heartbeats are while their process holds the GIL, told by the process itself and by another one."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from .beating import HOLD_SECONDS, INTERVAL, PERIOD

POLL_SECONDS = 0.005
RENEWALS = """
SELECT session_id, extract(epoch FROM session_deadline)::float8 - session_interval_seconds
FROM sessions
WHERE session_id = ANY(%s)
"""


@dataclass(frozen=True)
class Lateness:
    """Seconds from when a beat was due to when it was sent, over `beats` beats, as upper bounds of buckets where the
    process keeps a histogram. `gap`: the longest time beyond a beat's period that an observer saw without a renewal.
    """

    beats: int
    p50: float
    p99: float
    most: float
    gap: float
    bounds_only: bool


def during_holds(conninfo: str, rounds: int) -> tuple[Lateness, Lateness]:
    """Both sides at once, each in a process that holds its own GIL, `rounds` times: (bmdb's, psycopg's).

    At once, since nothing is computed here: almost all that they do is wait.
    """
    buckets: dict[float, int] = {}
    late: list[float] = []
    gaps: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        with _Worker("bmdb", conninfo) as first, _Worker("psycopg", conninfo) as second:
            workers = (first, second)
            time.sleep(INTERVAL)
            for worker in workers:
                worker.begin()
            seen = _observe(conninfo, [session for worker in workers for session in worker.sessions])
            for gap, worker in zip(gaps, workers, strict=True):
                gap.extend(_longest_gap(seen[session]) - PERIOD for session in worker.sessions)
            for bound, count in first.told()["histogram"]:
                buckets[bound] = buckets.get(bound, 0) + count
            late.extend(second.told()["late"])
    bounds = [bound for bound, count in sorted(buckets.items()) for _ in range(count)]
    return _summary(bounds, gaps[0], bounds_only=True), _summary(sorted(late), gaps[1], bounds_only=False)


def _summary(ordered: Sequence[float], gaps: Sequence[float], *, bounds_only: bool) -> Lateness:
    def quantile(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Lateness(len(ordered), quantile(0.5), quantile(0.99), ordered[-1], max(0.0, *gaps), bounds_only)


def _observe(conninfo: str, sessions: Sequence[str]) -> dict[str, list[float]]:
    """The times at which each session was renewed, by the server's clock, between the start and the end of the watch.

    The start and the end are among them, so that renewals that never came leave a gap.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection, connection.cursor() as cursor:
        started = time.time()
        seen = {session: [started] for session in sessions}
        while time.time() < started + HOLD_SECONDS:
            for session_id, renewed in cursor.execute(RENEWALS, (list(sessions),), prepare=True):
                times = seen[str(session_id)]
                if renewed > times[-1]:
                    times.append(renewed)
            time.sleep(POLL_SECONDS)
    for times in seen.values():
        times.append(time.time())
    return seen


def _longest_gap(times: Sequence[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(times))


class _Worker:
    """A process that runs `beating.py`."""

    def __init__(self, side: str, conninfo: str) -> None:
        program = [sys.executable, str(Path(__file__).with_name("beating.py")), side, conninfo]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sessions: list[str] = self.told()["sessions"]

    def begin(self) -> None:
        """Have it hold the GIL."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, list]:
        """The next thing that it tells. Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended")
        return json.loads(line)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
