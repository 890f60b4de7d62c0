"""A worker process for `heartbeats.py`: keeps sessions alive, and holds the GIL while it should.

    beating.py {bmdb,psycopg} CONNINFO

Prints the ids of its sessions, holds the GIL from one line on its standard input for HOLD_SECONDS, then prints how late
its beats were.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import psycopg

import bmdb
from bmdb import _core

# Each session has a connection and so a heartbeat of its own: more beats to judge by.
SESSIONS = 5
INTERVAL = 1
PERIOD = INTERVAL / 2
HOLD_SECONDS = 10.0
RENEW = dict(_core.queries())["session_renew"]


def hold_the_gil() -> None:
    """Wait in C without letting go of the GIL, as an extension module may that computes."""
    ctypes.PyDLL(None).usleep(int(HOLD_SECONDS * 1e6))


def say(**facts: Any) -> None:
    """One line of JSON for whoever started this."""
    print(json.dumps(facts), flush=True)


def with_bmdb(conninfo: str) -> None:
    """Heartbeats in the core's own threads. Tells the growth of its lateness histogram: [upper bound, beats]."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(bmdb.connect(conninfo, component="benchmark", pool_size=1)) for _ in range(SESSIONS)
        ]
        say(sessions=[str(connection.start_session(interval=INTERVAL).uuid) for connection in connections])
        sys.stdin.readline()
        before = _lateness(connections)
        hold_the_gil()
        after = _lateness(connections)
        say(histogram=[[bound, after[bound] - before[bound]] for bound in sorted(after)])


def _lateness(connections: list[bmdb.Connection]) -> dict[float, int]:
    counts: dict[float, int] = {}
    for connection in connections:
        for name, _, _, value in connection.metrics():
            if name == "bmdb_heartbeat_lateness_seconds":
                below = 0
                for bound, cumulative in value[0]:
                    counts[bound] = counts.get(bound, 0) + cumulative - below
                    below = cumulative
    return counts


def with_psycopg(conninfo: str) -> None:
    """Heartbeats in Python threads that send the same statement as often.

    Tells how late, in seconds, each beat was that was due during the hold; not those that would have been due if an
    earlier one had been sent in time.
    """
    beats: list[tuple[float, float]] = []
    stop = threading.Event()
    with bmdb.connect(conninfo, component="benchmark", pool_size=1) as owner:
        ids = [owner.start_session(interval=INTERVAL).uuid for _ in range(SESSIONS)]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for session_id in ids:
            _start(connection, session_id)
    threads = [threading.Thread(target=_beat, args=(conninfo, session_id, stop, beats)) for session_id in ids]
    for thread in threads:
        thread.start()
    say(sessions=[str(session_id) for session_id in ids])
    sys.stdin.readline()
    began = time.monotonic()
    hold_the_gil()
    ended = time.monotonic()
    # The beats that were due meanwhile come now.
    time.sleep(2 * PERIOD)
    stop.set()
    for thread in threads:
        thread.join()
    say(late=[sent - due for due, sent in beats if began <= due <= ended])


def _start(connection: psycopg.Connection, session_id: UUID) -> None:
    connection.execute(
        "INSERT INTO sessions VALUES (%s, 'benchmark', '', now(), %s, clock_timestamp() + %s * interval '1 second')",
        (session_id, INTERVAL, INTERVAL),
    )


def _beat(conninfo: str, session_id: UUID, stop: threading.Event, beats: list[tuple[float, float]]) -> None:
    with (
        psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.RawCursor) as connection,
        connection.cursor() as cursor,
    ):
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            beats.append((due, now))
            cursor.execute(RENEW, ([session_id],), prepare=True)
            due = now + PERIOD * (1 - 0.1 * random.random())


if __name__ == "__main__":
    {"bmdb": with_bmdb, "psycopg": with_psycopg}[sys.argv[1]](sys.argv[2])
