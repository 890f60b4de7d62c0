"""A soak of some seconds looks at all that it is there for. `make soak` takes longer, and judges more."""

from __future__ import annotations

import csv
import secrets
from pathlib import Path

import pytest

from tests.chaos import soak
from tests.database import Server

MINUTES = 0.2

# In so short a time not each of many would be finished.
MACHINES = 2


@pytest.mark.slow
def test_a_short_soak(server: Server, database: str, tmp_path: Path) -> None:
    ledgers, page = tmp_path / "ledgers", tmp_path / "page"
    ledgers.mkdir()
    findings = soak.run(server, database, ledgers, secrets.token_hex(4), MINUTES, page, machines=MACHINES)
    assert not [finding for finding in findings if finding.kept is False], "\n".join(map(str, findings))
    subjects = [finding.subject for finding in findings]
    assert subjects[0] == "promises" and subjects[-3:] == ["dead tuples", "throughput", "latency"]
    assert sum(subject.startswith("resident memory") for subject in subjects) == soak.IMMORTAL
    with (page / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Something was there to be seen: of the database, and of both workers that are never killed.
    assert len({row["name"] for row in rows}) == 1 + soak.IMMORTAL
    assert any(row["name"] == "database" and int(row["connections"]) > 0 for row in rows)
    assert all(float(row["resident"]) > 1 for row in rows if row["name"] != "database")
    assert "told: " in (page / "README.md").read_text()
