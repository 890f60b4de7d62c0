"""Row 8: every heartbeat fails.

Promised: the holder is told before the database would let anybody else in, and starts nothing more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest

import bmdb
from tests.faults.figures import Figure
from tests.processes import eventually
from tests.proxy import Proxy

INTERVAL = 2
BEAT = "UPDATE sessions"

FAULTS: dict[str, Callable[[Proxy], AbstractContextManager[Any]]] = {
    "swallowed": lambda proxy: proxy.swallowing(),
    "answers swallowed": lambda proxy: proxy.swallowing("to_client"),
    "refused": lambda proxy: proxy.cutting_before(BEAT, times=None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_holder_is_told_before_the_deadline(
    figure: Figure,
    proxy: Proxy,
    proxied: bmdb.Connection,
    sql: psycopg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level(logging.INFO, "bmdb")
    session = proxied.start_session(interval=INTERVAL)
    told = threading.Event()
    told_at: list[float] = []

    def tell(lost: bmdb.Session) -> None:
        assert lost == session
        told_at.append(time.monotonic())
        told.set()

    session.on_expired(tell)
    ran: list[bmdb.Queries] = []
    eventually(lambda: proxy.count(BEAT) > 0)
    with FAULTS[fault](proxy):
        trusted_until = time.monotonic() + session.trusted_for
        # A beat that is under way when the fault begins may still move it.
        while not told.wait(0.02):
            trusted_until = max(trusted_until, time.monotonic() + session.trusted_for - 0.005)
        (live,) = sql.execute("SELECT session_deadline > clock_timestamp() FROM sessions").fetchone() or (None,)
        assert live is True, "told only when the database had already let others in"
        assert told_at[0] < trusted_until + 0.1
        figure("told, after the end of trust, within", max(0.0, told_at[0] - trusted_until), "s")
        assert session.expired
        began = time.monotonic()
        with pytest.raises(bmdb.SessionExpiredError, match="no heartbeat reached the database"):
            session.transact(ran.append)
        with pytest.raises(bmdb.SessionExpiredError):
            session.work("Late", ran.append)
        assert time.monotonic() - began < 0.05
    assert ran == []
    losses = [record for record in caplog.records if record.name == "bmdb.session"]
    assert [record.levelno for record in losses] == [logging.ERROR]
    # However many beats have failed; none if the first was told of by the loss itself.
    failures = [record for record in caplog.records if record.name == "bmdb.heartbeat"]
    assert [record.levelno for record in failures] in ([logging.WARNING], [])


def test_a_statement_that_waits_is_ended_when_trust_ends(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], writes: str
) -> None:
    """The lock that it waits for is not given up in time, so the end of trust is all that can end the wait."""
    session = proxied.start_session(interval=INTERVAL)
    runs: list[int] = []

    def wait(q: bmdb.Queries) -> None:
        runs.append(1)
        q.execute("LOCK TABLE writes")

    with sql.transaction(), ThreadPoolExecutor(1) as threads:
        sql.execute("LOCK TABLE writes")
        waiting = threads.submit(session.transact, wait)
        eventually(lambda: runs)
        with proxy.swallowing(executed=BEAT), proxy.cutting_before(BEAT, times=None):
            trusted = session.trusted_for
            began = time.monotonic()
            with pytest.raises(bmdb.SessionExpiredError):
                waiting.result(timeout=10)
            assert time.monotonic() - began < trusted + 0.3
    assert runs == [1]
