"""What the database says after a chaos test: leases, what was written, and when each of it was committed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

# Each row of these is written once and never changed, so its xmin is the transaction that it came with.
PREPARE = """
    CREATE TABLE chaos_write (
        nonce uuid PRIMARY KEY, kind text NOT NULL, machine_id uuid, token bigint, session_id uuid NOT NULL);
    CREATE TABLE chaos_session_end (session_id uuid NOT NULL);
    CREATE FUNCTION chaos_note_end() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO chaos_session_end VALUES (OLD.session_id); RETURN OLD; END';
    CREATE TRIGGER chaos_session_end AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION chaos_note_end();
"""
WRITES = """
    SELECT nonce, kind, machine_id, token, session_id, pg_xact_commit_timestamp(xmin) FROM chaos_write
"""
SESSION_ENDS = "SELECT session_id, pg_xact_commit_timestamp(xmin) FROM chaos_session_end"
HISTORY = """
    SELECT machine_id, token, event, session_id, failed_cause, pg_xact_commit_timestamp(xmin)
    FROM work_history WHERE process = %s ORDER BY 6
"""
LEFT = "SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)"
WAITING = "SELECT machine_id FROM work_backoff WHERE process = %s"


@dataclass(frozen=True)
class Write:
    """A row that a callback wrote."""

    nonce: str
    kind: str
    machine: UUID | None
    token: int | None
    session: UUID
    committed: datetime


@dataclass(frozen=True)
class Event:
    """A row of history: a lease began or ended. `cause` is that of a failure."""

    machine: UUID
    token: int
    event: str
    session: UUID
    cause: str | None
    committed: datetime


@dataclass
class Facts:
    """Everything that the verdict looks at. Events are in the order of their commits."""

    machines: list[UUID]
    writes: dict[str, Write]
    events: list[Event]
    session_ends: dict[UUID, datetime]
    leases_left: int = 0
    sessions_left: int = 0
    waiting: set[UUID] = field(default_factory=set)

    def starts(self) -> Iterator[Event]:
        """The leases that began."""
        return (event for event in self.events if event.event == "Started")

    def ends(self) -> Iterator[Event]:
        """The leases that ended."""
        return (event for event in self.events if event.event != "Started")


def prepare(sql: psycopg.Connection[Any]) -> None:
    """Make the tables that the workers write to. Raises RuntimeError if the server keeps no commit timestamps."""
    row = sql.execute("SHOW track_commit_timestamp").fetchone()
    if row != ("on",):
        raise RuntimeError("the chaos test needs a server with track_commit_timestamp = on")
    sql.execute(PREPARE)


def gather(sql: psycopg.Connection[Any], process: str) -> Facts:
    """Read all of it."""
    writes = [Write(str(nonce), *rest) for nonce, *rest in sql.execute(WRITES)]
    leases, sessions = sql.execute(LEFT).fetchone() or (0, 0)
    return Facts(
        machines=[machine for (machine,) in sql.execute("SELECT machine_id FROM machines")],
        writes={write.nonce: write for write in writes},
        events=[Event(*row) for row in sql.execute(HISTORY, [process])],
        session_ends=dict(sql.execute(SESSION_ENDS).fetchall()),
        leases_left=leases,
        sessions_left=sessions,
        waiting={machine for (machine,) in sql.execute(WAITING, [process])},
    )
