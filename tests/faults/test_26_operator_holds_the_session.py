"""Row 26: somebody holds a session's row from psql.

Promised: a warning names the blocker; the session is lost only when trust ends.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.processes import eventually


def warnings_about(caplog: pytest.LogCaptureFixture, session: bmdb.Session) -> list[str]:
    """Messages of warnings that name the session."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and str(session.uuid) in record.getMessage()
    ]


LOCK = "SELECT 1 FROM sessions WHERE session_id = %s FOR UPDATE"


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bmdb")


def test_the_session_is_lost_when_trust_ends_and_not_before_and_others_are_not(
    database: str, connection: bmdb.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with connection.start_session(interval=2.0) as held, connection.start_session(interval=2.0) as other:
        with psycopg.connect(database, application_name="operator") as operator:
            operator.execute(LOCK, [held.uuid])
            trusted = held.trusted_for
            locked = time.monotonic()
            eventually(lambda: warnings_about(caplog, held), timeout=trusted)
            warned = time.monotonic() - locked
            assert not held.expired
            assert held.wait_expired(5.0)
            lasted = time.monotonic() - locked
            assert warned < lasted
            # A beat that was under way may still have been granted its renewal.
            assert trusted - 0.1 < lasted < 1.6 + 0.5
            # Long after its own trust would have ended, had it not been renewed beside the locked row.
            assert not other.wait_expired(2.0)
        with pytest.raises(bmdb.SessionExpiredError):
            held.transact(lambda _: None)
        assert other.transact(lambda q: q.fetch_value("SELECT 1")) == 1
    assert warnings_about(caplog, other) == []


def test_an_operator_who_lets_go_while_a_beat_waits_costs_nothing(
    database: str, connection: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE sessions%'
    """
    with connection.start_session(interval=4.0) as session:
        with psycopg.connect(database, application_name="operator") as operator:
            operator.execute(LOCK, [session.uuid])
            eventually(lambda: sql.execute(waiting).fetchone() != (0,))
        # Past the moment at which trust would have ended without the beat that waited.
        assert not session.wait_expired(3.3)
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1


def test_the_warning_names_the_blocker(
    database: str, connection: bmdb.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        connection.start_session(interval=4.0) as session,
        psycopg.connect(database, application_name="operator's psql") as operator,
    ):
        operator.execute(LOCK, [session.uuid])
        eventually(lambda: warnings_about(caplog, session), timeout=session.trusted_for)
        (text, *_) = warnings_about(caplog, session)
        assert str(operator.info.backend_pid) in text
        assert "operator's psql" in text


@pytest.mark.timeout(30)
def test_a_transaction_that_waits_for_the_operator_ends_with_trust(database: str, connection: bmdb.Connection) -> None:
    with connection.start_session(interval=2.0) as session, psycopg.connect(database) as operator:
        operator.execute(LOCK, [session.uuid])
        trusted, started = session.trusted_for, time.monotonic()
        with pytest.raises(bmdb.SessionExpiredError):
            session.transact(lambda q: None)
        assert time.monotonic() - started < trusted + 0.5


@pytest.mark.one_twin
def test_an_operator_who_lets_go_after_the_warning_costs_nothing(
    database: str, connection: bmdb.Connection, sql: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with connection.start_session(interval=4.0) as session:
        with psycopg.connect(database, application_name="operator") as operator:
            operator.execute(LOCK, [session.uuid])
            eventually(lambda: warnings_about(caplog, session), timeout=session.trusted_for)
        assert not session.wait_expired(4.0)
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
