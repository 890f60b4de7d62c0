"""The README's examples run, and its worker is the one in examples/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
WORKER = (ROOT / "examples" / "worker.py").read_text()


def run(source: str, conninfo: str) -> str:
    """Runs `source` in an interpreter of its own; what it printed."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", source]
    done = subprocess.run(
        command, env={"BMDB_CONNINFO": conninfo, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_readme_shows_the_worker_of_the_examples() -> None:
    assert WORKER in BLOCKS


def test_the_worker_starts_an_agent_on_every_machine(
    database: str, sql: psycopg.Connection[Any], provided: list[UUID]
) -> None:
    run(WORKER, database)
    started = sql.execute("SELECT machine_id FROM machine_agent_started").fetchall()
    assert sorted(machine for (machine,) in started) == sorted(provided)


@pytest.mark.parametrize("number", [n for n, block in enumerate(BLOCKS) if block != WORKER])
def test_every_other_example_runs_and_prints_something(number: int, database: str) -> None:
    assert run(BLOCKS[number], database).strip()
