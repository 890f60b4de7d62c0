"""A small fleet that works while the pages are looked at, and what hostile people would put into one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

import bmdb

AGENT_START = bmdb.Process(
    "ShepherdAgentStart",
    backoff=bmdb.Backoff(300, 3600, 2),
    excludes=("ShepherdRecovery",),
    crash_backoff=bmdb.Backoff(60, 3600, 2),
    quarantine_after=3,
    eligible=bmdb.eligible(
        having=("provided",), lacking=("agent_started",), where="machine_provided.provider = 'Equinix'"
    ),
)
INSPECTION = bmdb.Process(
    "HardwareInspection", eligible=bmdb.eligible(having=("agent_started",), lacking=("hardware_report",))
)
CAUSES = ("connection refused", "no answer within 1 s", "the disk of this machine cannot be read: input/output error")

# What a browser would run, what turns the direction of text, what a terminal acts on, and what a template would expand.
SCRIPT = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
HOSTILE = f"\"'`{SCRIPT}\u202egpj.exe\u2066\x1b[31mred\x1b[0m\x07{{{{7*7}}}}"
LONG = (f"Traceback (most recent call last):\n{SCRIPT}\n" + "unbroken" * 1024)[:8192]
HOSTILE_PROCESS = "Hostile/../<b onclick=x>&?#%2f\u202e\x1b[1m"


def _number(work: bmdb.AsyncWork) -> int:
    return work.machine.int


@bmdb.loop(AGENT_START, parallelism=2, interval=2.0, max_idle=0.5)
async def start_agent(work: bmdb.AsyncWork) -> object:
    """Starts agents; one machine in five answers badly."""
    await asyncio.sleep(0.3)
    number = _number(work)
    if number % 5 == 0:
        raise bmdb.Retry(CAUSES[number % 3], after=600)
    return bmdb.set_tag("agent_started", agent_started_at=datetime.now(UTC), agent_public_key=work.machine.bytes)


@bmdb.loop(INSPECTION, parallelism=3, interval=2.0, max_idle=0.5)
async def inspect(work: bmdb.AsyncWork) -> object:
    """Takes its time, so that there is always something leased."""
    await asyncio.sleep(600)
    return bmdb.set_tag("hardware_report", hardware_report_raw=b"\x08\x01")


LOOPS = (start_agent, inspect)


def populate(conninfo: str, count: int) -> list[UUID]:
    """Makes machines that need an agent, from two providers."""
    with psycopg.connect(conninfo, autocommit=True) as sql:
        sql.execute(
            """
            WITH made AS (
                INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, %s)
                RETURNING machine_id
            ), numbered AS (SELECT machine_id, row_number() OVER () AS n FROM made)
            INSERT INTO machine_provided
                (machine_id, provider, provider_id, provider_ip_address, provider_location, provider_status)
            SELECT machine_id, CASE WHEN mod(n, 4) = 0 THEN 'Lumen' ELSE 'Equinix' END, 'device-' || n,
                '192.0.2.' || mod(n, 256), 'ams' || mod(n, 3), 'Running'
            FROM numbered
            """,
            [count],
        )
        rows = sql.execute("SELECT machine_id FROM machine_provided ORDER BY provider_id").fetchall()
    return [machine for (machine,) in rows]


@contextlib.contextmanager
def working(conninfo: str) -> Iterator[bmdb.Runner]:
    """The loops at work, in this process, until the end of the block; what is not done by then is given back."""
    with bmdb.Runner(LOOPS, conninfo, component="agent-starter", grace=0.0) as runner:
        yield runner


@dataclass(frozen=True)
class Hostile:
    """Where hostile text is to be found."""

    machine: UUID
    session: UUID


@contextlib.contextmanager
def hostile(conninfo: str) -> Iterator[Hostile]:
    """A session that lives during the block, with a machine, of which everything that people may write is hostile."""
    with (
        psycopg.connect(conninfo, autocommit=True) as sql,
        bmdb.connect(conninfo, component=HOSTILE, runtime_info=HOSTILE) as connection,
        connection.start_session(processor="hostile") as session,
    ):
        sql.execute(
            "CREATE TABLE machine_note"
            " (machine_id uuid PRIMARY KEY REFERENCES machines, words text, data jsonb, raw bytea)"
        )
        (made,) = sql.execute("INSERT INTO machines DEFAULT VALUES RETURNING machine_id").fetchone() or ()
        sql.execute(
            "INSERT INTO machine_provided (machine_id, provider, provider_id, provider_location, provider_status)"
            " VALUES (%s, %s, %s, %s, %s)",
            [made, HOSTILE, HOSTILE[:120], HOSTILE[:120], HOSTILE],
        )
        sql.execute(
            "INSERT INTO machine_note (machine_id, words, data, raw) VALUES (%s, %s, %s, %s)",
            [made, HOSTILE, Jsonb({SCRIPT: [SCRIPT, LONG]}), HOSTILE.encode()],
        )
        for _ in range(2):
            with session.work(HOSTILE_PROCESS, lambda q: [made]) as work:
                work.fail(LONG, bmdb.Backoff(1, 1, 1))
            connection.clear_backoff(made, HOSTILE_PROCESS, owner=HOSTILE, reason=HOSTILE)
        with session.work("Failing", lambda q: [made]) as work:
            work.fail(LONG, bmdb.Backoff(600, 600, 1))
        connection.hold(made, "Held" + HOSTILE_PROCESS, owner=HOSTILE, reason=LONG)
        with session.work(HOSTILE_PROCESS, lambda q: [made]) as work:
            yield Hostile(made, session.uuid)
