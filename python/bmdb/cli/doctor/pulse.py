"""How long a heartbeat takes: renewals of a session of the doctor's own, committed one after the other."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterator

from bmdb import _core
from bmdb.cli.doctor import schema
from bmdb.cli.doctor.finding import Finding, note, ok, problem, warning
from bmdb.cli.doctor.probe import Probe

BEATS = 20
INTERVAL = 30  # seconds: the session outlives the looks at it, and is collected soon if it is left behind
# Of the default interval of 5 s a session trusts itself for 4 s, and beats every 2.5 s: 1.5 s are left for a late beat.
SLOW = 0.25
TOO_SLOW = 1.5


def heartbeat(probe: Probe) -> Iterator[Finding]:
    """The median and the slowest of some renewals, as a worker's heartbeat makes them."""
    if schema._version(probe) != _core.latest_schema_version():
        yield note("heartbeat", "not measured: that needs the latest schema")
        return
    session = uuid.uuid4()
    # As the heartbeat's own connection does, whatever the role begins with.
    probe.write()
    probe.tell("session_start", session, "bmdb doctor", "measures its heartbeat", INTERVAL)
    try:
        seconds = sorted(_beat(probe, session) for _ in range(BEATS))
    finally:
        if probe.alive:
            probe.tell("session_end", session, "bmdb doctor")
    median = statistics.median(seconds)
    late = seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))]
    text = (
        f"{BEATS} heartbeats took {median * 1000:.1f} ms each (median), {late * 1000:.1f} ms at most (99th percentile)"
    )
    facts = {"beats": BEATS, "p50_seconds": round(median, 6), "p99_seconds": round(late, 6)}
    advice = "see to the network and the server's disk, or start sessions with a longer interval"
    if late > TOO_SLOW:
        yield problem("heartbeat", f"{text}: sessions of the default 5 s will be lost", advice, **facts)
    elif late > SLOW:
        yield warning("heartbeat", text, advice, **facts)
    else:
        yield ok("heartbeat", text, **facts)


def _beat(probe: Probe, session: uuid.UUID) -> float:
    begun = time.monotonic()
    probe.tell("session_renew", [session])
    return time.monotonic() - begun
