"""What comes from outside reaches the terminal only as text that it can do nothing with."""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bmdb.cli.terminal import (
    SUMMARY_LENGTH,
    WarningHandler,
    one_line,
    print_error,
    print_json,
    print_table,
    summary,
    visible,
)

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07 back\x08 del\x7f nul\x00", r"bell\x07 back\x08 del\x7f nul\x00"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("\u2066isolated\u2069 \u200f \u061c", r"\u2066isolated\u2069 \u200f \u061c"),
        ("zero\u200bwidth \ufeff", r"zero\u200bwidth \ufeff"),
        ("line\u2028end\u2029", r"line\u2028end\u2029"),
        ("\U000e0041 \ud800", r"\U000e0041 \ud800"),
        ("plain, ünïcödé, 中文, 🏽 and C:\\x", "plain, ünïcödé, 中文, 🏽 and C:\\x"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_unseen_is_left(text: str) -> None:
    unseen = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    for shown in (visible(text), one_line(text), summary(text)):
        assert not {unicodedata.category(mark) for mark in shown} & unseen
    assert len(summary(text)) <= SUMMARY_LENGTH


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        ("", ""),
        ("\n \n", ""),
        ("\n  refused   by\tthe host \nmore", "refused by the host"),
        ("Traceback (most recent call last):\n  File x\nValueError: no\n\n", "ValueError: no"),
        ("x" * 8192, "x" * (SUMMARY_LENGTH - 1) + "…"),
        ("\x1b" * 8192, (r"\x1b" * SUMMARY_LENGTH)[: SUMMARY_LENGTH - 1] + "…"),
        ("y" * SUMMARY_LENGTH, "y" * SUMMARY_LENGTH),
    ],
)
def test_a_cause_is_summed_up(cause: str, shown: str) -> None:
    assert summary(cause) == shown


def test_an_error_is_one_line(capsys: Output) -> None:
    print_error("first\nsecond \x1b[2J")
    assert capsys.readouterr().err == "bmdb: first second \\x1b[2J\n"


def test_the_librarys_warnings_are_one_line(capsys: Output) -> None:
    record = logging.LogRecord("bmdb", logging.WARNING, "", 0, "a\x1b %s\nb", ("c",), None)
    WarningHandler().handle(record)
    assert capsys.readouterr().err == "bmdb: warning: a\\x1b c b\n"


def test_a_mistake_is_told_with_its_traceback(capsys: Output) -> None:
    logger = logging.getLogger("test of a mistake")
    logger.propagate = False
    logger.addHandler(WarningHandler())
    try:
        raise KeyError("\x1b[2J")
    except KeyError:
        logger.exception("the panel failed")
    shown = capsys.readouterr().err.splitlines()
    assert shown[:2] == ["bmdb: error: the panel failed", "Traceback (most recent call last):"]
    assert shown[-1] == r"KeyError: '\x1b[2J'"
    assert "test_terminal.py" in shown[2]


class TestTables:
    def test_markup_and_emoji_codes_mean_nothing(self, capsys: Output) -> None:
        print_table(["A"], [["[bold red]x[/] :smile: [link=file:///etc]y"]])
        assert capsys.readouterr().out.splitlines()[1] == "[bold red]x[/] :smile: [link=file:///etc]y"

    def test_what_no_terminal_shows_is_not_cut(self, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        print_table(["A", "B"], [["x" * 500, "y"]])
        assert capsys.readouterr().out.splitlines()[1] == "x" * 500 + "  y"

    def test_cells_of_more_lines_and_wide_signs_keep_the_columns(self, capsys: Output) -> None:
        print_table(["A", "B", "C"], [["x\nyy", "中文", "1"], ["z", "é", "2\n3"]])
        assert capsys.readouterr().out.splitlines() == [
            "A   B     C",
            "x   中文  1",
            "yy",
            "z   é     2",
            "          3",
        ]

    def test_thousands_of_rows_take_no_time(self, capsys: Output) -> None:
        start = time.process_time()
        print_table(["A", "B"], [[str(number), "x" * 50] for number in range(10_000)])
        assert time.process_time() - start < 3
        assert len(capsys.readouterr().out.splitlines()) == 10_001

    def test_what_is_too_narrow_for_a_table_is_written_cell_by_cell(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        rows = [["a" * 36, "install", "two\nlines"], ["b" * 36, "wipe", ""]]
        print_table(["MACHINE", "PROCESS", "CAUSE"], rows, fixed=frozenset({"MACHINE"}))
        assert capsys.readouterr().out.splitlines() == [
            "MACHINE  " + "a" * 36,
            "PROCESS  install",
            "CAUSE    two",
            "         lines",
            "",
            "MACHINE  " + "b" * 36,
            "PROCESS  wipe",
            "CAUSE",
        ]

    def test_fixed_columns_keep_whole_where_it_is_narrow(self, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "60")
        name = str(UUID(int=7))
        print_table(["ID", "TEXT"], [[name, "word " * 20]], fixed=frozenset({"ID"}))
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].startswith(name + "  word")
        assert all(len(line) <= 60 for line in lines)
        assert " ".join(lines).count("word") == 20


class TestJson:
    def test_times_are_iso_and_ids_text(self, capsys: Output) -> None:
        noon = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))
        print_json({"at": noon, "id": UUID(int=7), "none": None})
        document = json.loads(capsys.readouterr().out)
        assert document == {"at": "2024-02-29T10:00:00.000001+00:00", "id": str(UUID(int=7)), "none": None}
        assert datetime.fromisoformat(document["at"]) == noon.astimezone(UTC)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    @example("\x7f\\\x1b\x9b\u202e")
    def test_any_text_survives_and_none_reaches_the_terminal(self, text: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            written: list[str] = []
            patch.setattr("builtins.print", lambda line: written.append(line))
            print_json([text])
        assert json.loads(written[0]) == [text]
        assert all(mark == "\n" or " " <= mark <= "~" for mark in written[0])

    def test_what_has_no_json_is_a_mistake(self) -> None:
        with pytest.raises(TypeError, match="no JSON for set"):
            print_json({1, 2})
