"""The example of docs/poolers.md runs, through a pooler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.database import Server
from tests.pgbouncer import PgBouncer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "poolers.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_runs_through_a_transaction_pooler(server: Server, database: str) -> None:
    (block,) = BLOCKS
    with PgBouncer(server, "transaction") as pooler:
        environment = {**os.environ, "BMDB_CONNINFO": pooler.dsn(database)}
        command = [sys.executable, "-W", "error::ResourceWarning", "-c", block]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0
