"""What becomes of a unit whose worker is lost, and of the end that a worker reports which was only thought lost."""

from __future__ import annotations

import importlib
import signal
import time
from dataclasses import dataclass

import psycopg
from benches.peers.arena import Arena, Failed, Process
from benches.peers.contract import Entry

LIMIT_SECONDS = 90.0
_ZOMBIE_LIMIT_SECONDS = 80.0
_SETTLING_SECONDS = 3.0


@dataclass(frozen=True)
class Zombie:
    """What came of one late end: whether it was taken for the unit's end, and whether its worker was told."""

    accepted: bool
    told: bool

    @property
    def verdict(self) -> str:
        """In words."""
        if self.accepted:
            return "accepted"
        return "refused aloud" if self.told else "dropped in silence"


def measure(arena: Arena, entry: Entry, limit: float = LIMIT_SECONDS) -> float | None:
    """Seconds from SIGKILL of the worker that runs a unit until another runs it, None if that took more than `limit`.

    Both run with their defaults. Raises Failed.
    """
    with arena.database() as database:
        arena.prepare(entry, database, 0)
        feeder = arena.feeder(entry, database)
        holder = _holding(arena, entry, database, feeder, short=False)
        other = arena.worker(entry, database, "note")
        try:
            other.next("ready", 60)
            time.sleep(3.0)
            killed = time.monotonic()
            holder.kill()
            return other.next("started", limit) - killed
        except TimeoutError:
            return None
        finally:
            _end(feeder, holder, other)


def zombie(arena: Arena, entry: Entry, finished: bool) -> Zombie | None:
    """Stop the holder for longer than its time-outs, let another take the unit over, and let the first one go on.

    `finished`: the other has finished the unit by then, and the late end counts as accepted when it rewrites a row of
    the unit. Else the other still runs it, and the late end counts as accepted when it ends the unit under its hands.
    None when nobody took the unit over. Raises Failed.
    """
    adapter = importlib.import_module(f"benches.peers.adapters.{entry.module}")
    with arena.database() as database:
        arena.prepare(entry, database, 0)
        feeder = arena.feeder(entry, database)
        holder = _holding(arena, entry, database, feeder, short=True)
        other = arena.worker(entry, database, "note" if finished else "hold", short=True)
        try:
            other.next("ready", 60)
            holder.signal(signal.SIGSTOP)
            try:
                other.next("started", _ZOMBIE_LIMIT_SECONDS)
            except TimeoutError:
                return None
            time.sleep(_SETTLING_SECONDS)  # the other's end is on disk by then, even where ends wait in a buffer
            with psycopg.connect(arena.address(database), autocommit=True) as look:
                if finished:
                    other.kill()
                before, heard = _state(look, adapter.TABLES), len(holder.complaints)
                holder.signal(signal.SIGCONT)
                holder.say("release")
                told = False
                try:
                    holder.next("released", 10)
                except (Failed, TimeoutError):
                    told = True  # its function was interrupted, or the worker ended
                time.sleep(_SETTLING_SECONDS)
                if finished:
                    accepted = _state(look, adapter.TABLES) != before
                else:
                    row = look.execute(getattr(adapter, "COMPLETED", adapter.SETTLED)).fetchone()
                    accepted = row is not None and bool(row[0])
            return Zombie(accepted, told or len(holder.complaints) > heard)
        finally:
            _end(feeder, holder, other)


def _holding(arena: Arena, entry: Entry, database: str, feeder: Process, short: bool) -> Process:
    """A worker that runs the only unit there is, and goes on running it."""
    holder = arena.worker(entry, database, "hold", short=short)
    try:
        feeder.next("ready", 60)
        holder.next("ready", 60)
        time.sleep(1.0)
        feeder.say("one")
        holder.next("started", 30)
    except (TimeoutError, Failed) as error:
        _end(feeder, holder)
        raise Failed(str(error)) from None
    return holder


def _end(*processes: Process) -> None:
    for process in processes:
        process.kill()


def _state(sql: psycopg.Connection, tables: tuple[str, ...]) -> list[object]:
    """All rows of the tables, each with the transaction that wrote it: a rewrite shows even if it changes nothing."""
    state: list[object] = []
    for table in tables:
        state += sorted(sql.execute(f"SELECT t.xmin::text, t::text FROM {table} AS t").fetchall())
    return state
