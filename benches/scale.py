"""Measure what sessions, their renewals and each act cost, and write it into docs/scale.md.

What `make bench-scale` runs. Takes about eight minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.python.marked import write  # noqa: E402
from benches.python.report import duration, table  # noqa: E402
from benches.python.server import MACHINES, Server, running  # noqa: E402

import bmdb  # noqa: E402
from bmdb import _core  # noqa: E402

DOCUMENT = ROOT / "docs" / "scale.md"
MARKS = ("<!-- written by make bench-scale -->", "<!-- end of make bench-scale -->")
INTERVAL = 5
# What a heartbeat's pauses come to: half the interval, less up to a tenth by chance.
BEATS_A_SECOND = 1 / (INTERVAL / 2 * 0.95)
PROCESSES = 1000
BACKENDS = 8
BATCH = 200
SESSIONS = (1, 1_000, 10_000)
RENEW = dict(_core.queries())["session_renew"]
PROCESS = bmdb.Process("Scale", eligible=bmdb.eligible(having=("provided",)), watch=False)

Sql = psycopg.Connection[Any]


def cpu_seconds(pid: int, thread: str = "") -> float:
    """What a process, or its threads of this name, has used of a core so far."""
    used = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(thread):
            used += int((task / "schedstat").read_text().split()[0])
    return used / 1e9


def server_cpu_seconds(sql: Sql) -> float:
    """What all of the server's processes that are there now have used, but the one that is asked."""
    pids = [pid for (pid,) in sql.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
    return sum(cpu_seconds(pid) for pid in pids)


def written(sql: Sql) -> tuple[int, int]:
    """Bytes of WAL and transactions that wrote, so far."""
    row = sql.execute(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def updates(sql: Sql) -> tuple[int, int]:
    """How many sessions were renewed, and how many of them on their own page. Backends tell after a second."""
    time.sleep(1.5)
    row = sql.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'").fetchone()
    assert row is not None
    return row[0], row[1]


def lateness(connection: bmdb.Connection) -> list[tuple[float, int]]:
    """The connection's histogram of how late its beats were sent: upper bound, beats not later."""
    (value,) = [value for name, _, _, value in connection.metrics() if name == "bmdb_heartbeat_lateness_seconds"]
    return list(value[0])


def one_process(server: Server, sessions: int, seconds: float) -> tuple[str, ...]:
    """So many sessions on one connection, renewed for so long: a line of the table."""
    server.reset()
    with (
        bmdb.connect(server.conninfo, component="scale", pool_size=8) as connection,
        psycopg.connect(server.conninfo, autocommit=True) as sql,
    ):
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            living = list(pool.map(lambda _: connection.start_session(interval=INTERVAL), range(sessions)))
        starting = time.monotonic() - started
        time.sleep(INTERVAL)
        (beating,) = sql.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%session_deadline%' AND query NOT LIKE 'INSERT%'"
            " AND pid <> pg_backend_pid()"
        ).fetchone() or (0,)

        def used() -> tuple[float, float]:
            return cpu_seconds(os.getpid(), "bmdb-heartbeat"), cpu_seconds(beating)

        before, cpu, late, wal, began = updates(sql), used(), lateness(connection), written(sql)[0], time.monotonic()
        time.sleep(seconds)
        passed, now, later, bytes_now = time.monotonic() - began, used(), lateness(connection), written(sql)[0]
        after = updates(sql)
        beats = later[-1][1] - late[-1][1]
        p99 = next(bound for (bound, count), (_, old) in zip(later, late, strict=True) if count - old >= 0.99 * beats)
        if any(session.expired for session in living):
            raise RuntimeError("a session was lost meanwhile")
        return (
            f"{sessions:,}",
            duration(starting / sessions),
            f"{beats}",
            f"{100 * (now[0] - cpu[0]) / passed:.2f} %",
            f"{100 * (now[1] - cpu[1]) / passed:.2f} %",
            f"{p99 * 1000:g} ms",
            f"{(bytes_now - wal) / beats / 1024:,.0f} KiB",
            f"{(after[1] - before[1]) / (after[0] - before[0]):.1%}",
        )


def many_processes(server: Server, sessions: int, leases: int, seconds: float) -> tuple[str, ...]:
    """The beats of PROCESSES processes over BACKENDS connections: so many sessions each, with so many leases each."""
    server.reset()
    with psycopg.connect(server.conninfo, autocommit=True) as sql:
        ids = [
            row[0]
            for row in sql.execute(
                "INSERT INTO sessions SELECT gen_random_uuid(), 'scale', 'host, pid 12345, Python 3.13.1', now(), 3600,"
                " now() + interval '1 hour' FROM generate_series(1, %s) RETURNING session_id",
                [PROCESSES * sessions],
            )
        ]
        if leases:
            sql.execute(
                "INSERT INTO work (machine_id, process, session_id, token)"
                " SELECT m.machine_id, 'Scale', (%s::uuid[])[1 + m.n / %s], 1"
                " FROM (SELECT machine_id, row_number() OVER () - 1 AS n FROM machines) AS m WHERE m.n < %s",
                [ids, leases, leases * len(ids)],
            )
        sql.execute("VACUUM ANALYZE work, sessions")
        shares = [ids[start : start + sessions] for start in range(0, len(ids), sessions)]
        took: list[float] = []
        late: list[float] = []
        before, began = updates(sql), time.monotonic() + 1
        ready = threading.Barrier(BACKENDS + 1)

        def beat(number: int) -> None:
            mine = shares[number::BACKENDS]
            with psycopg.connect(server.conninfo, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
                connection.execute(RENEW, [mine[0]], prepare=True)
                ready.wait()
                sent = 0
                while (due := began + sent / len(mine) / BEATS_A_SECOND) < began + seconds:
                    time.sleep(max(0.0, due - time.monotonic()))
                    start = time.monotonic()
                    connection.execute(RENEW, [mine[sent % len(mine)]], prepare=True)
                    took.append(time.monotonic() - start)
                    late.append(start - due)
                    sent += 1

        threads = [threading.Thread(target=beat, args=(number,)) for number in range(BACKENDS)]
        for thread in threads:
            thread.start()
        ready.wait()
        time.sleep(max(0.0, began - time.monotonic()))
        cpu, (wal, writers) = server_cpu_seconds(sql), written(sql)
        time.sleep(max(0.0, began + seconds - 0.5 - time.monotonic()))
        passed = time.monotonic() - began
        used, (wal_now, writers_now) = server_cpu_seconds(sql) - cpu, written(sql)
        for thread in threads:
            thread.join()
        after = updates(sql)
    took.sort()
    late.sort()
    return (
        f"{sessions:,}",
        f"{PROCESSES * sessions * leases:,}",
        f"{PROCESSES * BEATS_A_SECOND:,.0f}",
        f"{(writers_now - writers) / passed:,.0f}",
        f"{100 * used / passed:.0f} %",
        duration(took[len(took) // 2]),
        duration(took[len(took) * 99 // 100]),
        f"{(wal_now - wal) / passed / 1024:,.0f} KiB",
        f"{(after[1] - before[1]) / (after[0] - before[0]):.1%}",
    )


class Acts:
    """What each act writes, per lease, once its pages have been written since the checkpoint."""

    def __init__(self, connection: bmdb.Connection, sql: Sql, machines: Sequence[UUID]) -> None:
        self.connection = connection
        self.sql = sql
        self.machines = machines
        self.rows: list[tuple[str, ...]] = []

    def measure(self, name: str, count: int, act: Callable[[], object]) -> None:
        """Do it, and note a line; `count` leases or calls."""
        wal, writers = written(self.sql)
        started = time.monotonic()
        act()
        passed = time.monotonic() - started
        wal_now, writers_now = written(self.sql)
        each = (writers_now - writers) / count
        shown = f"{each:.0f}" if each >= 0.5 else f"1 for {1 / each:.0f}" if each else "none"
        self.rows.append((name, shown, f"{(wal_now - wal) / count:,.0f}", duration(passed / count)))

    def all(self) -> None:
        """Each act twice over the same machines; the second time counts."""
        for _ in range(2):
            self.rows.clear()
            self.once()

    def once(self) -> None:
        """Each act once."""
        some, many = self.machines[:500], 5_000
        connection = self.connection
        sessions: list[bmdb.Session] = []
        self.measure(
            "`start_session`", 500, lambda: sessions.extend(connection.start_session(interval=600) for _ in some)
        )
        self.measure("closing a session", 499, lambda: [session.close() for session in sessions[1:]])
        session = sessions[0]
        self.measure(
            "`transact` that reads", 500, lambda: [session.transact(lambda q: q.fetch_value("SELECT 1")) for _ in some]
        )
        works: list[bmdb.Work] = []
        lease = "`work` with a callback"
        self.measure(lease, 500, lambda: works.extend(session.work("One", lambda q, m=m: [m]) for m in some))
        self.measure("`finish`", 500, lambda: [work.finish() for work in works])
        works = [session.work("One", lambda q, m=m: [m]) for m in some]
        self.measure("`fail`", 500, lambda: [work.fail("no", bmdb.Backoff(1)) for work in works])
        self.sql.execute("TRUNCATE work_backoff")
        works = [session.work("One", lambda q, m=m: [m]) for m in some]
        self.measure("`cancel`", 500, lambda: [work.cancel() for work in works])
        works = []
        self.measure(
            f"`work_many`, {BATCH} a batch",
            many,
            lambda: [works.extend(session.work_many(PROCESS, BATCH)) for _ in range(many // BATCH)],
        )
        self.measure(
            f"`finish_many`, {BATCH} a batch",
            many,
            lambda: [session.finish_many(works[start : start + BATCH]) for start in range(0, many, BATCH)],
        )
        session.close()


def sizes(connection: bmdb.Connection, sql: Sql) -> list[tuple[str, ...]]:
    """Lease every machine once, and see how large the rows have become, indexes included."""
    sql.execute("TRUNCATE work, work_token, work_history")
    with connection.start_session(interval=600) as session:
        left = MACHINES
        while left:
            left -= len(session.work_many(PROCESS, 500))
        rows = []
        for name in ("machines", "machine_provided", "work", "work_token", "work_history"):
            row = sql.execute("SELECT pg_total_relation_size(%s::regclass)", [name]).fetchone()
            assert row is not None
            rows.append((f"`{name}`", f"{row[0] / MACHINES:,.0f}"))
        sql.execute("TRUNCATE work")
    return rows


def costs(server: Server) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The acts, and the sizes."""
    server.reset()
    with (
        bmdb.connect(server.conninfo, component="scale") as connection,
        psycopg.connect(server.conninfo, autocommit=True) as sql,
    ):
        sql.execute(
            "INSERT INTO machine_provided (machine_id, provider, provider_id)"
            " SELECT machine_id, 'Equinix', machine_id::text FROM machines ON CONFLICT DO NOTHING"
        )
        sql.execute("VACUUM (ANALYZE) machine_provided")
        sql.execute("ALTER SYSTEM SET full_page_writes = off")
        sql.execute("SELECT pg_reload_conf()")
        sql.execute("CHECKPOINT")
        machines = [row[0] for row in sql.execute("SELECT machine_id FROM machines LIMIT 500")]
        acts = Acts(connection, sql, machines)
        acts.all()
        return acts.rows, sizes(connection, sql)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes docs/scale.md unless told to be quick."""
    parser = argparse.ArgumentParser(description="What sessions, beats and acts cost.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="5 s each, and nothing is written")
    given = parser.parse_args(arguments)
    seconds = 5.0 if given.quick else given.seconds
    # Vacuum would write beside what is measured.
    with running(autovacuum="off") as server:
        # Beats enough for a p99 where it matters.
        alone = [
            one_process(server, sessions, seconds * (8 if sessions == SESSIONS[-1] else 1)) for sessions in SESSIONS
        ]
        fleet = [many_processes(server, *each, seconds) for each in ((1, 0), (1, 100), (10, 0))]
        acts, rows = costs(server)
        where = f"PostgreSQL {server.version} ({server.durability}), {os.cpu_count()} cores shared with the workers."
    parts = [
        where,
        f"**One process with many sessions**, interval {INTERVAL} s, for {seconds:.0f} s, the most sessions for eight"
        " times as long; 8 threads start them:",
        table(
            (
                "sessions",
                "start, each",
                "beats",
                "heartbeat thread",
                "its backend",
                "late, p99 ≤",
                "WAL a beat",
                "HOT",
            ),
            alone,
        ),
        f"**{PROCESSES:,} processes**, simulated: their beat statements, at their rate, over {BACKENDS} connections:",
        table(
            ("sessions each", "leases held", "beats/s due", "commits/s", "server CPU", "p50", "p99", "WAL/s", "HOT"),
            fleet,
        ),
        "**Acts**, one caller, per lease or call: transactions that wrote, WAL without the full pages that the first"
        " write after a checkpoint costs, and time:",
        table(("act", "commits", "WAL, bytes", "time"), acts),
        f"**Room**, bytes for each of {MACHINES:,} machines leased once, indexes included:",
        table(("table", "bytes"), rows),
    ]
    text = "\n\n".join(parts)
    print(text)
    if not given.quick:
        write(DOCUMENT, MARKS, text)


if __name__ == "__main__":
    main()
