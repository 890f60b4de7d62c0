"""Commands, the overview and the pages' statements on the stand-in for CockroachDB."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import pytest

import bmdb
from bmdb.cli import main

PROCESS = "Mend"
NewMachines = Callable[[int], list[UUID]]


@pytest.fixture
def fleet(roach: bmdb.Connection, new_machines: NewMachines, monkeypatch: pytest.MonkeyPatch, roach_dsn: str) -> UUID:
    """A machine that is leased by a session, after a failure; its id."""
    (machine,) = new_machines(1)
    monkeypatch.setenv("BMDB_CONNINFO", roach_dsn)
    session = roach.start_session(interval=60)
    roach.register(bmdb.Process(PROCESS, quarantine_after=3))
    session.work(PROCESS, lambda q: [machine]).fail("no answer", bmdb.Backoff(600))
    session.work("Other", lambda q: [machine])
    return machine


@pytest.mark.parametrize(
    "arguments",
    [
        ["machines"],
        ["work"],
        ["backoffs"],
        ["holds"],
        ["sessions"],
        ["processes"],
        ["stats"],
        ["history", "{machine}"],
        ["explain", "{machine}", PROCESS],
        ["collect"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_people_ask_is_answered(fleet: UUID, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status = main([argument.replace("{machine}", str(fleet)) for argument in arguments] + ["--json"])
    told = capsys.readouterr()
    assert (status, told.err) == (0, "")
    assert json.loads(told.out) is not None


def test_the_doctor_says_that_it_knows_postgresql_only(fleet: UUID, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) != 0
    assert "CockroachDB" in capsys.readouterr().out
