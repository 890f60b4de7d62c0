"""One run of the chaos test, from the first worker to the verdict."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

import bmdb
from tests.chaos import facts, faults, ledger, verdict
from tests.chaos.crew import Crew
from tests.chaos.facts import Facts
from tests.chaos.ledger import Told
from tests.chaos.worker import INTERVAL, PROCESS
from tests.database import EmbeddedServer, Server
from tests.processes import eventually
from tests.proxy import Proxy

MACHINES = 16


@dataclass
class Report:
    """How it went. `violations` is empty when all promises held."""

    seed: str
    violations: list[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    began: float = 0.0
    """When it began, in seconds since the epoch."""
    facts: Facts | None = None
    told: Told | None = None

    def __str__(self) -> str:
        def counts(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))

        shown = self.violations[:20]
        more = [f"… and {len(self.violations) - 20} more"] if len(self.violations) > 20 else []
        return "\n".join(
            [
                f"seed {self.seed}",
                f"faults: {counts(self.struck)}",
                f"told: {counts(self.outcomes)}",
                f"errors: {counts(self.errors)}",
                f"history: {counts(self.events)}",
                *shown,
                *more,
            ]
        )


def run(
    server: Server,
    dsn: str,
    ledgers: Path,
    seed: str,
    seconds: float,
    *,
    machines: int = MACHINES,
    immortal: int = 0,
    watch: Callable[[Crew, float], None] | None = None,
    lull: Callable[[float], bool] | None = None,
) -> Report:
    """Let the workers work for so long while faults strike, then let them end, collect, and compare.

    `dsn` names a migrated database on `server`, `ledgers` an empty directory. `watch` is called about twice a second
    with the crew and the seconds since the beginning; `lull` as often with the latter,
    and while it says so no fault begins.
    """
    with psycopg.connect(dsn, autocommit=True, application_name="chaos") as sql:
        facts.prepare(sql)
        sql.execute("INSERT INTO machines SELECT FROM generate_series(1, %s)", [machines])
        with Proxy(*server.address) as proxy, Crew(proxy.conninfo(dsn), ledgers, seed, immortal=immortal) as crew:
            began, epoch = time.monotonic(), time.time()
            streams = faults.streams(seed, crew, proxy, dsn, local=isinstance(server, EmbeddedServer))
            for stream in streams:
                stream.start()
            while (passed := time.monotonic() - began) < seconds:
                if watch is not None:
                    watch(crew, passed)
                if lull is not None:
                    for stream in streams:
                        stream.rest(lull(passed))
                time.sleep(min(0.5, seconds - passed))
            for stream in streams:
                stream.stop()
            complaints = crew.dismiss()
        with bmdb.connect(dsn, component="collector") as collector:

            def empty() -> bool:
                collector.collect()
                return sql.execute(facts.LEFT).fetchone() == (0, 0)

            # What is still there then is for the verdict to tell.
            with contextlib.suppress(TimeoutError):
                eventually(empty, INTERVAL + 5, every=0.2)
        found, told = facts.gather(sql, PROCESS), ledger.read(ledgers)
    return Report(
        seed,
        complaints + verdict.judge(found, told),
        Counter(f"{act.kind} {act.outcome}" for act in told.acts),
        Counter(act.told.partition(":")[0] for act in told.acts if act.outcome != "ok"),
        Counter(event.event for event in found.events),
        sum((stream.struck for stream in streams), Counter()),
        epoch,
        found,
        told,
    )
