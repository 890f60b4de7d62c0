"""Row 8: the answers to beats come late.

Promised: trust counts from when a beat was sent. What its answer takes is not added, since the database may have
renewed the session at any time before it.
"""

from __future__ import annotations

import time

import bmdb
from tests.faults.figures import Figure
from tests.proxy import Proxy

# Long enough for a connection that has to be made anew, each trip of which is late.
INTERVAL = 10.0
TRUST = INTERVAL * 4 / 5
LATE = 0.5


def renewed(session: bmdb.Session) -> float:
    """For how long the session is trusted just after its next renewal."""
    deadline = time.monotonic() + INTERVAL
    trusted = session.trusted_for
    while (now := session.trusted_for) <= trusted:
        assert time.monotonic() < deadline, "no beat was answered"
        trusted = now
        time.sleep(0.005)
    return now


def test_a_late_answer_renews_from_when_its_beat_was_sent(
    proxy: Proxy, proxied: bmdb.Connection, figure: Figure
) -> None:
    with proxied.start_session(interval=INTERVAL) as session:
        # The beats' connection is there after one, so that the next is a single round trip.
        assert renewed(session) > TRUST - LATE
        with proxy.delaying(LATE, "to_client"):
            trusted = renewed(session)
        figure("trusted after an answer that took half a second", trusted, "s")
        assert trusted <= TRUST - LATE
        assert not session.expired
