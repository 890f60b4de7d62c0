"""Row 7: one heartbeat fails.

Promised: nothing is lost, one warning tells of it, and the next beat goes out on a new connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import pytest

import bmdb
from tests.processes import eventually
from tests.proxy import Proxy

BEAT = "UPDATE sessions"
INTERVAL = 2

FAULTS: dict[str, Callable[[Proxy], AbstractContextManager[Any]]] = {
    "reset before the beat": lambda proxy: proxy.cutting_before(BEAT),
    "reset after the beat": lambda proxy: proxy.cutting_after(BEAT),
    "no answer": lambda proxy: proxy.cutting_after(BEAT, how="silence"),
    "terminated": lambda proxy: proxy.injecting("57P01", BEAT, severity="FATAL"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failed_beat_costs_one_warning(
    proxy: Proxy,
    proxied: bmdb.Connection,
    machines: Callable[[int], list[UUID]],
    caplog: pytest.LogCaptureFixture,
    metric: Callable[..., float],
    fault: str,
) -> None:
    machines(1)
    caplog.set_level(logging.INFO, "bmdb")
    session = proxied.start_session(interval=INTERVAL)
    work = session.work("Beaten", lambda q: q.fetch("SELECT machine_id FROM machines"))
    with FAULTS[fault](proxy) as struck:
        struck.wait(hits=1)
    struck_at = time.monotonic()
    eventually(lambda: "back" in caplog.text, INTERVAL)
    # Trust would have ended by now without the beats since.
    time.sleep(max(0.0, struck_at + INTERVAL * 0.85 - time.monotonic()))

    assert not session.expired
    work.finish()
    assert metric(proxied, "bmdb_heartbeat_failures") == 1
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warnings] == ["bmdb.heartbeat"]
    assert "trying again on a new connection" in warnings[0].getMessage()
    assert len({beat.connection for beat in proxy.statements(BEAT)}) == 2
