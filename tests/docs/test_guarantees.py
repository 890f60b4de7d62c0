"""docs/guarantees.md names the test of each hazard, and no test that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "guarantees.md"


def test_every_hazard_with_a_test_has_its_row() -> None:
    named = {
        (int(row), Path(target).name)
        for row, cells in re.findall(r"^\| (\d+) \|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
        for target in re.findall(r"\]\(([^)]+)\)", cells)
        if "/faults/" in target
    }
    there = {(int(path.name[5:7]), path.name) for path in (ROOT / "tests" / "faults").glob("test_[0-9][0-9]_*.py")}
    assert named <= there
    assert {row for row, _ in named} == {row for row, _ in there}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", DOCUMENT.read_text())
    assert len(links) > 40
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []
