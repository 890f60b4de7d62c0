"""Hints on the channel bmdb_work: who sends them, and that what is rolled back or frees nothing sends none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb
from bmdb import _core


@pytest.fixture
def listening(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that gets the hints."""
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute(dict(_core.queries())["work_listen"])
        yield opened


def heard(listening: psycopg.Connection[Any], wanted: int) -> list[str]:
    """The payloads of the next hints: as many as wanted, or those within a second. A last one ends the wait early."""
    listening.execute("SELECT pg_notify('bmdb_work', 'the end')")
    payloads: list[str] = []
    for hint in listening.notifies(timeout=5.0):
        if hint.payload == "the end":
            break
        payloads.append(hint.payload)
    assert len(payloads) == wanted, payloads
    return payloads


def test_a_hint_is_sent_when_the_transaction_commits(listening: psycopg.Connection[Any], session: bmdb.Session) -> None:
    def hint(q: bmdb.Queries) -> None:
        q.notify("UnitTest1")
        q.notify(bmdb.Process("UnitTest2"))
        heard(listening, 0)

    session.transact(hint)
    assert heard(listening, 2) == ["UnitTest1", "UnitTest2"]


def test_no_hint_comes_of_what_is_rolled_back(listening: psycopg.Connection[Any], session: bmdb.Session) -> None:
    def fail(q: bmdb.Queries) -> None:
        q.notify("UnitTest1")
        raise LookupError

    with pytest.raises(LookupError):
        session.transact(fail)
    assert heard(listening, 0) == []


def test_a_session_that_closes_tells_which_processes_it_held_up(
    listening: psycopg.Connection[Any], connection: bmdb.Connection, machines: MakeMachines
) -> None:
    ids = machines(3)
    with connection.start_session() as session:
        for process in ("UnitTest1", "UnitTest1", "UnitTest2"):
            session.work(process, lambda q: ids)
        assert heard(listening, 0) == []
    assert sorted(heard(listening, 2)) == ["UnitTest1", "UnitTest2"]
    connection.start_session().close()
    assert heard(listening, 0) == []
