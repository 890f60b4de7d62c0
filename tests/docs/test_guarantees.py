"""docs/guarantees.md is what tools/guarantees.py makes of the tests of faults, and leads nowhere that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import guarantees

DOCUMENT = guarantees.DOCUMENT
WELL_FORMED = '"""Row 7: a beat\nfails.\n\nPromised: nothing | lost.\n\nMore.\n"""\n'


def placed(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_page_is_in_step() -> None:
    assert guarantees.page() == DOCUMENT.read_text(), "run tools/guarantees.py"


def test_every_row_has_a_test() -> None:
    covered = {row for hazard in guarantees.hazards() for row in hazard.rows}
    assert covered == set(guarantees.ROWS)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", DOCUMENT.read_text())
    assert len(links) > 40
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []


def test_a_docstring_is_read(tmp_path: Path) -> None:
    hazard = guarantees.hazard(placed(tmp_path, "test_07_one_beat.py", WELL_FORMED))
    assert (hazard.rows, hazard.happens, hazard.promised) == ((7,), "a beat fails.", "nothing \\| lost.")
    several = WELL_FORMED.replace("Row 7", "Rows 7, 12")
    assert guarantees.hazard(placed(tmp_path, "test_07_two.py", several)).rows == (7, 12)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test_08_one_beat.py", WELL_FORMED),
        ("test_07_one_beat.py", WELL_FORMED.replace("Row 7", "Seven")),
        ("test_07_one_beat.py", WELL_FORMED.replace("Promised", "Hoped")),
        ("test_07_one_beat.py", '"""Row 7: short."""\n'),
        ("test_07_one_beat.py", "x = 1\n"),
        ("test_seven.py", WELL_FORMED),
    ],
)
def test_another_one_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        guarantees.hazard(placed(tmp_path, name, text))


def test_figures_are_added_up_or_the_largest() -> None:
    noted = [
        ["noticed within", 0.61, "s", None],
        ["wrong answers", 0, "", 40],
        ["noticed within", 0.745, "s", None],
        ["wrong answers", 1, "", 20],
        ["wasted", 0.29, "", None],
    ]
    assert guarantees.figures(noted) == ["noticed within 745 ms", "wrong answers: 1 of 60", "wasted 0.29"]


def test_what_failed_stands_out() -> None:
    told = guarantees.outcome({"passed": 2, "failed": 1, "skipped": {"needs root": 3}})
    assert told == "**1 failed**, 2 passed, 3 skipped: needs root"
    assert guarantees.outcome(None) == "not run yet"
