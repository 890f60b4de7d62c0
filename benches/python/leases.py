"""Lease cycles: claim a machine by a retrieval, finish it with one tag. Through bmdb, and as bare SQL by pgbench."""

from __future__ import annotations

import os
import random
import re
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import bmdb
from bmdb import Queries, Session

from .server import Server
from .transactions import COMMIT, FENCE, STATEMENTS

PROCESS = "ShepherdAgentStart"
COMPONENT = "benchmark"
# Both sides run for the warm-up too: connecting, preparing and filling caches are not what is compared.
WARM_UP_SECONDS = 1
ISOLATIONS = ("serializable", "repeatable read")

# Up to four machines without the tag that nobody works on, from a random place in the order of their ids: workers that
# all start at the front meet each other there, and would measure their quarrel. Each table is read from that place on.
HIGHEST_PLACE = 0xF0000000
_PLACE = "(lpad(to_hex($1::bigint), 8, '0') || repeat('0', 24))::uuid"
RETRIEVAL = f"""
SELECT array_agg(found.machine_id) AS machines
FROM (
    SELECT m.machine_id
    FROM machines AS m
    WHERE m.machine_id > {_PLACE}
        AND NOT EXISTS (
            SELECT 1 FROM machine_agent_started AS t WHERE t.machine_id = m.machine_id AND t.machine_id > {_PLACE}
        )
        AND NOT EXISTS (
            SELECT 1 FROM work AS w WHERE w.machine_id = m.machine_id AND w.machine_id > {_PLACE} AND w.process = $2
        )
    ORDER BY m.machine_id
    LIMIT 4
) AS found
"""


@dataclass(frozen=True)
class Outcome:
    """What one run came to: how many cycles and repeated transactions a second, how many cycles failed for good."""

    per_second: float
    retries_per_second: float
    given_up: int


def bmdb_cycles(server: Server, threads: int, seconds: float, isolation: str) -> Outcome:
    """Cycles per second of one session shared by `threads` threads of this process."""
    counts, given_up = [0] * threads, [0] * threads
    stop = threading.Event()
    surprises: list[BaseException] = []
    with (
        bmdb.connect(server.conninfo, component=COMPONENT, pool_size=threads) as connection,
        connection.start_session(interval=60) as session,
    ):

        def run(index: int) -> None:
            try:
                while not stop.is_set():
                    try:
                        cycle(session, isolation)
                        counts[index] += 1
                    except bmdb.Error:
                        given_up[index] += 1
            except BaseException as error:
                surprises.append(error)
                stop.set()

        workers = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        stop.wait(WARM_UP_SECONDS)
        before, retries, started = sum(counts), _retries(connection), time.perf_counter()
        stop.wait(seconds)
        done, retried = sum(counts) - before, _retries(connection) - retries
        elapsed = time.perf_counter() - started
        stop.set()
        for worker in workers:
            worker.join()
    if surprises:
        raise surprises[0]
    return Outcome(done / elapsed, retried / elapsed, sum(given_up))


def cycle(session: Session, isolation: str) -> None:
    """Lease a machine and finish it, both transactions at the given isolation."""
    work = session.work(PROCESS, _retrieve, isolation=isolation)

    def tag(q: Queries) -> None:
        q.machine_set_agent_started(work.machine, datetime.now(UTC), b"key")

    work.finish(tag, isolation=isolation)


def _retrieve(q: Queries) -> object:
    return q.fetch_value(RETRIEVAL, random.randint(0, HIGHEST_PLACE), PROCESS)


def _retries(connection: bmdb.Connection) -> float:
    return sum(value for name, _, _, value in connection.metrics() if name == "bmdb_transaction_retried")


def pgbench_cycles(server: Server, clients: int, seconds: int, isolation: str) -> Outcome:
    """Cycles per second of `clients` clients that send the statements that the core sends, in as many round trips."""
    with (
        bmdb.connect(server.conninfo, component=COMPONENT) as owner,
        owner.start_session(interval=60) as session,
        tempfile.NamedTemporaryFile("w", suffix=".sql", prefix="bmdb-bench-") as script,
    ):
        script.write(pgbench_script(isolation))
        script.flush()
        constants = {
            "session_id": str(session.uuid),
            "process": PROCESS,
            "component": COMPONENT,
            "started": datetime.now(UTC).isoformat(),
            "key": "key",
        }
        done = server.pgbench(
            Path(script.name), *(f"--define={name}={value}" for name, value in constants.items()),
            f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}", "--max-tries=0",
            "--progress=1", f"--time={WARM_UP_SECONDS + seconds}",
        )  # fmt: skip
    told = re.findall(r"^progress: .* s, ([\d.]+) tps, .*?(?:, \d+ retried, (\d+) retries)?$", done.stderr, re.M)
    measured = told[WARM_UP_SECONDS : WARM_UP_SECONDS + seconds]
    if len(measured) < seconds:
        raise RuntimeError(f"pgbench told of {len(told)} seconds:\n{done.stderr}{done.stdout}")
    return Outcome(
        per_second=sum(float(cycles) for cycles, _ in measured) / seconds,
        retries_per_second=sum(int(retries or 0) for _, retries in measured) / seconds,
        given_up=0,
    )


def pgbench_script(isolation: str) -> str:
    """One cycle in pgbench's language, trip by trip as the core sends it: BEGIN goes with the first statement."""
    begin = f"BEGIN ISOLATION LEVEL {isolation.upper()};"
    commit = ["\\startpipeline", *(f"{text.strip()};" for text in COMMIT.split(";")), "\\endpipeline"]
    ended = [f"ARRAY[:{name}]" for name in ("machine_id", "process", "session_id", "token", "component")]
    finish = _statement(STATEMENTS["work_finish"], *ended, "true")
    tag = _statement(STATEMENTS["machine_set_agent_started"], ":machine_id", ":started", ":key")
    lines = [
        f"\\set place random(0, {HIGHEST_PLACE})",
        *["\\startpipeline", begin, _statement(FENCE, ":session_id") + ";", "\\endpipeline"],
        _statement(RETRIEVAL, ":place", ":process") + " \\gset",
        _statement(STATEMENTS["work_claim"], ":machines", ":process", ":session_id", ":component") + " \\gset",
        *commit,
        *["\\startpipeline", begin, finish + ";", "\\endpipeline"],
        tag + ";",
        *commit,
    ]
    return "\n".join(lines) + "\n"


def _statement(sql: str, *values: str) -> str:
    """The statement with pgbench's variables in place of its parameters: with -M prepared they travel as such."""
    bare = re.sub(r"--.*", "", sql).strip().removesuffix(";")
    return re.sub(r"\$(\d+)", lambda found: values[int(found[1]) - 1], bare)
