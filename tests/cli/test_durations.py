"""Durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmdb.cli.durations import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300),
        ("0", 0),
        ("1m", 60),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("90s", 90),
        ("1h30m", 5400),
        ("2D", 172800),
        (" 250ms ", 0.25),
    ],
)
def test_what_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "m", "1 m", "-1", "-1m", "1x", "1m x", "nan", "inf", "1e3", "1,5h", "٣m", "1" + "0" * 400]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration|longer"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (66, "1m 6s"), (3600, "1h"), (3601, "1h"), (3660, "1h 1m"), (90061, "1d 1h")],
)
def test_what_is_shown(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


@given(st.integers(0, 10**9))
def test_what_is_shown_can_be_read_and_is_short_of_one_lesser_unit_at_most(seconds: int) -> None:
    shown = show_duration(seconds)
    lost = seconds - parse_duration(shown.replace(" ", ""))
    assert 0 <= lost < (86400 if "d" in shown else 3600 if "h" in shown else 1)
    assert len(shown.split()) <= 2
