"""A proxy that understands the PostgreSQL protocol, for tests of what the network and the server can do.

    with Proxy(host, port) as proxy, proxy.cutting_after_commit() as cut:
        ...  # work on proxy.conninfo(dsn)
        assert cut.hits == 1

Rules (cutting, holding, injecting) strike at single statements, modes (swallowing, freezing, delaying) last for all
traffic of the selected connections. See `Proxy` for the switches.
"""

from bmdb.testing.proxy.framing import FramingError
from bmdb.testing.proxy.proxy import Proxy
from bmdb.testing.proxy.rules import ConnectionRecord, CutRule, ErrorRule, HoldRule, Rule
from bmdb.testing.proxy.statements import Statement

__all__ = ["ConnectionRecord", "CutRule", "ErrorRule", "FramingError", "HoldRule", "Proxy", "Rule", "Statement"]
