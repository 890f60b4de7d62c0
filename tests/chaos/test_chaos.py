"""Half a minute of chaos: what the workers were told is what the database holds, and nobody ever wrote too late.

BMDB_CHAOS_SEED repeats the chances of an earlier run (not its timing); `make soak` takes longer.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.chaos import chaos
from tests.database import Server

SECONDS = 30.0


@pytest.mark.slow
def test_chaos(server: Server, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = os.environ.get("BMDB_CHAOS_SEED") or secrets.token_hex(4)
    report = chaos.run(server, database, tmp_path, seed, SECONDS)
    with capsys.disabled():
        print(f" chaos with BMDB_CHAOS_SEED={seed}: {report.events.total()} events ", end="")
    assert not report.violations, str(report)
    # A run in which little happened shows nothing.
    assert report.events["Finished"] >= 2 * chaos.MACHINES, str(report)
    assert report.events["Lost"] > 0 and report.outcomes["finish failed"] > 0, str(report)
