"""Measure bmdb and its peers in one run, and write their section of docs/benchmarks.md. What `make bench-peers` runs.

With --quick, what `make bench-quick` runs: few units, and the ratios on standard output, one a line: `name ratio`.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers import latency, takeover, throughput
from benches.peers.adapters import ours
from benches.peers.arena import Arena, Failed, missing
from benches.peers.contract import ENTRIES, Entry
from benches.peers.expected import EXPECTATIONS, comparisons, lines, starts
from benches.peers.page import MARKS, plot, section
from benches.peers.record import Record
from benches.python.marked import write
from benches.python.server import Server, running

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("throughput", "latency", "takeover")
RESULTS = ROOT / ".benchmarks" / "peers.json"
AT_ONCE = 4  # takeovers wait for time-outs most of the time

QUICK_SECONDS = 160.0
QUICK_ROUNDS = 3
QUICK_SAMPLES = 20
QUICK_STARTS_SECONDS = 9.0
# What is slow gets fewer units, so that each takes about as long.
QUICK_UNITS = {"bmdb one caller": 600, "psycopg": 400, "pgbench": 600, "psycopg 16 threads": 800}
QUICK_UNITS |= {"bmdb callback": 1000}
QUICK_OTHER_UNITS = 500
QUICK_DEFAULT_UNITS = 5000


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def attempt(record: Record, entry: Entry, what: str, measure: Callable[[], None]) -> None:
    """Measure something; a peer that fails is noted and left out, and keeps none of the others."""
    try:
        measure()
    except Failed as error:
        record.failed[entry.name] = f"{what}: {error}"
        say(f"{entry.name}: {what} failed: {error}")


def one_throughput(arena: Arena, record: Record, entry: Entry, units: int) -> None:
    """A round of one entry."""

    def measure() -> None:
        run = throughput.measure(arena, entry, units)
        record.runs.setdefault(entry.name, []).append(run)
        say(f"{entry.name}: {run.rate:,.0f} a second")

    attempt(record, entry, "throughput", measure)


def one_latency(arena: Arena, record: Record, entry: Entry, samples: int, seconds: float = 600.0) -> None:
    """Starts of one entry."""

    def measure() -> None:
        found = latency.measure(arena, entry, samples, seconds)
        record.starts[entry.name] = (found.p50, found.p99, len(found.started))
        say(f"{entry.name}: idle to start {found.p50 * 1e3:.1f} ms, p99 {found.p99 * 1e3:.1f} ms")

    attempt(record, entry, "idle to start", measure)


def one_takeover(arena: Arena, record: Record, entry: Entry) -> None:
    """Takeover and late ends of one entry."""

    def measure() -> None:
        record.takeover[entry.name] = takeover.measure(arena, entry)
        verdicts = []
        for finished in (True, False):
            found = takeover.zombie(arena, entry, finished)
            verdicts.append("nobody took it over" if found is None else found.verdict)
        record.late[entry.name] = (verdicts[0], verdicts[1])
        say(f"{entry.name}: takeover {record.takeover[entry.name]}, late ends {verdicts}")

    attempt(record, entry, "takeover", measure)


def full(arena: Arena, record: Record, entries: Sequence[Entry], chosen: argparse.Namespace) -> None:
    """All parts asked for."""
    if "throughput" in chosen.parts:
        record.units = chosen.units
        for entry in entries:
            record.runs.pop(entry.name, None)
        for number in range(chosen.rounds):
            say(f"round {number + 1}")
            for entry in entries:
                # One that failed is not tried again, so that all that are compared have as many rounds.
                if "throughput" in entry.roles and entry.name not in record.failed:
                    one_throughput(arena, record, entry, chosen.units)
    if "latency" in chosen.parts:
        for entry in entries:
            if "latency" in entry.roles:
                one_latency(arena, record, entry, chosen.samples)
    if "takeover" in chosen.parts:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            asked = [entry for entry in entries if "takeover" in entry.roles]
            list(threads.map(lambda entry: one_takeover(arena, record, entry), asked))


def quick(arena: Arena, entries: Sequence[Entry], started: float) -> list[str]:
    """The ratios that are expected, then what batches and plain calls are to all other peers, while time lasts."""
    record = Record()
    by_name = {entry.name: entry for entry in entries}
    compared = dict.fromkeys(name for each in EXPECTATIONS for name in (each.ours, each.theirs))
    needed = [by_name[name] for name in compared if name in by_name]
    others = [entry for entry in entries if entry not in needed and "throughput" in entry.roles]

    def left() -> float:
        return QUICK_SECONDS - (time.monotonic() - started)

    def turn() -> float:
        begun = time.monotonic()
        for entry in needed:
            if entry.name not in record.failed:
                one_throughput(arena, record, entry, QUICK_UNITS.get(entry.name, QUICK_DEFAULT_UNITS))
        return time.monotonic() - begun

    took = turn()
    for name in ("bmdb woken", "bmdb polling"):
        if name in by_name:
            one_latency(arena, record, by_name[name], QUICK_SAMPLES, QUICK_STARTS_SECONDS)
    for _ in range(QUICK_ROUNDS - 1):
        # One more only if it fits in with some time for the others.
        if left() > 1.2 * took + 40:
            took = turn()
    longest = 8.0
    for entry in others:
        if left() < longest:
            say(f"{entry.name}: left out, the time is up")
            continue
        begun = time.monotonic()
        one_throughput(arena, record, entry, QUICK_OTHER_UNITS)
        longest = max(longest, time.monotonic() - begun)
    told = lines(comparisons(record.rates()))
    told += lines(starts({name: values[1] for name, values in record.starts.items()}, ours.POLL_SECONDS))
    medians = {name: statistics.median(rates) for name, rates in record.rates().items()}
    for key, name in (("work_many", "bmdb work_many"), ("256_tasks", "bmdb 256 tasks")):
        measured = [entry.name for entry in others if entry.name in medians and name in medians]
        told += [f"{key}/{peer.replace(' ', '_')} {medians[name] / medians[peer]:.2f}" for peer in measured]
    return told


def described(server: Server) -> dict[str, str]:
    """The machine, for the page."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    tools = ""
    for tool, arguments in (("go", ["version"]), ("node", ["--version"])):
        if shutil.which(tool) is not None:
            told = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False).stdout.strip()
            tools += f", {told if tool == 'go' else 'node ' + told}"
    return {
        "processor": names[0] if names else platform.machine(),
        "cpus": str(os.cpu_count()),
        "postgresql": server.version,
        "durability": server.durability,
        "python": platform.python_version(),
        "tools": tools,
    }


def main() -> None:
    """Measure, print what was found, and write it down."""
    parser = argparse.ArgumentParser(description="Measure bmdb and its peers in one run.")
    parser.add_argument("--quick", action="store_true", help="few units, within three minutes; prints the ratios only")
    parser.add_argument("--units", type=int, default=20_000, help="units in each run (default: 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--samples", type=int, default=50, help="starts of an idle worker (default: 50)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (default: all)")
    parser.add_argument("--only", nargs="+", help="names of entries (default: all)", metavar="NAME")
    parser.add_argument("--keep", action="store_true", help="add to what the last run found instead of starting anew")
    parser.add_argument("--dry", action="store_true", help="measure and print, and do not write the page")
    chosen = parser.parse_args()
    started = time.monotonic()
    if unknown := set(chosen.only or ()) - {entry.name for entry in ENTRIES}:
        parser.error(f"no such entry: {', '.join(sorted(unknown))}")
    asked = [entry for entry in ENTRIES if chosen.only is None or entry.name in chosen.only]
    absent = [text for entry in asked if (text := missing(entry)) is not None]
    entries = [entry for entry in asked if missing(entry) is None]
    for text in absent:
        say(text)
    if chosen.quick:
        with running() as server, Arena.on(server) as arena:
            print("\n".join(quick(arena, entries, started)))
        say(f"{time.monotonic() - started:.0f} s")
        return
    record = Record.load(RESULTS) if chosen.keep and RESULTS.exists() else Record()
    record.missing = absent
    for entry in entries:
        record.failed.pop(entry.name, None)
    with running() as server, Arena.on(server) as arena:
        record.machine = described(server)
        try:
            full(arena, record, entries, chosen)
        finally:
            record.save(RESULTS)
    given = " ".join(sys.argv[1:])
    text = section(record, f'make bench-peers BENCH_ARGS="{given}"' if given else "make bench-peers")
    print(text)
    if not chosen.dry:
        write(ROOT / "docs" / "benchmarks.md", MARKS, text)
        plot(record, ROOT / "docs" / "peers.svg")
    say(f"{time.monotonic() - started:.0f} s; figures in {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
