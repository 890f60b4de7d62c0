"""The chaos test for as long as wanted, with an eye on what grows. What `make soak` runs.

Two of the four workers, one of each world, are never killed, so that what they gather shows.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos import chaos
from tests.chaos.crew import Crew
from tests.database import open_server

IMMORTAL = 2
SAMPLE_SECONDS = 5.0


@dataclass(frozen=True)
class Sample:
    """A worker at a moment: seconds since the beginning, resident MiB, open file descriptors, TCP connections."""

    name: str
    at: float
    resident: float
    descriptors: int
    connections: int


class Gauge:
    """Looks at the workers that are never killed, every few seconds, and prints a line each minute."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._next = SAMPLE_SECONDS
        self._line = 60.0

    def __call__(self, crew: Crew, passed: float) -> None:
        """Take a sample if it is time for one."""
        if passed < self._next:
            return
        self._next += SAMPLE_SECONDS
        for place in crew.places[:IMMORTAL]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(place.process.pid)
                self.samples.append(
                    Sample(
                        f"{place.name} ({place.style})",
                        passed,
                        process.memory_info().rss / 2**20,
                        process.num_fds(),
                        len(process.net_connections("tcp")),
                    )
                )
        if passed >= self._line:
            self._line += 60.0
            print(f"{passed / 60:.0f} min: " + "; ".join(map(_shown, self.samples[-IMMORTAL:])), flush=True)

    def summary(self) -> str:
        """For each worker the means of the first and the last quarter after the first."""
        lines = [f"{'worker':20}{'resident MiB':>24}{'descriptors':>24}{'connections':>24}"]
        for name in dict.fromkeys(sample.name for sample in self.samples):
            own = [sample for sample in self.samples if sample.name == name]
            quarter = max(1, len(own) // 4)
            early, late = own[quarter : 2 * quarter] or own, own[-quarter:]
            line = f"{name:20}"
            for what in ("resident", "descriptors", "connections"):
                before, after = (sum(getattr(s, what) for s in part) / len(part) for part in (early, late))
                line += f"{f'{before:.1f} → {after:.1f}':>24}"
            lines.append(line)
        return "\n".join(lines)


def _shown(sample: Sample) -> str:
    return (
        f"{sample.name} {sample.resident:.0f} MiB, {sample.descriptors} descriptors, {sample.connections} connections"
    )


def main() -> int:
    """Run, print, and answer 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Chaos for as long as wanted.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="chances of an earlier run")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}, {chosen.minutes:g} minutes", flush=True)
    gauge = Gauge()
    with (
        open_server() as server,
        server.template() as template,
        server.temporary_database(template) as dsn,
        tempfile.TemporaryDirectory(prefix="bmdb-soak-") as ledgers,
    ):
        report = chaos.run(server, dsn, Path(ledgers), chosen.seed, chosen.minutes * 60, immortal=IMMORTAL, watch=gauge)
    print(report, gauge.summary(), sep="\n\n")
    print("every promise held" if not report.violations else f"{len(report.violations)} promises were broken")
    return int(bool(report.violations))


if __name__ == "__main__":
    sys.exit(main())
