"""Cycles a second over units enqueued beforehand, and what a unit costs on both sides."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass

import psycopg
from benches.peers.arena import Arena, Failed
from benches.peers.contract import Entry
from benches.peers.counters import Written, cpu_seconds

_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Run:
    """One run: units a second, and for each unit the processor time in µs on both sides, bytes of WAL, and commits."""

    rate: float
    client_us: float
    server_us: float
    wal: float
    commits: float


def measure(arena: Arena, entry: Entry, count: int) -> Run:
    """Have one worker end `count` units. From the first call of its function until all of them have ended durably.

    Raises Failed.
    """
    adapter = importlib.import_module(f"benches.peers.adapters.{entry.module}")
    with arena.database() as database:
        arena.prepare(entry, database, count)
        before = Written.now(arena.sql, database)
        looks = 0
        with psycopg.connect(arena.address(database), autocommit=True) as look:
            worker = arena.worker(entry, database, "count", count)
            try:
                begun = worker.next("first", 60)
                client, server = cpu_seconds(worker.pid), cpu_seconds(arena.postmaster)
                worker.next("last", 60 + count / 50)
                patience = time.monotonic() + 60
                while True:
                    looks += 1
                    row = look.execute(adapter.SETTLED).fetchone()
                    ended = time.monotonic()
                    if row is not None and row[0]:
                        break
                    if ended > patience:
                        raise Failed(f"units are left: {worker.last_words()}")
                    time.sleep(_LOOK_SECONDS)
                client = cpu_seconds(worker.pid) - client
                server = cpu_seconds(arena.postmaster) - server
            except TimeoutError as error:
                raise Failed(str(error)) from None
            finally:
                worker.kill()
            if hasattr(adapter, "TWICE"):
                looks += 1
                twice = look.execute(adapter.TWICE).fetchone()
                if twice is None or twice[0] != 0:
                    raise Failed(f"{twice} units were ended twice")
        arena.alone(database)
        after = Written.now(arena.sql, database)
    return Run(
        rate=count / (ended - begun),
        client_us=client / count * 1e6,
        server_us=server / count * 1e6,
        wal=(after.wal - before.wal) / count,
        commits=(after.commits - before.commits - looks) / count,
    )
