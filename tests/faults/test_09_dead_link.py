"""Row 9: a link dies silently, while nothing is sent on it or while an answer is waited for.

Promised: it is noticed within a quarter of the interval, and another connection takes its place. With every link dead
no wait outlasts the session.

What a proxy can play. A route into nowhere looks the same to us, as nothing here counts on the network to tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import psutil
import psycopg
import pytest

import bmdb
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import eventually
from tests.proxy import CutRule, Proxy

BEAT = "UPDATE sessions"
INTERVAL = 3

FAULTS: dict[str, Callable[[Proxy], AbstractContextManager[CutRule]]] = {
    "idle": lambda proxy: proxy.cutting_before(BEAT, how="silence"),
    "waiting for the answer": lambda proxy: proxy.cutting_after(BEAT, how="silence"),
}


def sockets(proxy: Proxy) -> int:
    """Open sockets of this process to the proxy."""
    connections = psutil.Process().net_connections("tcp")
    return sum(
        1 for each in connections if each.raddr and each.raddr.port == proxy.port and each.status == "ESTABLISHED"
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_the_heartbeat_notices_a_dead_link_in_time(
    proxy: Proxy, proxied: bmdb.Connection, fault: str, figure: Figure
) -> None:
    session = proxied.start_session(interval=INTERVAL)
    with FAULTS[fault](proxy) as dead:
        dead.wait()
        before = sockets(proxy)
    (lost,) = proxy.statements(BEAT)
    eventually(lambda: proxy.count(BEAT) == 2, INTERVAL)
    again = proxy.statements(BEAT)[1]
    assert again.connection != lost.connection
    # It gives up after a fifth; the rest of the quarter is for the new connection.
    assert INTERVAL / 5 - 0.05 < again.sent_at - lost.sent_at < INTERVAL / 4 + 0.1
    figure(f"noticed, at an interval of {INTERVAL} s, within", again.sent_at - lost.sent_at, "s")
    # The socket to nowhere is not kept.
    eventually(lambda: sockets(proxy) == before, 2)
    assert not session.expired


def test_a_dead_connection_of_the_pool_is_replaced_in_time(proxy: Proxy, proxied: bmdb.Connection) -> None:
    session = proxied.start_session(interval=INTERVAL)
    session.transact(lambda q: q.fetch_value("SELECT 'marked'"))
    # The heartbeat's own connection is there now, and counted.
    eventually(lambda: proxy.count(BEAT) == 1)
    before = sockets(proxy)
    assert proxy.reset(how="silence", executed="marked") == 1
    began = time.monotonic()
    assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
    # After a failed BEGIN there is a pause, so that a server that restarts has time for it.
    assert time.monotonic() - began < INTERVAL / 4 + 0.3
    assert sockets(proxy) == before


def test_with_every_link_dead_no_wait_outlasts_the_session(proxy: Proxy, proxied: bmdb.Connection) -> None:
    """BEGIN on a dead connection, then connecting anew: trust ends both."""
    session = proxied.start_session(interval=1)
    session.transact(lambda q: q.fetch_value("SELECT 1"))
    ran: list[bmdb.Queries] = []
    with proxy.swallowing():
        trusted = session.trusted_for
        began = time.monotonic()
        with pytest.raises(bmdb.SessionExpiredError):
            session.transact(ran.append)
        assert time.monotonic() - began < trusted + 0.4
    assert ran == []


def test_a_first_connection_that_leads_nowhere_does_not_use_up_all_trust(
    proxy: Proxy, proxied: bmdb.Connection
) -> None:
    """The heartbeat opens its connection ahead of the first beat; what is not there in time is given up for another."""
    with proxy.delaying(0.05):
        session = proxied.start_session(interval=INTERVAL)
        with proxy.swallowing():
            time.sleep(0.3)
    assert not session.wait_expired(INTERVAL)
    assert proxy.count(BEAT) > 0


def test_a_wait_for_the_pool_ends_with_the_session(
    database: str, sql: psycopg.Connection[Any], connect: Connect
) -> None:
    with (
        connect(database, component="test", pool_size=1) as connection,
        connection.start_session(interval=60) as holding,
        connection.start_session(interval=1) as waiting,
        ThreadPoolExecutor(1) as threads,
    ):
        busy, done = threading.Event(), threading.Event()

        def occupy(_: bmdb.Queries) -> None:
            busy.set()
            assert done.wait(20)

        occupied = threads.submit(holding.transact, occupy)
        assert busy.wait(10)
        sql.execute("DELETE FROM sessions WHERE session_id = %s", [waiting.uuid])
        began = time.monotonic()
        try:
            with pytest.raises(bmdb.SessionExpiredError):
                waiting.transact(lambda _: pytest.fail("the callback ran"))
            assert time.monotonic() - began < 2
        finally:
            done.set()
        occupied.result(10)
