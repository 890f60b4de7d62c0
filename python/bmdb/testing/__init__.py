"""A kit for testing workers: real databases that are cheap, faults that are real, and assertions about leases.

As fixtures of pytest with nothing to set up (see docs/testing.md), or by hand:

    with Server() as server, server.database() as conninfo, Fleet(conninfo) as fleet, Clock(conninfo) as clock:
        ...
"""

from bmdb.testing.child import Child
from bmdb.testing.clock import Clock
from bmdb.testing.faults import Faults, hold_gil
from bmdb.testing.fleet import Fleet
from bmdb.testing.proxy import Proxy
from bmdb.testing.repeatable import assert_async_callback_is_repeatable, assert_callback_is_repeatable
from bmdb.testing.server import Server
from bmdb.testing.waiting import eventually
from bmdb.testing.writes import assert_no_zombie_writes

__all__ = [
    "Child",
    "Clock",
    "Faults",
    "Fleet",
    "Proxy",
    "Server",
    "assert_async_callback_is_repeatable",
    "assert_callback_is_repeatable",
    "assert_no_zombie_writes",
    "eventually",
    "hold_gil",
]
