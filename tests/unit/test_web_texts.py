"""How the pages write values: visible, in few words, in units that people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from bmdb.web import charts, texts
from bmdb.web.settings import Settings
from bmdb.web.site import TEMPLATES, Site
from bmdb.web.values import hex_dump

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.0123, "12ms"),
        (0.9999, "1s"),
        (3.14, "3.1s"),
        (9.99, "10s"),
        (75, "1m 15s"),
        (3600, "1h"),
        (3605, "1h"),
        (90_000, "1d 1h"),
        (-75, "-1m 15s"),
    ],
)
def test_a_duration_has_two_units(seconds: float, shown: str) -> None:
    assert texts.duration(seconds) == shown


def test_an_age_looks_both_ways() -> None:
    assert texts.age(NOW - timedelta(minutes=5), NOW) == "5m ago"
    assert texts.age(NOW + timedelta(hours=3), NOW) == "in 3h"
    assert texts.left(NOW + timedelta(seconds=2), NOW) == 2
    assert texts.left(NOW - timedelta(seconds=2), NOW) == 0
    assert texts.moment(NOW.astimezone()) == "2026-01-02 03:04:05Z"


def test_a_cause_is_told_in_its_most_telling_line() -> None:
    assert texts.summary("\n\n") == ""
    assert texts.summary("no  answer\nat all") == "no answer"
    assert texts.summary("Traceback (most recent call last):\n  File\nValueError: bad\n") == "ValueError: bad"
    assert texts.summary("x" * 100) == "x" * 71 + "…"
    assert texts.summary("x" * 100, 10) == "x" * 9 + "…"


@given(st.text())
def test_nothing_unseen_is_written(text: str) -> None:
    shown = texts.visible(text)
    assert shown == texts.visible(shown)
    assert all(mark.isprintable() or mark.isspace() for mark in shown)
    assert not set(shown) & set("\n\r\t\x1b\u202e\u200b\u2028")
    assert texts.visible(text + "\n", keep="\n").endswith("\n")


@given(st.text())
def test_a_template_writes_text_from_outside_escaped_and_visible(text: str) -> None:
    written = SITE.templates.from_string("{{ text }}|{{ text|lines }}|{{ other }}").render(text=text, other=None)
    left, _, right = written.partition("|")
    assert not {"<", ">", '"', "\u202e", "\x1b"} & set(written)
    assert left == str(Markup.escape(texts.visible(text))).partition("|")[0]
    assert right.endswith("|")


SITE = Site(Settings())


def test_no_template_trusts_a_text() -> None:
    """The only markup that is written as it is was made here: insides of panels, charts, texts with their lines."""
    files = sorted(TEMPLATES.rglob("*.html"))
    assert len(files) > 20
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert "|safe" not in source and "autoescape" not in source, file


def test_bars_are_as_high_as_their_counts() -> None:
    drawn = charts.bars([0, 1, 100, 50], 'Lost "<b>"')
    assert 'aria-label="Lost &#34;&lt;b&gt;&#34;: 151 in all, at most 100 in a step"' in drawn
    assert drawn.count("<rect") == 3
    assert [part.partition('"')[0] for part in drawn.split(' height="')[2:]] == ["2", "21", "10"]
    assert "style" not in drawn
    assert charts.bars([], "nothing").count("<rect") == 0


def test_bytes_are_dumped_sixteen_a_line() -> None:
    assert hex_dump(b"") == ""
    first, second = hex_dump(b"ABC\x00" * 4 + b"\xff").split("\n")
    assert first == "0000  41 42 43 00 41 42 43 00 41 42 43 00 41 42 43 00  ABC.ABC.ABC.ABC."
    assert second == "0010  ff" + " " * 47 + "."
