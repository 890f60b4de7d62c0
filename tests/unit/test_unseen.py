"""What text from outside may not hide: characters without a sign, and marks in towers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmdb.unseen import is_seen, visible
from bmdb.web.access import name_from


@pytest.mark.parametrize("mark", "\u3164\u115f\u1160\u2800\uffa0\u034f\u17b4\u180b\ufe0f\U000e0100\u200b\u202e")
def test_what_shows_nothing_is_not_seen(mark: str) -> None:
    assert not is_seen(mark)
    escape = f"\\u{ord(mark):04x}" if ord(mark) < 0x10000 else f"\\U{ord(mark):08x}"
    assert visible(f"root{mark}") == f"root{escape}"
    with pytest.raises(ValueError, match="can be seen"):
        name_from(f"root{mark}")


@pytest.mark.parametrize(
    "text", ["e\u0301", "Zoë O’Neil", "한국어", "ệ", "e\u0301\u0302\u0303\u0304", "नमस्ते", "שָׁלוֹם", "⠃"]
)
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text
    assert name_from(text) == text


def test_marks_in_towers_are_written_out() -> None:
    assert visible("e" + "\u0301" * 5 + "a\u0301") == "e" + "\\u0301" * 5 + "a\u0301"
    assert visible("e" + "\u20dd\u0301" * 3) == "e" + "\\u20dd\\u0301" * 3
    with pytest.raises(ValueError, match="can be seen"):
        name_from("root" + "\u0334" * 5)


@given(st.text(st.characters(categories=["Mn", "Me", "Ll", "Cf"])))
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert all(is_seen(mark) for mark in shown)
