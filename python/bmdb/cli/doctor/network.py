"""What lies between here and the server: which server it is, hosts, encryption, poolers, clocks, room for more."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bmdb.cli.doctor.finding import Finding, note, ok, problem, warning
from bmdb.cli.doctor.probe import Probe

OLDEST = 15  # PostgreSQL
SLOW_CONNECT = 1.0  # seconds
TRANSACTIONS = 5
# A difference of clocks breaks nothing: leases go by the database's alone. It misleads whoever compares logs.
CLOCK_NOTE = timedelta(seconds=1)
CLOCK_WARNING = timedelta(seconds=60)
# Of all connections that this role may have: what is left over for workers that start.
SCARCE = 0.1


def server(probe: Probe) -> Iterator[Finding]:
    """Which server answered, and how soon."""
    (row,) = probe.ask("doctor_standing")
    place = probe.info.host or row.address or "?"
    text = (
        f"PostgreSQL {row.version} at {place}:{probe.info.port}, database {row.database}, as {row.role},"
        f" after {probe.connect_seconds * 1000:.0f} ms"
    )
    facts = {
        "version": row.version,
        "host": place,
        "port": probe.info.port,
        "database": row.database,
        "role": row.role,
        "seconds": round(probe.connect_seconds, 4),
    }
    if row.number < OLDEST * 10_000:
        yield problem("connection", text, f"upgrade the server: bmdb needs PostgreSQL {OLDEST} or newer", **facts)
    elif row.encoding not in ("UTF8", "SQL_ASCII"):
        advice = "make a database with ENCODING 'UTF8': causes and names may hold any sign"
        yield problem("connection", f"{text}; its encoding is {row.encoding}", advice, **facts, encoding=row.encoding)
    elif probe.connect_seconds > SLOW_CONNECT:
        advice = (
            "see what takes so long (names, TLS, authentication): every connection that a worker opens waits for it"
        )
        yield warning("connection", text, advice, **facts)
    else:
        yield ok("connection", text, **facts)


def hosts(probe: Probe) -> Iterator[Finding]:
    """Whether this server takes writes, and whether a connection string with several hosts finds the one that does."""
    (row,) = probe.ask("doctor_standing")
    given = [host for host in (probe.keywords.get("host") or "").split(",") if host]
    attributes = probe.keywords.get("target_session_attrs", "any")
    facts = {"hosts": given, "target_session_attrs": attributes, "standby": row.standby}
    if row.standby:
        advice = "name the primary; with several hosts, add target_session_attrs=read-write"
        yield problem("hosts", "this server is a standby: nothing can be leased here", advice, **facts)
    elif len(given) > 1 and attributes not in ("read-write", "primary"):
        text = f"{len(given)} hosts are given and any of them will do: after a failover workers may end at a standby"
        yield warning("hosts", text, "add target_session_attrs=read-write to the connection string", **facts)
    elif len(given) > 1:
        yield ok("hosts", f"{len(given)} hosts are given, and the one that takes writes is chosen", **facts)
    else:
        yield ok("hosts", "one host is given, and it takes writes", **facts)


def tls(probe: Probe) -> Iterator[Finding]:
    """Whether others can read along, or pretend to be the server."""
    host, mode = probe.info.host, probe.keywords.get("sslmode") or "prefer"
    rows = probe.ask("doctor_tls")
    by = f" by {rows[0].version}, {rows[0].cipher}" if rows and rows[0].ssl else ""
    facts = {"encrypted": probe.encrypted, "sslmode": mode, "version": rows[0].version if rows else None}
    if host.startswith(("/", "@")):
        yield ok("tls", "a Unix socket: nothing leaves this machine", **facts)
    elif not probe.encrypted and _loopback(probe):
        yield ok("tls", "not encrypted, but on this machine's loopback only", **facts)
    elif not probe.encrypted:
        advice = "turn on ssl at the server, and say sslmode=verify-full sslrootcert=FILE here"
        yield warning("tls", f"not encrypted (sslmode={mode}): others can read and change what passes", advice, **facts)
    elif mode == "verify-full":
        yield ok("tls", f"encrypted{by}, and the server is who it says", **facts)
    elif mode == "verify-ca" or (mode == "require" and probe.keywords.get("sslrootcert")):
        text = f"encrypted{by}; the certificate is verified, but not that it is this host's"
        yield note("tls", text, "say sslmode=verify-full", **facts)
    else:
        text = f"encrypted{by}, but nothing tells this server from another that pretends (sslmode={mode})"
        yield warning("tls", text, "say sslmode=verify-full sslrootcert=FILE", **facts)


def pooler(probe: Probe) -> Iterator[Finding]:
    """Whether each transaction is served by the backend that the server promised: a pooler has others at hand."""
    pids = [probe.ask("doctor_backend")[0].pid for _ in range(TRANSACTIONS)]
    promised = probe.info.backend_pid
    facts = {"backends": pids, "promised": promised}
    if len(set(pids)) > 1:
        text = f"{len(set(pids))} backends served {TRANSACTIONS} transactions of one connection: a transaction pooler"
        advice = "pass pooler=True to connect(), or connect to the server itself, which also passes hints on"
        yield warning("pooler", text, advice, **facts)
    elif promised not in pids:
        text = "the backend is not the one that was promised: a pooler or a proxy stands in between"
        advice = "pass pooler=True to connect() where it may be a transaction pooler; hints pass through none"
        yield warning("pooler", text, advice, **facts)
    else:
        yield ok("pooler", "no pooler in between: the same backend served every transaction", **facts)


def clock(probe: Probe) -> Iterator[Finding]:
    """How far the clocks here and there are apart, at the middle of the quickest of a few round trips."""
    offset, trip = min((_compared(probe) for _ in range(TRANSACTIONS)), key=lambda pair: pair[1])
    apart = abs(offset)
    ahead = "ahead of" if offset > timedelta() else "behind"
    text = f"the server's clock is {_seconds(apart)} {ahead} this machine's, give or take {_seconds(trip / 2)}"
    facts = {"offset_seconds": offset.total_seconds(), "round_trip_seconds": trip.total_seconds()}
    advice = "set both by NTP: leases go by the server's clock alone, but logs cannot be compared"
    if apart - trip / 2 > CLOCK_WARNING:
        yield warning("clock", text, advice, **facts)
    elif apart - trip / 2 > CLOCK_NOTE:
        yield note("clock", text, advice, **facts)
    else:
        yield ok("clock", text, **facts)


def _compared(probe: Probe) -> tuple[timedelta, timedelta]:
    before = datetime.now(UTC)
    (row,) = probe.tell("doctor_clock")
    after = datetime.now(UTC)
    return row.moment - (before + (after - before) / 2), after - before


def headroom(probe: Probe) -> Iterator[Finding]:
    """How many connections are left for workers."""
    (row,) = probe.ask("doctor_connections")
    found = probe.settings("max_connections", "superuser_reserved_connections", "reserved_connections")
    reserved = int(found.get("superuser_reserved_connections", 0)) + int(found.get("reserved_connections", 0))
    room = [("the server's max_connections", row.used, int(found["max_connections"]) - reserved)]
    if row.role_limit is not None and row.role_limit >= 0:
        room.append(("this role's limit", row.by_role, row.role_limit))
    if row.database_limit is not None and row.database_limit >= 0:
        room.append(("this database's limit", row.by_database, row.database_limit))
    whose, used, most = min(room, key=lambda each: each[2] - each[1])
    text = f"{used} of {most} connections are used, by {whose}"
    facts = {"used": used, "most": most, "limit": whose}
    if most - used <= SCARCE * most:
        advice = "raise it, or lower pool_size: each worker needs up to pool_size, and a few for heartbeats and hints"
        yield warning("connections", text, advice, **facts)
    else:
        yield ok("connections", text, **facts)


def _loopback(probe: Probe) -> bool:
    try:
        return ipaddress.ip_address(probe.info.hostaddr).is_loopback
    except ValueError:
        return False


def _seconds(length: timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
