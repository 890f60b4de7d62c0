"""Measure bmdb beside its peers, and write docs/benchmarks.md and docs/benchmarks.svg. What `make bench` runs.

Everything that is compared takes turns within one run on one server, so the ratios mean something on any machine; the
figures themselves are this machine's. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.peers.page import MARKS  # noqa: E402
from benches.python import awaiting, calls, fetching, heartbeats, leases, memory, transactions  # noqa: E402
from benches.python.marked import part  # noqa: E402
from benches.python.report import Comparison, duration, number, plot, table  # noqa: E402
from benches.python.rounds import Spread, alternate, alternate_calls, ratio  # noqa: E402
from benches.python.server import MACHINES, Server, running  # noqa: E402

THREADS = (1, 8, 32)
HEAD = ("What", "bmdb", "Compared with", "Result (median)", "Rounds between", "Expected", "Verdict")


def backoff(rounds: int) -> list[Comparison]:
    """What a step of a backoff costs beyond calling a method at all."""
    measured = alternate(
        {
            "next": lambda: calls.seconds_per_call(calls.EXAMPLE.next),
            "empty": lambda: calls.seconds_per_call(calls.Empty().next),
        },
        rounds,
    )
    above = [(a - b) * 1e9 for a, b in zip(measured["next"], measured["empty"], strict=True)]
    figures = (f"{duration(statistics.median(measured[name]))} a call" for name in ("next", "empty"))
    return [Comparison("`Backoff.next` above an empty method", Spread.of(above), *figures, 150.0, unit="ns")]


def transact(server: Server, rounds: int, seconds: float) -> list[Comparison]:
    """Transactions beside the same statements in psycopg."""
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute("SELECT machine_id FROM machines LIMIT 1").fetchone()
    assert row is not None
    comparisons = []
    with (
        transactions.bmdb_side(server.conninfo, row[0]) as ours,
        transactions.psycopg_side(server.conninfo, row[0]) as theirs,
    ):
        for subject, our, their in zip(("transact, empty", "transact, one query"), ours, theirs, strict=True):
            acts = {"ours": our, "theirs": their}
            measured = alternate_calls(acts, rounds, seconds)
            ours_took, theirs_took = (duration(statistics.median(measured[name])) for name in acts)
            result = ratio(measured["ours"], measured["theirs"])
            comparisons.append(Comparison(subject, result, ours_took, f"psycopg: {theirs_took}", 1.0))
    return comparisons


def brought(server: Server, rounds: int, seconds: float) -> list[Comparison]:
    """What a transaction costs on a connection of the user's, beside bmdb's own."""
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute("SELECT machine_id FROM machines LIMIT 1").fetchone()
    assert row is not None
    with transactions.brought_sides(server.conninfo, row[0]) as acts:
        measured = alternate_calls(acts, rounds, seconds)
    took = {name: duration(statistics.median(times)) for name, times in measured.items()}
    return [
        Comparison(
            f"transact, one query, on a connection of {name}'s",
            ratio(measured[name], measured["bmdb"]),
            took[name],
            f"its own connection: {took['bmdb']}",
        )
        for name in ("psycopg", "SQLAlchemy")
    ]


def border(server: Server, rounds: int, seconds: float) -> list[Comparison]:
    """What crossing the border between Python and the core costs: rows, and awaited calls."""
    with fetching.sides(server.conninfo) as acts:
        fetched = alternate_calls(acts, rounds, seconds)
    took = {name: duration(statistics.median(times)) for name, times in fetched.items()}
    awaited = alternate(
        {
            "bmdb": lambda: awaiting.core_calls(server.conninfo, seconds),
            "threads": lambda: awaiting.thread_calls(seconds),
        },
        rounds,
    )
    calls_a_second = {name: f"{number(statistics.median(values))} a second" for name, values in awaited.items()}
    return [
        Comparison(
            f"fetch of {fetching.ROWS:,} rows, five columns",
            ratio(fetched["bmdb"], fetched["psycopg"]),
            took["bmdb"],
            f"psycopg: {took['psycopg']}",
        ),
        Comparison(
            f"awaited calls without I/O, {awaiting.TASKS} tasks",
            Spread.of(awaited["bmdb"]),
            calls_a_second["bmdb"],
            f"asyncio's executor: {calls_a_second['threads']}",
            20_000.0,
            "at least",
            "a second",
        ),
    ]


def lease_cycles(server: Server, rounds: int, seconds: int) -> tuple[list[Comparison], str]:
    """Lease cycles beside pgbench, and what isolation costs: comparisons, and a table of cycles and retries."""
    sides = {"bmdb": leases.bmdb_cycles, "pgbench": leases.pgbench_cycles}
    comparisons, rows, per_second = [], [], {}
    for threads in THREADS:
        outcomes: dict[str, list[leases.Outcome]] = {}

        def measure(name: str, isolation: str, threads: int = threads, outcomes: dict = outcomes) -> float:
            server.reset()
            outcome = sides[name](server, threads, seconds, isolation)
            outcomes.setdefault(f"{name} {isolation}", []).append(outcome)
            return outcome.per_second

        contenders = {
            f"{name} {isolation}": lambda name=name, isolation=isolation, measure=measure: measure(name, isolation)
            for isolation in leases.ISOLATIONS
            for name in sides
        }
        measured = alternate(contenders, rounds)
        per_second[threads] = measured
        of_threads = "1 thread" if threads == 1 else f"{threads} threads"
        for isolation in leases.ISOLATIONS:
            ours, theirs = (measured[f"{name} {isolation}"] for name in sides)
            figures = [f"{number(statistics.median(values))} a second" for values in (ours, theirs)]
            subject = f"lease cycle, {of_threads}, {isolation}"
            comparisons.append(
                Comparison(subject, ratio(ours, theirs), figures[0], f"pgbench: {figures[1]}", 0.6, "at least")
            )
            for name in sides:
                key = f"{name} {isolation}"
                cycles = number(statistics.median(measured[key]))
                again = number(statistics.median(outcome.retries_per_second for outcome in outcomes[key]))
                given_up = sum(outcome.given_up for outcome in outcomes[key])
                rows.append((f"{of_threads}, {isolation}, {name}", cycles, again, str(given_up)))
    for threads in THREADS[1:]:
        strict, loose = (per_second[threads][f"bmdb {isolation}"] for isolation in leases.ISOLATIONS)
        figures = [f"{number(statistics.median(values))} a second" for values in (loose, strict)]
        subject = f"lease cycle, {threads} threads, repeatable read instead of serializable"
        comparisons.append(Comparison(subject, ratio(loose, strict), figures[0], f"bmdb: {figures[1]}"))
    return comparisons, table(("Lease cycles", "cycles a second", "transactions run again a second", "given up"), rows)


def heartbeat(server: Server, rounds: int) -> tuple[list[Comparison], str]:
    """Lateness while the GIL is held: the comparison, and a table of its distribution."""
    ours, theirs = heartbeats.during_holds(server.conninfo, rounds)
    rows = []
    for name, late in (("bmdb", ours), ("a thread with psycopg", theirs)):
        sign = "≤ " if late.bounds_only else ""
        figures = [f"{sign}{duration(value)}" for value in (late.p50, late.p99, late.most)]
        rows.append((name, str(late.beats), *figures, duration(late.gap)))
    latest = max(ours.most, ours.gap)
    peer = f"psycopg in a thread: {duration(theirs.most)}"
    subject = "heartbeat, latest while the GIL is held"
    comparison = Comparison(subject, Spread.of([latest * 1e3]), f"≤ {duration(latest)}", peer, 50.0, unit="ms")
    head = ("Heartbeat under a held GIL", "beats", "p50", "p99", "latest", "longest without renewal beyond a period")
    return [comparison], table(head, rows)


def idle_worker(server: Server, rounds: int) -> list[Comparison]:
    """Memory of an idle worker."""
    sides = ("bmdb", "psycopg")
    measured = alternate({side: lambda side=side: memory.resident_mib(side, server.conninfo) for side in sides}, rounds)
    above = [ours - theirs for ours, theirs in zip(measured["bmdb"], measured["psycopg"], strict=True)]
    figures = [f"{number(statistics.median(measured[side]))} MiB" for side in sides]
    subject = "idle worker with a session, resident above psycopg"
    return [Comparison(subject, Spread.of(above), figures[0], f"psycopg imported: {figures[1]}", 20.0, unit="MiB")]


def singly() -> str:
    """The same operations one after the other under pytest-benchmark: a table of their distributions."""
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "benchmark.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "benches/python",
            "-q",
            "--benchmark-quiet",
            "-p",
            "no:cacheprovider",
        ]
        subprocess.run([*command, "--benchmark-max-time=1", f"--benchmark-json={told}"], cwd=ROOT, check=True)
        benchmarks = json.loads(told.read_text())["benchmarks"]
    rows = [
        (f"`{entry['name']}`", *(duration(entry["stats"][name]) for name in ("min", "median", "mean", "stddev")))
        for entry in benchmarks
    ]
    return table(("One at a time", "least", "median", "mean", "standard deviation"), rows)


def processor() -> str:
    """The name of the processor, where the system tells it."""
    with Path("/proc/cpuinfo").open() as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def page(server: Server, comparisons: list[Comparison], tables: list[str], rounds: int, command: str) -> str:
    """docs/benchmarks.md."""
    return f"""# Benchmarks

Written by `{command}`; do not edit. Ratios hold from machine to machine better than figures do: what is compared takes
turns within one run (A B A B, {rounds} rounds or more; transactions call by call), each round gives one ratio, and the
table shows their median, the lowest and the highest. The figures beside them are medians too.

{table(HEAD, [comparison.cells() for comparison in comparisons])}

![How much of its limit each result takes](benchmarks.svg)

{(chr(10) * 2).join(tables)}

## How it was measured

* {processor()}, {os.cpu_count()} CPUs shared by the server and its clients; Python {platform.python_version()},
  psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), PostgreSQL {server.version}.
* The server is an embedded one with its data on disk and PostgreSQL's own durability ({server.durability}).
  All sides reach it by TCP on the loopback interface. Checkpoints happen only between measurements.
* **Transactions**: BEGIN at SERIALIZABLE, the session's check with its row lock, perhaps one query by primary key, and
  `{transactions.COMMIT}`. psycopg sends the very texts of the core, prepared where the core prepares, on one connection
  and one cursor, with nothing around them: no retries and no trust to check.
* **Lease cycles**: `work()` with a retrieval callback, `finish()` with one tag, in threads of one process that share
  one session, on {MACHINES:,} machines. The retrieval looks from a random place on, so that it never runs dry. pgbench
  runs the texts of the core with `-M prepared`, in the same number of round trips, as many clients as bmdb has threads,
  one session for all; after a serialization failure it tries again at once, bmdb after a pause. The first second of
  each run counts on neither side.
* **Heartbeats**: {heartbeats.INTERVAL} s interval, one process holds its GIL for {heartbeats.HOLD_SECONDS:.0f} s in a
  call to C. bmdb tells its lateness by a histogram, hence the ≤. The last column comes from a third process that
  watches the deadlines in the database, and so includes the time that the renewal itself took.
* **Memory**: resident set (RSS) of fresh processes.
"""


def main() -> None:
    """Measure, print what was found, and write it down."""
    parser = argparse.ArgumentParser(description="Measure bmdb beside its peers and write docs/benchmarks.md.")
    parser.add_argument("--rounds", type=int, default=3, help="how often the contenders take turns (default: 3)")
    parser.add_argument("--seconds", type=int, default=2, help="how long a lease-cycle run is measured (default: 2)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where to write (default: docs)")
    chosen = parser.parse_args()
    started = time.monotonic()
    with running() as server:
        comparisons = [*backoff(chosen.rounds + 1), *transact(server, 2 * chosen.rounds, 1.5)]
        comparisons += brought(server, 2 * chosen.rounds, 1.5)
        comparisons += border(server, chosen.rounds, 1.0)
        cycles, cycles_table = lease_cycles(server, chosen.rounds, chosen.seconds)
        beats, beats_table = heartbeat(server, 2)
        comparisons += [*cycles, *beats, *idle_worker(server, 3)]
    tables = [cycles_table, beats_table, singly()]
    given = " ".join(sys.argv[1:])
    command = f'make bench BENCH_ARGS="{given}"' if given else "make bench"
    text = page(server, comparisons, tables, chosen.rounds, command)
    document = chosen.output / "benchmarks.md"
    # What another run found about peers stays.
    peers = part(document.read_text(), MARKS) if document.exists() else None
    document.write_text(f"{text}\n{peers or chr(10).join(MARKS)}\n")
    plot(comparisons, chosen.output / "benchmarks.svg")
    print(table(HEAD, [comparison.cells() for comparison in comparisons]), *tables, sep="\n\n")
    print(f"\nWritten to {chosen.output}/benchmarks.md and .svg after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
