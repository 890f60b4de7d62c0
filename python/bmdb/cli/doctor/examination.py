"""The course of the examination: everything is looked at, whatever became of what was looked at before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from bmdb import conninfo as _conninfo
from bmdb.cli.doctor import durability, network, pulse, role, schema, tables
from bmdb.cli.doctor.finding import Finding, note, problem
from bmdb.cli.doctor.probe import Probe

__all__ = ["examine"]

Check = Callable[[Probe], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("connection", network.server),
    ("hosts", network.hosts),
    ("tls", network.tls),
    ("pooler", network.pooler),
    ("clock", network.clock),
    ("connections", network.headroom),
    ("role", role.standing),
    ("privileges", role.privileges),
    ("isolation", role.isolation),
    ("timeouts", role.timeouts),
    ("durability", durability.storage),
    ("replication", durability.replication),
    ("schema", schema.version),
    ("indexes", schema.indexes),
    ("triggers", schema.triggers),
    ("vacuum", tables.vacuum),
    ("old transactions", tables.horizon),
    ("heartbeat", pulse.heartbeat),
)


# What a worker has to be able to do itself.
_NEEDED = frozenset({"schema", "heartbeat"})


def examine(conninfo: str | None) -> Iterator[Finding]:
    """Looks at the database and yields what it finds, one after the other.

    Nothing is changed, but that a session of its own lives for a moment. Raises ConfigError for a connection string
    that cannot be used, ConnectionFailedError for an embedded server that does not start.
    """
    with _reached(_conninfo.given(conninfo)) as told:
        try:
            probe = Probe(_conninfo.resolve(told))
        except psycopg.Error as error:
            text = f"no connection: {_words(error)}"
            yield problem("connection", text, "see whether the server runs there, and lets this role in from here")
            return
        try:
            if probe.info.parameter_status("crdb_version") is not None:
                text = "this is CockroachDB, and what is examined here is PostgreSQL's"
                yield problem("server", text, "see docs/cockroachdb.md for what it has to have, and its own DB Console")
                return
            yield from _examined(probe)
        finally:
            probe.close()


def _examined(probe: Probe) -> Iterator[Finding]:
    for name, check in CHECKS:
        try:
            yield from check(probe)
        except psycopg.Error as error:
            if not probe.alive:
                text = f"the connection broke: {_words(error)}"
                yield problem("connection", text, "see the server's log, and run this again")
                return
            tell = problem if name in _NEEDED else note
            yield tell(name, f"cannot be told: {_words(error)}", _advice(name, error), sqlstate=error.sqlstate)


@contextmanager
def _reached(conninfo: str) -> Iterator[str]:
    """How a server is reached; one of our own runs meanwhile."""
    if not _conninfo.is_embedded(conninfo):
        yield conninfo
        return
    from bmdb import embedded

    with embedded.start(_conninfo.embedded_path(conninfo)) as server:
        yield server.conninfo


def _words(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__


def _advice(name: str, error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        if name in _NEEDED:
            return "a worker needs it, too: see the findings on privileges for what to GRANT"
        return "run this with a role that may look there, such as a member of pg_monitor"
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "run this again when the database has less to do"
    return "see the server's log"
