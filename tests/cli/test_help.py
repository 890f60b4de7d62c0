"""The help of every command, and of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from bmdb.cli import main
from bmdb.cli import run as _commands  # noqa: F401 - makes them
from bmdb.cli.application import _ORDER, app

Output = pytest.CaptureFixture[str]

PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands  # type: ignore[attr-defined]
# It has nothing to say at its end.
WITHOUT_JSON = {"web"}
# What the documents speak of.
NAMED = {
    "top",
    "sessions",
    "machines",
    "work",
    "backoffs",
    "history",
    "explain",
    "hold",
    "release",
    "force-release",
    "clear-backoff",
    "prune",
    "collect",
    "stats",
    "web",
    "migrate",
    "run",
    "doctor",
}


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


def test_every_command_that_was_promised_is_there_and_listed_in_order(capsys: Output) -> None:
    assert set(COMMANDS) >= NAMED
    ordered = [name for group in _ORDER for name in group]
    assert len(ordered) == len(set(ordered))
    assert set(ordered) == set(COMMANDS)
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    listed = re.findall(r"^  ([a-z-]+)  +\S", shown.partition("Commands:")[2], re.MULTILINE)
    assert listed == ordered
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_names_every_argument_and_option_and_fits(name: str, capsys: Output) -> None:
    assert main([name, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"Usage: bmdb {name} ")
    assert max(map(len, captured.out.splitlines())) <= 80
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            assert parameter.metavar.strip("[]") in captured.out
            assert parameter.help
        else:
            assert all(option in captured.out for option in parameter.opts)
            assert parameter.help and parameter.help.endswith(".")
    sentences = (COMMANDS[name].help or "").strip()
    assert sentences.splitlines()[0].endswith(".")
    assert len(sentences.splitlines()) > 1 or name in {"stats", "prune"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_JSON))
def test_every_command_has_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


def test_the_page_for_operators_speaks_of_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    spoken = set(re.findall(r"bmdb ([a-z][a-z-]+)", page))
    # A plan of backoffs is told of elsewhere, and holds beside what makes them.
    assert set(COMMANDS) - spoken == {"backoff", "holds"}
