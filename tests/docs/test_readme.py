"""The README's examples run: its workers, its loops, and every block in between."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SHOWN = ("worker", "worker_async", "worker_many", "worker_orm", "fleet")
EXAMPLES = {name: (ROOT / "examples" / f"{name}.py").read_text() for name in SHOWN}


def start(source: str, conninfo: str) -> subprocess.Popen[str]:
    """Runs `source` in an interpreter of its own."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", source]
    environment = {"BMDB_CONNINFO": conninfo, "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(source: str, conninfo: str) -> str:
    """Runs `source` to its end; what it printed."""
    return ended(start(source, conninfo))


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended without complaint."""
    with process:
        try:
            printed, complaint = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, complaint) == (0, "")
    return printed


@pytest.mark.parametrize("name", SHOWN)
def test_the_readme_shows_the_example_as_it_is(name: str) -> None:
    assert EXAMPLES[name] in BLOCKS


@pytest.mark.parametrize("name", ["worker", "worker_async", "worker_many"])
def test_a_worker_starts_an_agent_on_every_machine(
    name: str, database: str, sql: psycopg.Connection[Any], provided: list[UUID]
) -> None:
    run(EXAMPLES[name], database)
    started = sql.execute("SELECT machine_id FROM machine_agent_started").fetchall()
    assert sorted(machine for (machine,) in started) == sorted(provided)


def test_the_orm_worker_writes_rows_of_its_own_with_each_finish(
    database: str, sql: psycopg.Connection[Any], provided: list[UUID]
) -> None:
    run(EXAMPLES["worker_orm"], database)
    painted = sql.execute("SELECT machine_id FROM machine_painted WHERE colour IN ('red', 'blue')").fetchall()
    assert sorted(machine for (machine,) in painted) == sorted(provided)
    events = sql.execute("SELECT count(*) FROM work_history WHERE event = 'Finished' AND process = 'Paint'").fetchone()
    assert events == (len(provided),)


def test_the_loops_run_until_they_are_told_to_stop(
    database: str, sql: psycopg.Connection[Any], provided: list[UUID]
) -> None:
    silent = provided[0]
    sql.execute("INSERT INTO machine_agent_started VALUES (%s, now() - interval '1 day', 'key')", [silent])
    process = start(EXAMPLES["fleet"], database)
    try:
        count = "SELECT count(*) FROM machine_agent_started"
        eventually(lambda: sql.execute(count).fetchone() == (len(provided),))
        failed = "SELECT machine_id, last_interval_seconds FROM work_backoff WHERE process = 'ShepherdRecovery'"
        eventually(lambda: sql.execute(failed).fetchall() == [(silent, 120)])
    finally:
        process.send_signal(signal.SIGTERM)
    ended(process)
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)


@pytest.mark.parametrize("number", [n for n, block in enumerate(BLOCKS) if block not in EXAMPLES.values()])
def test_every_other_example_runs_and_prints_something(number: int, database: str) -> None:
    assert run(BLOCKS[number], database).strip()
