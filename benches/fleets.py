"""Measure what a lease costs in fleets of a thousand to a million machines, and write it into docs/scale.md.

What `make bench-fleets` runs. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.python.marked import write  # noqa: E402
from benches.python.report import duration, table  # noqa: E402
from benches.python.server import Server, running  # noqa: E402

import bmdb  # noqa: E402

DOCUMENT = ROOT / "docs" / "scale.md"
MARKS = ("<!-- written by make bench-fleets -->", "<!-- end of make bench-fleets -->")
FLEETS = (1_000, 100_000, 1_000_000)
BATCH = 100
ROUNDS = 3
SAMPLES = 200

HALF = bmdb.Process("Half", eligible=bmdb.eligible(having=("provided",)), watch=False)
SPARSE = bmdb.Process("Sparse", eligible=bmdb.eligible(having=("agent_started",), lacking=("agent_heartbeat",)))

Sql = psycopg.Connection[Any]


def grow(sql: Sql, size: int) -> None:
    """As many machines, every second one of them with a provider."""
    sql.execute("TRUNCATE machines CASCADE")
    sql.execute("TRUNCATE work_token, work_history, work_attention")
    sql.execute("INSERT INTO machines SELECT FROM generate_series(1, %s)", [size])
    sql.execute(
        "INSERT INTO machine_provided (machine_id, provider, provider_id)"
        " SELECT machine_id, 'Equinix', machine_id::text FROM"
        " (SELECT machine_id, row_number() OVER (ORDER BY machine_id) AS n FROM machines) AS m WHERE n % 2 = 0"
    )
    sql.execute("VACUUM ANALYZE")
    sql.execute("CHECKPOINT")


def cycles(session: bmdb.Session, seconds: float) -> float:
    """Seconds for each lease and its finish, in batches, with half of the fleet eligible all the time."""
    started, done = time.monotonic(), 0
    while (passed := time.monotonic() - started) < seconds:
        works = session.work_many(HALF, BATCH)
        failed = [verdict for verdict in session.finish_many(works) if verdict is not None]
        if failed:
            raise failed[0]
        done += len(works)
    return passed / done


def looks(session: bmdb.Session, sql: Sql) -> tuple[list[float], list[float]]:
    """Seconds that a look takes in vain, and one for the only eligible machine just after it became that; in order."""
    in_vain: list[float] = []
    found: list[float] = []
    key = b"key"
    for machine in sql.execute("SELECT machine_id FROM machines ORDER BY random() LIMIT %s", [SAMPLES]).fetchall():
        started = time.monotonic()
        try:
            session.work(SPARSE)
        except bmdb.NothingToDo:
            in_vain.append(time.monotonic() - started)
        else:
            raise RuntimeError("there was work where none should be")
        sql.execute("INSERT INTO machine_agent_started VALUES (%s, now(), %s)", [machine[0], key])
        started = time.monotonic()
        work = session.work(SPARSE)
        found.append(time.monotonic() - started)
        if work.machine != machine[0]:
            raise RuntimeError("another machine was leased")
        work.finish(bmdb.set_tag("agent_heartbeat", agent_heartbeat_at=datetime.now(UTC)))
    return sorted(in_vain), sorted(found)


def measured(server: Server, size: int, seconds: float) -> tuple[float, tuple[str, ...]]:
    """The median cost of a lease, and the fleet's line in the table."""
    with (
        psycopg.connect(server.conninfo, autocommit=True) as sql,
        bmdb.connect(server.conninfo, component="fleets") as connection,
        connection.start_session(interval=60) as session,
    ):
        grow(sql, size)
        cycles(session, 1.0)
        costs = sorted(cycles(session, seconds) for _ in range(ROUNDS))
        # What is left of the budget of looks is used up first: this is how it goes on.
        for _ in range(20):
            try:
                session.work(SPARSE)
            except bmdb.NothingToDo:
                continue
        in_vain, found = looks(session, sql)
    median = costs[len(costs) // 2]
    shown = (
        f"{size:,}",
        f"{duration(costs[0])} – {duration(costs[-1])}",
        duration(in_vain[len(in_vain) // 2]),
        duration(found[len(found) // 2]),
        duration(found[len(found) * 99 // 100]),
    )
    return median, shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes docs/scale.md unless told to be quick."""
    parser = argparse.ArgumentParser(description="What a lease costs in small and in large fleets.")
    parser.add_argument("--quick", action="store_true", help="1 s each, no fleet of a million, and nothing is written")
    given = parser.parse_args(arguments)
    with running() as server:
        lines = [
            measured(server, size, 1.0 if given.quick else 8.0) for size in (FLEETS[:2] if given.quick else FLEETS)
        ]
    ratio = lines[-1][0] / lines[0][0]
    head = ("machines", "a lease and its finish", "a look in vain", "a look for the only one, p50", "p99")
    text = (
        f"PostgreSQL {server.version} ({server.durability}), {os.cpu_count()} cores shared with the worker. First, with"
        f" half of the fleet eligible, `work_many` and `finish_many` of {BATCH}, {ROUNDS} rounds; the largest fleet"
        f" takes **{ratio:.2f}** times the smallest's. Then, with none eligible and triggers in place: a `work` that"
        f" finds nothing, and one just after a machine has got the tag that was missing, {SAMPLES} of each.\n\n"
    ) + table(head, [line for _, line in lines])
    print(text)
    print(f"lease-large-to-small {ratio:.2f}")
    if not given.quick:
        write(DOCUMENT, MARKS, text)


if __name__ == "__main__":
    main()
