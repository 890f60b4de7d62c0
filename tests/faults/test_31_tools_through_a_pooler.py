"""Row 31: PgBouncer stands in between bmdb's own tools and the server: loops, the command line, the pages.

Promised: they find out, and work as ever; loops hear no hints there, and look by themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.database import Server
from tests.pgbouncer import PgBouncer
from tests.processes import eventually

PROCESS = "Pooled"


@pytest.fixture
def narrow(server: Server) -> Iterator[PgBouncer]:
    """One in transaction mode, with few backends."""
    with PgBouncer(server, "transaction", size=2) as running:
        yield running


def told(conninfo: str, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "bmdb", *arguments, "--json"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "BMDB_CONNINFO": conninfo},
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_loops(
    narrow: PgBouncer, database: str, machines: Callable[[int], list[UUID]], sql: psycopg.Connection[Any]
) -> None:
    @bmdb.loop(PROCESS, retrieve=bmdb.eligible(lacking=("hardware_report",)), parallelism=4, rate=0.0, max_idle=0.3)
    def report(work: Any) -> Any:
        return lambda q: q.machine_set_hardware_report(work.machine, b"x")

    runner = bmdb.Runner([report], narrow.dsn(database)).start()
    try:
        machines(20)  # nobody hears of them
        counted = "SELECT count(*) FROM machine_hardware_report"
        eventually(lambda: sql.execute(counted).fetchone() == (20,))
        # A backend that listened would be handed to others.
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'listen%' AND datname = current_database()"
        assert sql.execute(listening).fetchone() == (0,)
    finally:
        runner.stop(now=True)
        assert runner.wait(20.0)
    finished = sql.execute("SELECT count(*) FROM work_history WHERE event = 'Finished'").fetchone()
    assert finished == (20,)


def test_the_doctor_names_it(narrow: PgBouncer, database: str) -> None:
    for _ in range(3):
        findings = {finding["check"]: finding for finding in told(narrow.dsn(database), "doctor")["findings"]}
        assert "pooler" in findings["pooler"]["text"]
        assert "pooler=True" in findings["pooler"]["advice"]


def test_the_command_line(narrow: PgBouncer, database: str, machines: Callable[[int], list[UUID]]) -> None:
    (machine,) = machines(1)
    assert told(narrow.dsn(database), "hold", str(machine), "--reason", "pooled")
    assert str(machine) in json.dumps(told(narrow.dsn(database), "holds"))


def test_the_overview(narrow: PgBouncer, database: str, machines: Callable[[int], list[UUID]]) -> None:
    machines(3)

    async def asked() -> Any:
        reading = await bmdb.AsyncConnection._reading(narrow.dsn(database), component="pages", pool_size=2)
        async with reading as connection:
            return await asyncio.gather(*[connection.statistics() for _ in range(4)])

    assert {statistics.machines for statistics in asyncio.run(asked())} == {3}
