"""docs/processes.md: its examples run, and every setting has its row."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.processes import Spawn

import bmdb

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "processes.md").read_text()


def test_the_examples_run(database: str, spawn: Spawn) -> None:
    printed = []
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        worker = spawn(example, env={"BMDB_CONNINFO": database})
        assert worker.wait() == 0, worker.errors
        printed.append(worker.lines[-1])
    exclusion, eligibility, hold, explanation = printed
    assert "under process 'Recovery' or one that excludes it" in exclusion
    assert eligibility == "2 [None, None]"
    assert hold == "[('ada', 'its disk is being replaced')]"
    assert explanation == "✗ it does not have tag provided, which install asks for"


def test_every_setting_is_described() -> None:
    described = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert described == [field.name for field in dataclasses.fields(bmdb.Process) if field.name != "name"]
