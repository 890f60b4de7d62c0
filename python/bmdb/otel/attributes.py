"""Names of attributes: OpenTelemetry's semantic conventions for databases, and bmdb's own."""

from __future__ import annotations

from typing import Any

from bmdb import conninfo as _conninfo
from bmdb.errors import (
    AmbiguousCommitError,
    Error,
    LeaseLostError,
    NothingToDo,
    RetriesExhaustedError,
    SessionExpiredError,
    WorkConflictError,
)

DB_SYSTEM = "db.system.name"
DB_NAMESPACE = "db.namespace"
DB_OPERATION = "db.operation.name"
DB_BATCH = "db.operation.batch.size"
DB_STATUS = "db.response.status_code"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

OUTCOME = "bmdb.outcome"
ATTEMPTS = "bmdb.attempts"
ATTEMPT = "bmdb.attempt"
ISOLATION = "bmdb.isolation"
SESSION = "bmdb.session"
COMPONENT = "bmdb.component"
PROCESS = "bmdb.process"
MACHINE = "bmdb.machine"
TOKEN = "bmdb.token"  # noqa: S105 - of a lease
LINK = "bmdb.link"

# No errors: there was nothing to do, or others did it.
_IN_VAIN = {NothingToDo: "nothing", WorkConflictError: "conflict"}
_OUTCOMES: dict[type[Exception], str] = {
    SessionExpiredError: "lost",
    LeaseLostError: "lost",
    RetriesExhaustedError: "exhausted",
    AmbiguousCommitError: "unknown",
}
# How far a chain of exceptions is followed.
_DEEPEST = 16


def of_server(connection: Any) -> dict[str, Any]:
    """What is known of the connection's server and database."""
    keywords = _conninfo.resolve(connection.conninfo)
    banner = connection._core.banner or ""
    known: dict[str, Any] = {
        DB_SYSTEM: "cockroachdb" if "CockroachDB" in banner else "postgresql",
        DB_NAMESPACE: keywords.get("dbname") or keywords["user"],
        COMPONENT: connection._core.component,
    }
    host = keywords.get("host") or keywords.get("hostaddr") or ""
    # Of several it may be any.
    if host and "," not in host:
        known[SERVER_ADDRESS] = host
        port = keywords.get("port", "5432")
        if port.isdigit() and port != "5432":
            known[SERVER_PORT] = int(port)
    return known


def sqlstate_of(error: BaseException | None) -> str | None:
    """The SQLSTATE in the chain of the exception, bmdb's or psycopg's."""
    for _ in range(_DEEPEST):
        if error is None:
            return None
        found = getattr(error, "sqlstate", None)
        if isinstance(found, str) and found:
            return found
        error = error.__cause__ or error.__context__
    return None


def outcome_of(error: BaseException) -> tuple[str, bool]:
    """What the exception says of how something ended, and whether that is an error."""
    for kind, outcome in _IN_VAIN.items():
        if isinstance(error, kind):
            return outcome, False
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome, True
    return "failed", True


def type_of(error: BaseException) -> str:
    """What the conventions have as the error's type: a SQLSTATE, or the exception's class."""
    found = sqlstate_of(error)
    if found is not None:
        return found
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def description_of(error: BaseException) -> str | None:
    """What may be told of it to whoever reads traces: bmdb's own words. Those of others may hold anything."""
    return str(error) if isinstance(error, Error) else None
