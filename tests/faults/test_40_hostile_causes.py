"""Row 40: the text of a cause is huge or hostile.

Promised: it is capped, and kept as it is; NUL is refused; it is escaped wherever it is shown.

Here the core; pages, logs and terminals have tests of their own in tests/web, tests/numbers and tests/cli.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines

PROCESS = "UnitTest1"
KEPT = 8 * 1024
BACKOFF = bmdb.Backoff(1)

HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "terminal": "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m",
    "bidi": "user\u202etxt.exe\u2066\u2069",
    "quotes": "'; DROP TABLE work_history; --\\",
    "lines": "first\r\nINFO forged log line\nthird",
    "astral": "😀" * 10,
    "empty": "",
}


@pytest.fixture
def work(session: bmdb.Session, machines: MakeMachines) -> bmdb.Work:
    (machine,) = machines(1)
    return session.work(PROCESS, lambda _: [machine])


def stored(sql: psycopg.Connection[Any], machine: UUID) -> tuple[str, str]:
    """The cause in history and beside the backoff."""
    statement = """
        SELECT h.failed_cause, b.cause FROM work_history h JOIN work_backoff b USING (machine_id, process)
        WHERE h.machine_id = %s AND h.event = 'Failed'
    """
    ((history, backoff),) = sql.execute(statement, [machine]).fetchall()
    return str(history), str(backoff)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_kept_as_it_is(
    work: bmdb.Work, connection: bmdb.Connection, sql: psycopg.Connection[Any], name: str
) -> None:
    cause = HOSTILE[name]
    work.fail(cause, BACKOFF)
    assert stored(sql, work.machine) == (cause, cause)
    assert connection.history_of(work.machine)[-1].failed_cause == cause


@pytest.mark.parametrize("cause", ["x" * 10_000_000, "é" * KEPT, "😀" * KEPT, "a" + "😀" * KEPT])
def test_a_huge_one_is_cut_to_eight_kib_and_marked(work: bmdb.Work, sql: psycopg.Connection[Any], cause: str) -> None:
    work.fail(cause, BACKOFF)
    history, backoff = stored(sql, work.machine)
    assert history == backoff
    assert KEPT - 4 < len(history.encode()) <= KEPT
    assert history.endswith("[cut]")
    assert cause.startswith(history[:-20])


def test_one_that_just_fits_is_not_cut(work: bmdb.Work, sql: psycopg.Connection[Any]) -> None:
    work.fail("x" * KEPT, BACKOFF)
    assert stored(sql, work.machine) == ("x" * KEPT, "x" * KEPT)


@pytest.mark.parametrize(
    ("cause", "error", "says"),
    [
        ("before\0after", ValueError, "NUL"),
        ("x" * KEPT + "\0", ValueError, "NUL"),
        ("lone \ud800 surrogate", ValueError, "surrogate"),
        (b"bytes", TypeError, "bytes"),
        (None, TypeError, "NoneType"),
        (OSError("not text"), TypeError, "OSError"),
    ],
    ids=repr,
)
def test_what_cannot_be_stored_is_refused_and_the_work_goes_on(
    work: bmdb.Work, sql: psycopg.Connection[Any], cause: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        work.fail(cause, BACKOFF)
    assert work.state == "active"
    assert sql.execute("SELECT event FROM work_history").fetchall() == [("Started",)]
    work.fail("plain text", BACKOFF)
    assert stored(sql, work.machine) == ("plain text", "plain text")


def test_no_cause_is_logged(work: bmdb.Work, sql: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    # Without a backoff there is a warning, which names the work only.
    work.fail("\x1b[2J forged\nline")
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("bmdb")]
    assert len(messages) == 1
    assert str(work.machine) in messages[0]
    assert all(character.isprintable() for character in messages[0])
