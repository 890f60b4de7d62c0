"""The loops of examples/shepherd, for real: three workers, of which one is killed and one asked to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests.processes import ROOT, Spawn, WorkerProcess, eventually

EXAMPLES = ROOT / "examples"
PROGRAM = "import sys; from bmdb.cli import main; sys.exit(main())"
WANTED, SILENT = 30, 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture
def surroundings(database: str) -> dict[str, str]:
    """Where the database and the provider are, and where the modules."""
    return {
        "BMDB_CONNINFO": database,
        "SHEPHERD_PROVIDER": f"http://127.0.0.1:{free_port()}",
        "SHEPHERD_INTERVAL": "2",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(ROOT)]),
    }


def counts(surroundings: dict[str, str]) -> dict[str, int]:
    """What the provider has done."""
    with urllib.request.urlopen(f"{surroundings['SHEPHERD_PROVIDER']}/counts", timeout=5) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def serves(surroundings: dict[str, str]) -> bool:
    try:
        return bool(counts(surroundings) is not None)
    except OSError:
        return False


def component_holds(sql: psycopg.Connection[Any], process: WorkerProcess) -> bool:
    """Whether the worker holds a machine; sessions say which process they are of."""
    row = sql.execute(
        "SELECT count(*) FROM work JOIN sessions USING (session_id) WHERE session_runtime_info LIKE %s",
        [f"%pid {process.pid},%"],
    ).fetchone()
    return row is not None and row[0] > 0


@pytest.mark.slow
def test_all_machines_get_their_agents_though_a_worker_dies_and_one_leaves(
    spawn: Spawn, surroundings: dict[str, str], sql: psycopg.Connection[Any]
) -> None:
    port = surroundings["SHEPHERD_PROVIDER"].rpartition(":")[2]
    spawn("from shepherd.provider import main; main()", "--port", port, "--seconds", "0.4", env=surroundings)
    workers = [spawn(PROGRAM, "run", "shepherd.fleet", "--grace", "5s", env=surroundings) for _ in range(3)]
    eventually(lambda: serves(surroundings))
    ordering = spawn("from shepherd.order import main; main()", str(WANTED), "--silent", str(SILENT), env=surroundings)
    assert ordering.wait() == 0
    began = time.time()

    killed, leaving, staying = workers
    eventually(lambda: component_holds(sql, killed), timeout=60.0, every=0.01)
    killed.kill()
    eventually(lambda: component_holds(sql, leaving), timeout=60.0, every=0.01)
    psutil.Process(leaving.pid).send_signal(signal.SIGTERM)
    assert leaving.wait() == 0
    assert not component_holds(sql, leaving)

    def all_started() -> bool:
        row = sql.execute(
            "SELECT count(*) FROM machine_agent_started WHERE agent_started_at > to_timestamp(%s)", [began - 5.0]
        ).fetchone()
        return row == (WANTED + SILENT,)

    eventually(all_started, timeout=60.0, every=0.1)
    psutil.Process(staying.pid).send_signal(signal.SIGTERM)
    assert staying.wait() == 0
    for worker in (leaving, staying):
        assert [line for line in worker.errors if "Traceback" in line] == []

    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    lost = sql.execute("SELECT count(*) FROM work_history WHERE event = 'Lost'").fetchone()
    assert lost is not None and lost[0] >= 1, "the killed worker held something"
    twice = sql.execute(
        "SELECT machine_id, process FROM work_history WHERE event = 'Finished' GROUP BY 1, 2 HAVING count(*) > 1"
    ).fetchall()
    assert twice == []
    done = counts(surroundings)
    assert done["devices"] == WANTED + SILENT
    assert done["reboots"] >= SILENT


def test_the_readme_names_the_files_that_are_there() -> None:
    text = (EXAMPLES / "shepherd" / "README.md").read_text()
    files = {path.name for path in Path(EXAMPLES / "shepherd").glob("*.py")} - {"__init__.py"}
    assert files == {"fleet.py", "order.py", "provider.py"}
    assert all(name in text for name in files)
