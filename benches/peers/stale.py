"""Count what stale workers still get done, of bmdb and of four queues, and write it into docs/guarantees.md.

What `make bench-zombies` runs. Takes about five minutes, most of which is waiting for time-outs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers import zombies
from benches.peers.arena import Arena, Failed, missing
from benches.peers.contract import ENTRIES, STALE, Entry
from benches.peers.versions import all_versions
from benches.peers.zombies import Zombies
from benches.python.marked import write
from benches.python.report import table
from benches.python.server import running

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "guarantees.md"
RESULTS = ROOT / ".benchmarks" / "zombies.json"
MARKS = ("<!-- written by make bench-zombies -->", "<!-- end of zombies -->")
HEAD = (
    "Queue",
    "version",
    "stopped while they held a unit",
    "taken over by another",
    "writes accepted",
    "ends accepted",
)
ATTEMPTS = 6
PROSE = """
    PostgreSQL {version}; all of them in one run of `make bench-zombies`, {at_once} units at a time. A process
    that holds them is stopped (SIGSTOP) for longer than its time-outs, set as short as each allows; another
    takes the units over and keeps at them; the first goes on (SIGCONT), and each of its functions writes a row
    and returns, without asking whether it still holds its unit. bmdb's write through `session.transact`. The
    others' write on a connection of their own: their interfaces offer functions no transaction that the claim
    guards. An end counts as accepted that ended the unit while the other still ran it; oban and awa-pg drop
    such ends, by the number of the attempt.{left_out}
"""


def rounds(arena: Arena, entry: Entry, count: int) -> Zombies | str:
    """As many rounds as it takes, or why there is no figure."""
    total = Zombies()
    failures = 0
    while total.units < count:
        try:
            found = zombies.measure(arena, entry, min(zombies.AT_ONCE, count - total.units))
        except Failed as error:
            failures += 1
            print(f"{entry.name}: {error}", file=sys.stderr, flush=True)
            if failures == ATTEMPTS:
                return str(error)
            continue
        total.add(found)
        print(f"{entry.name}: {found}", file=sys.stderr, flush=True)
    return total


def section(results: dict[str, Zombies | str], version: str) -> str:
    """The table and what it means."""
    versions = all_versions()
    rows = []
    left_out = ""
    for entry in ENTRIES:
        found = results.get(entry.name)
        if isinstance(found, str):
            left_out += f" {entry.name} could not be measured ({found})."
        elif found is not None:
            module = importlib.import_module(f"benches.peers.adapters.{entry.module}")
            counts = (found.units, found.taken, found.writes, found.ends)
            rows.append((entry.name, versions.get(module.DISTRIBUTION or "", ""), *(f"{each:,}" for each in counts)))
    prose = " ".join(PROSE.split()).format(version=version, at_once=zombies.AT_ONCE, left_out=left_out)
    return f"{table(HEAD, rows)}\n\n{textwrap.fill(prose, 120, break_long_words=False, break_on_hyphens=False)}"


def tell(dry: bool) -> None:
    """Print what the last run found, and write it into the page."""
    kept = json.loads(RESULTS.read_text())
    found = {name: each if isinstance(each, str) else Zombies(**each) for name, each in kept["found"].items()}
    text = section(found, kept["postgresql"])
    print(text)
    if not dry:
        write(DOCUMENT, MARKS, text)


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(description="Count what stale workers still get done.")
    parser.add_argument("--count", type=int, default=1000, help="stale holders of each (default: 1,000)")
    parser.add_argument("--dry", action="store_true", help="measure and print, and do not write the page")
    parser.add_argument("--again", action="store_true", help="only write what the last run found")
    chosen = parser.parse_args()
    if chosen.again:
        tell(chosen.dry)
        return
    asked = [entry for entry in ENTRIES if entry.roles >= STALE and missing(entry) is None]
    started = time.monotonic()
    with running(max_connections="400") as server, Arena.on(server) as arena, ThreadPoolExecutor(len(asked)) as threads:
        found = dict(
            zip(
                (entry.name for entry in asked),
                threads.map(lambda entry: rounds(arena, entry, chosen.count), asked),
                strict=True,
            )
        )
    RESULTS.parent.mkdir(exist_ok=True)
    kept = {name: each if isinstance(each, str) else asdict(each) for name, each in found.items()}
    RESULTS.write_text(json.dumps({"postgresql": server.version, "found": kept}))
    tell(chosen.dry)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
