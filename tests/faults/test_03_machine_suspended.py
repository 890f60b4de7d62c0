"""Row 3: the whole machine is suspended, and wakes.

Promised: its sessions are expired on waking, before any query is sent.

The suspension is played by letting the clock of the connection jump ahead, which is what waking looks like to a clock
that counts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.processes import eventually
from tests.proxy import Proxy

INTERVAL = 2


def test_a_session_is_expired_on_waking_before_any_query(
    proxy: Proxy,
    proxied: bmdb.Connection,
    machines: Callable[[int], list[UUID]],
) -> None:
    machines(1)
    told: list[bmdb.Session] = []
    ran: list[bmdb.Queries] = []
    session = proxied.start_session(interval=INTERVAL)
    session.on_expired(told.append)
    work = session.work("Slept", lambda q: q.fetch("SELECT machine_id FROM machines"))
    # The heartbeat is in the middle of its pause, so nothing is on its way.
    eventually(lambda: proxy.count("UPDATE sessions") > 0)
    time.sleep(0.1)
    before = proxy.count()

    proxied._core.skip_clock(INTERVAL * 0.8)

    assert session.expired
    assert session.trusted_for == 0.0
    assert work.lost
    with pytest.raises(bmdb.SessionExpiredError):
        session.transact(ran.append)
    with pytest.raises(bmdb.SessionExpiredError):
        work.finish(ran.append)
    with pytest.raises(bmdb.SessionExpiredError):
        session.work("Slept", ran.append)
    assert ran == []
    eventually(lambda: told == [session], INTERVAL)
    # Long enough for the beat that was due: it does not revive the session.
    time.sleep(INTERVAL / 2 + 0.1)
    assert proxy.count() == before


@pytest.mark.parametrize("goes_on", [False, True], ids=["returns", "goes on"])
def test_a_suspension_inside_a_callback_keeps_its_transaction_from_being_committed(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], writes: str, goes_on: bool
) -> None:
    session = proxied.start_session(interval=20)
    runs: list[int] = []

    def sleep(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('before the suspension')"))
        proxied._core.skip_clock(session.interval)
        if goes_on:
            q.execute("INSERT INTO writes VALUES ('after the suspension')")

    with pytest.raises(bmdb.SessionExpiredError):
        session.transact(sleep)
    assert runs == [1]
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    # It is not even sent.
    assert proxy.count("after the suspension") == 0


def test_a_short_suspension_costs_nothing(connection: bmdb.Connection, session: bmdb.Session) -> None:
    connection._core.skip_clock(session.trusted_for / 2)
    assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
    assert not session.expired
