"""Commands on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import bmdb
from bmdb.cli import main

PROCESS = "UnitTest1"

Answer = Callable[..., tuple[int, str, str]]
Documents = Callable[..., Any]


@pytest.fixture
def bmdb_command(database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Runs a command on `database`: its status, standard output and standard error."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("BMDB_CONNINFO", database)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def document(bmdb_command: Answer) -> Documents:
    """Runs a command with --json; the document, once it has succeeded without a complaint."""

    def ask(*arguments: object) -> Any:
        status, output, errors = bmdb_command(*arguments, "--json")
        assert (status, errors) == (0, "")
        return json.loads(output)

    return ask


def fail(session: bmdb.Session, machine: UUID, cause: str, seconds: int = 600) -> None:
    session.work(PROCESS, lambda q: [machine]).fail(cause, bmdb.Backoff(seconds))
