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


def test_work_given_back_tells_its_process_and_finished_work_does_not(
    listening: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines
) -> None:
    ids = machines(2)
    session.work("UnitTest1", lambda q: ids).cancel()
    assert heard(listening, 1) == ["UnitTest1"]
    session.work("UnitTest1", lambda q: ids).finish()
    session.work("UnitTest1", lambda q: ids).fail("broken", bmdb.Backoff(1))
    assert heard(listening, 0) == []


def test_collection_tells_whose_work_was_lost(
    listening: psycopg.Connection[Any],
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    machines: MakeMachines,
    sql: psycopg.Connection[Any],
) -> None:
    ids = machines(3)
    with bmdb.connect(database, component="holder") as other:
        holder = other.start_session(interval=60.0)
        for process in ("UnitTest1", "UnitTest1", "UnitTest2"):
            holder.work(process, lambda q: ids)
        sql.execute("UPDATE sessions SET session_deadline = now() WHERE session_id = %s", [holder.uuid])
        connection.collect()
        # Another connection's heartbeat may have collected it first.
        assert sorted(heard(listening, 2)) == ["UnitTest1", "UnitTest2"]
