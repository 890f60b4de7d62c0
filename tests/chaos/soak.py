"""The chaos test for as long as wanted, with an eye on what grows or slows down. What `make soak` runs.

Two of the four workers, one of each world, are never killed, so that what they gather shows. In a lull at the end of
each tenth no fault begins, and rates are taken from lulls alone (see trend.py).
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.chaos import chaos, plot, trend
from tests.chaos.gauge import Gauge
from tests.database import Server, open_server

IMMORTAL = 2
ENDED = ("Finished", "Failed", "Canceled")


def course(report: chaos.Report) -> trend.Course:
    """When leases ended by their holders, and how long acts took that came to something."""
    assert report.facts is not None and report.told is not None
    ends = [event.committed.timestamp() - report.began for event in report.facts.events if event.event in ENDED]
    acts = [
        (act.began - report.began, act.seconds)
        for act in report.told.acts
        if act.outcome == "ok" and act.seconds is not None
    ]
    return trend.Course(ends, acts)


def run(
    server: Server, dsn: str, ledgers: Path, seed: str, minutes: float, into: Path, *, machines: int = chaos.MACHINES
) -> list[trend.Finding]:
    """The whole run, whose page and pictures go `into` a folder; as for `chaos.run` otherwise."""
    schedule = trend.Schedule(minutes * 60)
    with closing(Gauge(dsn, IMMORTAL)) as gauge:
        report = chaos.run(
            server,
            dsn,
            ledgers,
            seed,
            schedule.seconds,
            machines=machines,
            immortal=IMMORTAL,
            watch=gauge,
            lull=schedule.resting,
        )
    broken = len(report.violations)
    findings = [
        trend.Finding("promises", "none is broken", f"{broken} were broken", broken == 0),
        *trend.judge(gauge.samples, course(report), schedule),
    ]
    head = f"`make soak MINUTES={minutes:g} SEED={seed}`, with two workers of four that are never killed."
    path = plot.page(into, head, str(report), findings, gauge.samples, course(report))
    print(report, *findings, f"pictures: {path}", sep="\n")
    return findings


def main() -> int:
    """Run, print, and answer 1 when a promise was broken or something grew."""
    parser = argparse.ArgumentParser(description="Chaos for as long as wanted.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="chances of an earlier run")
    parser.add_argument("--into", type=Path, help="where its page and pictures go (default: target/soak/SEED)")
    chosen = parser.parse_args()
    # The proxy writes to connections that a fault has broken, and asyncio warns of each.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    print(f"seed {chosen.seed}, {chosen.minutes:g} minutes", flush=True)
    into = chosen.into or Path("target/soak") / chosen.seed
    with (
        open_server() as server,
        server.template() as template,
        server.temporary_database(template) as dsn,
        tempfile.TemporaryDirectory(prefix="bmdb-soak-") as ledgers,
    ):
        findings = run(server, dsn, Path(ledgers), chosen.seed, chosen.minutes, into)
    return int(any(finding.kept is False for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
