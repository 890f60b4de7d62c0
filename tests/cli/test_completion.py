"""What a shell completes: commands, options, and what is in the database."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import fail

import bmdb
from bmdb.cli import main
from bmdb.cli.completion import MOST

BASH = shutil.which("bash")
SCRIPTS = Path(sys.executable).parent
# Typer looks at the processes above for a shell, unless told not to.
UNDETECTED = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
ENVIRONMENT = {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}


@pytest.fixture
def complete(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What is offered for the last word of a line, as bash asks for it."""

    def ask(*words: str, conninfo: str | None = database) -> list[str]:
        if conninfo is None:
            monkeypatch.delenv("BMDB_CONNINFO", raising=False)
        else:
            monkeypatch.setenv("BMDB_CONNINFO", conninfo)
        monkeypatch.setenv("_BMDB_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["bmdb", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert main([]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.split()

    return ask


def test_commands_and_options(complete: Any) -> None:
    offered = complete("")
    assert {"explain", "work", "backoffs", "doctor", "top", "prune"} <= set(offered)
    assert complete("rel") == ["release", "release-quarantine"]
    assert set(complete("backoffs", "--")) >= {"--process", "--machine", "--expired", "--json", "--limit"}


def test_processes_machines_and_sessions(complete: Any, session: bmdb.Session, machines: Any) -> None:
    first, *others = machines(3)
    session.connection.register(bmdb.Process("Inspect", quarantine_after=3))
    session.work("Paint", lambda q: [first])
    fail(session, others[0], "no")
    assert complete("work", "--process", "") == ["Inspect", "Paint", "UnitTest1"]
    assert complete("work", "-p", "Pa") == ["Paint"]
    assert complete("explain", str(first)[:7]) == [str(first)]
    assert complete("force-release", str(first), "P") == ["Paint"]
    assert complete("work", "--session", str(session.uuid)[:14]) == [str(session.uuid)]
    assert set(complete("history", "")) == {str(machine) for machine in (first, *others)}
    for nothing in ("x", str(first)[:8] + "f", str(first).replace("-", "")[:12], str(first) + "0"):
        assert complete("explain", nothing) == []


def test_not_more_than_can_be_read(complete: Any, machines: Any) -> None:
    machines(MOST + 10)
    assert len(complete("history", "")) == MOST


def test_names_that_a_terminal_would_act_on_are_left_out(complete: Any, session: bmdb.Session, machines: Any) -> None:
    for process, machine in zip(("\x1b[31mred", "plain"), machines(2), strict=True):
        session.work(process, lambda q, m=machine: [m])
    assert complete("work", "-p", "") == ["plain"]


@pytest.mark.parametrize(
    "conninfo", [None, "host=127.0.0.1 port=1", "no conninfo at all", "embedded:", "embedded:/nowhere"]
)
def test_without_a_database_nothing_is_offered_and_nothing_is_said(complete: Any, conninfo: str | None) -> None:
    assert complete("work", "--process", "", conninfo=conninfo) == []
    assert "work" in complete("wo", conninfo=conninfo)


@pytest.mark.skipif(BASH is None, reason="no bash")
def test_in_bash(database: str) -> None:
    """The script that --show-completion prints, sourced and asked as bash does when Tab is pressed."""
    assert BASH is not None
    script = subprocess.run(
        [SCRIPTS / "bmdb", "--show-completion", "bash"],
        capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, UNDETECTED: "1"},
    )  # fmt: skip
    assert (script.returncode, script.stderr) == (0, "")
    asking = 'COMP_WORDS=(bmdb "release"); COMP_CWORD=1; _bmdb_completion bmdb; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        [BASH, "--norc", "-c", f"{script.stdout}\n{asking}"],
        capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, "BMDB_CONNINFO": database},
    )  # fmt: skip
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["release", "release-quarantine"], "")
