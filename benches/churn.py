"""Lease and finish a million times with and without a snapshot held open; write into docs/scale.md what that does to
the tables. What `make bench-churn` runs; about eight minutes, or less with --cycles and --seconds.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.python.marked import write  # noqa: E402
from benches.python.report import table  # noqa: E402
from benches.python.server import MACHINES, Server, running  # noqa: E402

import bmdb  # noqa: E402

DOCUMENT = ROOT / "docs" / "scale.md"
MARKS = ("<!-- written by make bench-churn -->", "<!-- end of make bench-churn -->")
BATCH = 200
SAMPLE_SECONDS = 5.0
# How long to wait for vacuum to come by itself when all is done: it looks once a minute.
VACUUM_SECONDS = 150.0
TABLES = ("sessions", "work", "work_token", "work_history")
PROCESS = bmdb.Process("Churn", eligible=bmdb.eligible(having=("provided",)), watch=False)
SAMPLE = """
    SELECT relname, n_dead_tup, pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd
    FROM pg_stat_user_tables WHERE relname = ANY(%s)
"""


@dataclass
class Course:
    """What happened in one run: cycles and seconds, and of each table the most dead rows and the largest size seen."""

    name: str
    cycles: int = 0
    seconds: float = 0.0
    dead: dict[str, int] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Cycles a second."""
        return self.cycles / self.seconds

    def look(self, sql: psycopg.Connection[Any]) -> None:
        """Take note of the tables."""
        for name, dead, size, _, _ in sql.execute(SAMPLE, [list(TABLES)]):
            self.dead[name] = max(self.dead.get(name, 0), dead)
            self.size[name] = max(self.size.get(name, 0), size)

    def cells(self) -> tuple[str, ...]:
        """Its line in the table."""
        dead = (f"{self.dead.get(name, 0):,}" for name in TABLES)
        size = (f"{self.size.get(name, 0) / 2**20:,.0f}" for name in TABLES)
        shown = (f"{one} / {other}" for one, other in zip(dead, size, strict=True))
        return self.name, f"{self.cycles:,}", f"{self.seconds:,.0f}", f"{self.rate:,.0f}", *shown


def churn(server: Server, course: Course, cycles: int, seconds: float, threads: int) -> Course:
    """Cycles of BATCH leases until there were so many, and so much time has passed. Raises when one of them fails."""
    started = time.monotonic()
    counts = [0] * threads
    errors: list[BaseException] = []

    def work(number: int, session: bmdb.Session) -> None:
        try:
            while not errors and (sum(counts) < cycles or time.monotonic() - started < seconds):
                works = session.work_many(PROCESS, BATCH)
                failed = [verdict for verdict in session.finish_many(works) if verdict is not None]
                if failed:
                    raise RuntimeError(f"{len(failed)} of {len(works)} finishes failed, the first one: {failed[0]}")
                counts[number] += len(works)
        except BaseException as error:
            errors.append(error)

    with (
        bmdb.connect(server.conninfo, component="churn", pool_size=threads + 2) as connection,
        connection.start_session(interval=5) as session,
        psycopg.connect(server.conninfo, autocommit=True) as sql,
    ):
        workers = [threading.Thread(target=work, args=(number, session)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(SAMPLE_SECONDS)
                course.look(sql)
        course.cycles, course.seconds = sum(counts), time.monotonic() - started
    if errors:
        raise errors[0]
    return course


def under_snapshot(server: Server, course: Course, cycles: int, seconds: float, threads: int) -> Course:
    """The same, all of it under one snapshot that was taken before."""
    with psycopg.connect(server.conninfo) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM sessions")
        return churn(server, course, cycles, seconds, threads)


def until_vacuumed(server: Server) -> tuple[dict[str, int], float]:
    """The dead rows that are left once vacuum has come by itself, and after how many seconds."""
    started = time.monotonic()
    with psycopg.connect(server.conninfo, autocommit=True) as sql:
        while True:
            left = {row[0]: row[1] for row in sql.execute(SAMPLE, [list(TABLES)])}
            passed = time.monotonic() - started
            if all(left[name] < 25_000 for name in TABLES) or passed > VACUUM_SECONDS:
                return left, passed
            time.sleep(1)


def prepare(server: Server) -> None:
    """All machines eligible, and nothing left of what was before."""
    server.reset()
    with psycopg.connect(server.conninfo, autocommit=True) as sql:
        sql.execute(
            "INSERT INTO machine_provided (machine_id, provider, provider_id)"
            " SELECT machine_id, 'Equinix', machine_id::text FROM machines ON CONFLICT DO NOTHING"
        )
        sql.execute("VACUUM (ANALYZE) machine_provided")
        sql.execute("VACUUM (ANALYZE) work, work_token, work_history, sessions")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes docs/scale.md if everything was measured."""
    parser = argparse.ArgumentParser(description="What churn does to the tables.")
    parser.add_argument("--cycles", type=int, default=1_000_000, help="in each run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the snapshot at least (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="that lease and finish (default: %(default)s)")
    given = parser.parse_args(arguments)
    # Vacuum and checkpoints come as users have them: they are part of what millions of cycles cost.
    with running(checkpoint_timeout="5min") as server:
        courses = []
        for name, run in (("nothing held", churn), ("a snapshot held open", under_snapshot), ("nothing held", churn)):
            prepare(server)
            courses.append(run(server, Course(name), given.cycles, given.seconds, given.threads))
            print(" | ".join(courses[-1].cells()), flush=True)
            if run is under_snapshot:
                left, passed = until_vacuumed(server)
                print(f"dead rows left {passed:.0f} s later: {left}", flush=True)
        version, durability = server.version, server.durability
    before, held, after = courses
    low, high = sorted(held.rate / clean.rate for clean in (before, after))
    print(f"churn-under-snapshot {low:.2f} to {high:.2f}")
    if (given.cycles, given.seconds) == (1_000_000, 180.0):
        head = ("run", "cycles", "s", "cycles/s", *(f"`{name}`" for name in TABLES))
        shown = ", ".join(f"`{name}` {count:,}" for name, count in left.items())
        text = (
            f"PostgreSQL {version} ({durability}) with its own pace of vacuum, {MACHINES:,} machines, {given.threads}"
            f" threads of one process, {BATCH} leases a batch. Of each table: the most dead rows seen / its largest"
            f" size in MiB, with indexes. Throughput under the snapshot: **{low:.2f} to {high:.2f}** of that without."
            f" Dead rows left {passed:.0f} s after its end, by autovacuum alone: {shown}."
        )
        write(DOCUMENT, MARKS, text + "\n\n" + table(head, [course.cells() for course in courses]))


if __name__ == "__main__":
    main()
