"""Measure how soon another worker takes over, and write it into docs/guarantees.md. What `make bench-takeover` runs.

Takes about five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.python.holding import INTERVAL, MAX_IDLE, PROCESS  # noqa: E402
from benches.python.marked import write  # noqa: E402
from benches.python.report import duration, table  # noqa: E402
from benches.python.server import Server, running  # noqa: E402
from tests.proxy import Proxy  # noqa: E402

PROGRAM = Path(__file__).with_name("python") / "holding.py"
DOCUMENT = ROOT / "docs" / "guarantees.md"
MARKS = ("<!-- written by make bench-takeover -->", "<!-- end -->")
HEAD = ("The holder", "samples", "p50", "p99", "longest", "expected p99", "verdict")
TAKERS = 2
WAIT_SECONDS = 60.0

HELD = f"""
    SELECT (regexp_match(s.session_runtime_info, 'pid (\\d+)'))[1]::int, w.machine_id
    FROM work AS w JOIN sessions AS s USING (session_id) JOIN takeover AS t USING (machine_id)
    WHERE w.process = '{PROCESS}' AND NOT t.armed
"""
TAKEN = "SELECT machine_id, taken_at FROM takeover WHERE machine_id = ANY(%s) AND taken_at IS NOT NULL"

Sql = psycopg.Connection[Any]


@dataclass(frozen=True)
class Kind:
    """One way to lose a holder; `limit` is the p99 expected, in seconds. `signal` is None for a cut network.

    `pause` lies between two losses, in seconds from … to.
    """

    name: str
    signal: signal.Signals | None
    limit: float
    pause: tuple[float, float] = (0.0, 0.3)


KINDS = {
    "kill": Kind("is killed (SIGKILL)", signal.SIGKILL, INTERVAL + 1.5),
    "stop": Kind("is stopped (SIGSTOP)", signal.SIGSTOP, INTERVAL + 1.5),
    "cut": Kind("loses its network (nothing passes, nothing is refused)", None, INTERVAL + 1.5),
    "term": Kind("is asked to end (SIGTERM, grace over)", signal.SIGTERM, 0.5, (0.3, 0.9)),
}


def start(style: str, conninfo: str) -> subprocess.Popen[bytes]:
    """A worker."""
    return subprocess.Popen([sys.executable, str(PROGRAM), style, conninfo], cwd=ROOT)


@contextlib.contextmanager
def workers(styles: list[str], conninfo: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers, killed at the end."""
    started = [start(style, conninfo) for style in styles]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
        for worker in started:
            worker.wait()


def until(condition: Callable[[], bool]) -> None:
    """Wait for it. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_SECONDS:g} s")
        time.sleep(0.1)


def one_round(kind: Kind, sql: Sql, server: Server, holders: int) -> list[float]:
    """Seconds from the loss of each holder to the call of the next holder's function.

    Raises RuntimeError when a holder had lost its session before it was lost on purpose: then something else is wrong.
    """
    sql.execute(
        "WITH made AS (INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, %s)"
        " RETURNING machine_id) INSERT INTO takeover (machine_id) SELECT machine_id FROM made",
        [holders],
    )
    styles = ["threads" if number % 2 else "tasks" for number in range(holders)]
    with contextlib.ExitStack() as stack:
        conninfo, proxy = server.conninfo, None
        if kind.signal is None:
            # One for each round: what was cut off stays connected to the server until the proxy goes.
            proxy = stack.enter_context(Proxy("127.0.0.1", server.port))
            conninfo = proxy.conninfo(conninfo)
        crew = stack.enter_context(workers(styles, conninfo))
        # Each its own: one that lost its session at the start holds two machines until the first is collected.
        until(lambda: {pid for pid, _ in sql.execute(HELD)} == {worker.pid for worker in crew})
        held: dict[int, UUID] = dict(sql.execute(HELD).fetchall())
        sql.execute("UPDATE takeover SET armed = true")
        # The beats have drifted apart, and the takers have found nothing, before anything is lost.
        time.sleep(INTERVAL * random.uniform(0.8, 1.3))
        lost: dict[UUID, float] = {}
        if proxy is not None:
            began = time.time()
            stack.enter_context(proxy.swallowing())
            lost = dict.fromkeys(held.values(), began)
        elif kind.signal is not None:
            for worker in random.sample(crew, len(crew)):
                lost[held[worker.pid]] = time.time()
                worker.send_signal(kind.signal)
                # So that those who take over one are not still busy with another.
                time.sleep(random.uniform(*kind.pause))
        machines = list(lost)
        until(lambda: len(sql.execute(TAKEN, [machines]).fetchall()) == holders)
        for worker in crew:
            # A stopped one must not go on for a moment; killed, its connections end before the proxy's do.
            worker.kill()
    took = [at - lost[machine] for machine, at in sql.execute(TAKEN, [machines])]
    if min(took) <= 0:
        raise RuntimeError(f"a machine was taken over {-min(took):.1f} s before its holder was lost")
    return took


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def row(kind: Kind, samples: list[float]) -> tuple[str, ...]:
    """A line of the table."""
    ordered = sorted(samples)
    p99 = quantile(ordered, 0.99)
    verdict = "met" if p99 <= kind.limit else "**missed**"
    figures = (duration(value) for value in (quantile(ordered, 0.5), p99, ordered[-1]))
    return (kind.name, str(len(ordered)), *figures, f"≤ {kind.limit:g} s", verdict)


def main() -> None:
    """Measure, print, and write it down."""
    parser = argparse.ArgumentParser(description="Measure takeovers and write them into docs/guarantees.md.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind (default: 5)")
    parser.add_argument("--holders", type=int, default=20, help="holders lost in each round (default: 20)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="which (default: all)")
    parser.add_argument("--dry", action="store_true", help="print only")
    chosen = parser.parse_args()
    samples: dict[str, list[float]] = {kind: [] for kind in chosen.kinds}
    with (
        # Each holder has some connections, and a few more while it looks for a way out.
        running(max_connections="400") as server,
        psycopg.connect(server.conninfo, autocommit=True) as sql,
    ):
        sql.execute(
            "CREATE TABLE takeover (machine_id uuid PRIMARY KEY, armed boolean NOT NULL DEFAULT false, taken_at float8)"
        )
        with workers(["taking"] * TAKERS, server.conninfo):
            for number in range(chosen.rounds):
                # Turn by turn, so that what else the machine does meets all kinds.
                for name in chosen.kinds:
                    took = one_round(KINDS[name], sql, server, chosen.holders)
                    samples[name] += took
                    print(f"round {number + 1}, {name}: {duration(min(took))} to {duration(max(took))}", flush=True)
        version = server.version
    text = table(HEAD, [row(KINDS[name], values) for name, values in samples.items()])
    text += (
        f"\n\nInterval {INTERVAL:g} s, {chosen.holders} holders lost in a round, {TAKERS} idle processes to take over,"
        f" which by themselves would look\nonce in {MAX_IDLE:g} s; PostgreSQL {version} and all of them on"
        f" {os.cpu_count()} CPUs."
    )
    print(text)
    if not chosen.dry:
        write(DOCUMENT, MARKS, text)


if __name__ == "__main__":
    main()
