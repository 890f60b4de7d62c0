"""What workers still get done that are stopped for longer than their time-outs, and then go on as if nothing was."""

from __future__ import annotations

import contextlib
import importlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from benches.peers.arena import Arena, Failed, Process
from benches.peers.contract import Entry

AT_ONCE = 100
TAKEN_SECONDS = 60.0
# Until late writes and late ends are on disk, even where ends wait in a buffer.
_LATE_SECONDS = 6.0


@dataclass
class Zombies:
    """Of `units` held by a process that was stopped: those that went to another, and what was accepted afterwards.

    `writes`: rows that their functions then wrote. `ends`: units that ended although the other still runs them.
    """

    units: int = 0
    taken: int = 0
    writes: int = 0
    ends: int = 0

    def add(self, other: Zombies) -> None:
        """Another round."""
        self.units += other.units
        self.taken += other.taken
        self.writes += other.writes
        self.ends += other.ends


def measure(arena: Arena, entry: Entry, count: int = AT_ONCE) -> Zombies:
    """A round: a process holds `count` units, is stopped, another takes them over and keeps them, the first goes on.

    Each function of the first one then writes a row and returns. Raises Failed, also where not all were taken over.
    """
    adapter = importlib.import_module(f"benches.peers.adapters.{entry.module}")
    with arena.database() as database, _ending() as acts, psycopg.connect(arena.address(database)) as look:
        arena.prepare(entry, database, 0)
        look.autocommit = True
        look.execute("CREATE TABLE late_writes (at timestamptz DEFAULT clock_timestamp())")
        feeder = arena.feeder(entry, database)
        standby = arena.worker(entry, database, "standby", short=True)
        acts += [feeder, standby]
        try:
            feeder.next("ready", 60)
            standby.next("ready", 60)
            time.sleep(2.0)
            if not _only_a_leader(entry):
                standby.kill()
            holder = arena.worker(entry, database, "write", count, short=True)
            acts.append(holder)
            holder.next("ready", 60)
            for _ in range(count):
                feeder.say("one")
            for _ in range(count):
                holder.next("started", 30)
            other = arena.worker(entry, database, "hold", count, short=True)
            acts.append(other)
            other.next("ready", 60)
        except TimeoutError as error:
            raise Failed(str(error)) from None
        holder.signal(signal.SIGSTOP)
        found = Zombies(units=count, taken=_taken(other, count))
        if found.taken < count:
            raise Failed(f"another took over only {found.taken} of {count} units within {TAKEN_SECONDS:g} s")
        # What is to be done next is there already when it wakes.
        holder.say("release")
        holder.signal(signal.SIGCONT)
        time.sleep(_LATE_SECONDS)
        found.writes = _count(look, "SELECT count(*) FROM late_writes")
        found.ends = _count(look, adapter.ENDED)
        return found


def _only_a_leader(entry: Entry) -> bool:
    """Whether what stands by takes no units."""
    return entry.module in ("awa_peer", "ours")


def _taken(other: Process, count: int) -> int:
    """How many units the other process was called for in time."""
    end = time.monotonic() + TAKEN_SECONDS
    taken = 0
    with contextlib.suppress(TimeoutError):
        while taken < count:
            other.next("started", max(0.0, end - time.monotonic()))
            taken += 1
    return taken


def _count(sql: psycopg.Connection, statement: str) -> int:
    row = sql.execute(statement.encode()).fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def _ending() -> Iterator[list[Process]]:
    """Processes that are killed at the end."""
    acts: list[Process] = []
    try:
        yield acts
    finally:
        for act in acts:
            act.kill()
