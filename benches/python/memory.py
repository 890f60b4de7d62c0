"""How much memory an idle worker takes beyond what Python and psycopg take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def resident_mib(side: str, conninfo: str) -> float:
    """MiB resident in a fresh process, see `idling.py`. Raises subprocess.CalledProcessError."""
    program = [sys.executable, str(Path(__file__).with_name("idling.py")), side, conninfo]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout) / 1024
