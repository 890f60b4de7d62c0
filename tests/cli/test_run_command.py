"""`bmdb run`: which loops a target names, and what it says when it names none."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from bmdb.cli import main
from bmdb.cli.loops import Unusable, loops_of

Output = pytest.CaptureFixture[str]

FLEET = """
    import bmdb

    @bmdb.loop("UnitTest1", retrieve=lambda q: [])
    def one(work): ...

    @bmdb.loop("UnitTest2", retrieve=lambda q: [])
    async def two(work): ...

    both = [two, one]
    number = 7

    class Site:
        loops = (one,)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules in it whose names no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("BMDB_CONNINFO", raising=False)
    for name, source in {
        "run_fleet": FLEET,
        "run_needs": "import a_package_that_is_not_there",
        "run_broken": "x = 1\n1 / 0",
        "run_exits": "raise SystemExit('no thanks')",
        "run_empty": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    return tmp_path


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["run_fleet"], ["one", "two"]),
        (["run_fleet:all"], ["one", "two"]),
        (["run_fleet:two"], ["two"]),
        (["run_fleet:both"], ["two", "one"]),
        (["run_fleet:Site.loops"], ["one"]),
        (["run_fleet:two", "run_fleet:all"], ["two", "one"]),
    ],
)
def test_what_a_target_names(targets: list[str], names: list[str]) -> None:
    assert [loop.name for loop in loops_of(targets)] == names


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("run_nothing", "there is no module run_nothing, neither here nor installed"),
        ("run_needs:all", "No module named 'a_package_that_is_not_there'"),
        ("run_broken", r"ZeroDivisionError: division by zero \(.*run_broken.py, line 2\)"),
        ("run_exits", "run_exits cannot be imported: SystemExit: no thanks"),
        ("run_empty", "run_empty defines no loops"),
        ("run_fleet:three", "run_fleet has no three; loops there: one, two"),
        ("run_fleet:number", "run_fleet:number is neither a loop nor a list of loops; loops there: one, two"),
        ("run-fleet", "'run-fleet' is no MODULE or MODULE:ATTRIBUTE, such as fleet.loops:all"),
        ("run_fleet:", "'run_fleet:' names no attribute: say run_fleet, or run_fleet:all"),
        ("", "is no MODULE"),
    ],
)
def test_what_names_no_loops_is_told_in_a_line(target: str, told: str, capsys: Output) -> None:
    with pytest.raises(Unusable, match=told):
        loops_of([target])
    assert main(["run", target, "--conninfo", "embedded:"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "Missing argument"),
        (["run", "run_fleet"], "no database given"),
        (["run", "run_fleet", "-c", "embedded:", "--grace", "soon"], "'soon' is no duration"),
        (["run", "run_fleet", "-c", "embedded:", "--log-level", "loud"], "loud"),
        (["run", "run_fleet", "-c", "nonsense=1"], "conninfo cannot be parsed"),
    ],
)
def test_a_line_that_cannot_be_followed_ends_with_status_2(arguments: list[str], told: str, capsys: Output) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_the_help_names_every_option(capsys: Output) -> None:
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("MODULE[:ATTRIBUTE]", "--conninfo", "--grace", "--no-wakeup", "--migrate", "--log-level"):
        assert option in shown


def test_a_database_without_a_schema_ends_it_with_status_1(empty_database: str, capsys: Output) -> None:
    assert main(["run", "run_fleet", "-c", empty_database]) == 1
    assert "no schema" in capsys.readouterr().err
