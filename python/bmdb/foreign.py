"""psycopg's values and errors in bmdb's terms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.types.datetime import TimestamptzLoader

from bmdb import _core
from bmdb.errors import (
    AmbiguousCommitError,
    ConfigError,
    ConnectionFailedError,
    DatabaseError,
    LeaseLostError,
    MigrationError,
    SessionExpiredError,
    WorkStateError,
)

UNDEFINED_TABLE = "42P01"
IN_FAILED_TRANSACTION = "25P02"
# A statement prepared before a table changed, or one that somebody deallocated: run again it is prepared anew.
INVALID_STATEMENT_NAME = "26000"
REVALIDATION = "RevalidateCachedQuery"


class _Utc(TimestamptzLoader):
    """Whatever the connection's time zone is, times come in UTC."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


class _Json(Dumper):
    """A dict of untold type, so that the server takes it for json or jsonb as the place wants."""

    def dump(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()


def _adapters() -> AdaptersMap:
    """Apart from what the user has registered on the connection: bmdb's statements mean the same on every one."""
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(dict, _Json)
    adapters.register_loader("timestamptz", _Utc)
    return adapters


ADAPTERS = _adapters()

# What bmdb sets on a connection: isolation level, read only.
FOUND = tuple[psycopg.IsolationLevel | None, bool | None]


def adapted(params: Sequence[object]) -> tuple[object, ...]:
    """Parameters as psycopg takes them: of an enum's member, the value."""
    return tuple(param.value if isinstance(param, Enum) else param for param in params)


def failure_of(error: psycopg.Error, broken: bool) -> str:
    """What an error means for its transaction, in the retry machine's words."""
    if error.sqlstate is None:
        return "disconnected" if broken else "permanent"
    if error.sqlstate == INVALID_STATEMENT_NAME or error.diag.source_function == REVALIDATION:
        return "retryable"
    failure = _core.classify_sqlstate(error.sqlstate, error.diag.severity_nonlocalized in ("FATAL", "PANIC"))
    # A protocol violation in a statement's parameters is of the class that tells of broken connections.
    return "permanent" if failure == "disconnected" and not broken else failure


def translated(error: psycopg.Error, broken: bool, *, own: bool = False) -> Exception:
    """The exception that bmdb's own driver would have raised. `own`: in one of bmdb's own statements."""
    text = str(error)
    if broken:
        return ConnectionFailedError(text)
    if error.sqlstate is None:
        # Not from the server: it never got there.
        if isinstance(error, psycopg.DataError):
            return ValueError(text)
        return TypeError(text) if isinstance(error, psycopg.ProgrammingError) else ConnectionFailedError(text)
    diag = error.diag
    message = diag.message_primary or text
    if own and error.sqlstate == UNDEFINED_TABLE:
        return MigrationError(_core.missing_schema(message))
    return DatabaseError(
        message,
        error.sqlstate,
        constraint=diag.constraint_name,
        detail=diag.message_detail,
        hint=diag.message_hint,
        table=diag.table_name,
    )


def aborted() -> DatabaseError:
    """For a transaction that an unseen error has aborted."""
    return DatabaseError("an error that the callback swallowed had aborted the transaction", IN_FAILED_TRANSACTION)


def check_same(ours: tuple[int, str], theirs: tuple[int, str]) -> None:
    """Refuses a connection to another database than the session's. Raises ConfigError."""
    if ours == theirs:
        return
    where = f"database {theirs[1]!r}" if ours[0] == theirs[0] else f"database {theirs[1]!r} of another server"
    raise ConfigError(f"the connection leads to {where}, and the session lives in {ours[1]!r}: nothing would fence it")


def exhausted(attempts: int, last: BaseException | None) -> str:
    """The text of a RetriesExhaustedError."""
    return f"gave up after {attempts} attempts" + (f": {last}" if last is not None else "")


def told(committed: bool | None) -> str:
    """What to note on an interrupt that came in COMMIT."""
    if committed is None:
        return "whether the transaction being committed is committed is not known"
    return f"the transaction being committed is {'committed' if committed else 'rolled back'}"


def outcome(error: BaseException) -> tuple[str, bool]:
    """How a transaction ended that raised this, and whether because its session or its lease is gone."""
    if isinstance(error, AmbiguousCommitError):
        return "unknown", False
    committed = getattr(error, "committed", False)
    if committed:
        return "committed", False
    return ("unknown" if committed is None else "failed"), isinstance(error, LeaseLostError | SessionExpiredError)


class Identity(NamedTuple):
    """Which database a connection leads to, and what gives its transactions' ids a meaning."""

    database: tuple[int, str]
    timeline: int | None
    incarnation: int | None
    # Another backend than the one that was promised: a pooler stands in between, and may take another each time.
    behind: bool


def identity_of(database: tuple[Any, ...], server: tuple[Any, ...], promised: int) -> Identity:
    """From the rows of `server/database.sql` and `server/identity.sql`, and the backend promised at log-in."""
    name, system = database
    incarnation, pid, _, _, _, timeline = server
    return Identity((system, name), timeline_of(timeline), incarnation, promised not in (0, pid))


def timeline_of(text: str | None) -> int | None:
    """A WAL timeline, as a server that is no standby tells it."""
    return None if text is None else int(text, 16)


def check_names_nothing(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Refuses a connection through a pooler that would prepare statements by name. Raises ConfigError."""
    if connection.prepare_threshold is not None:
        raise ConfigError(
            "the psycopg connection goes through a pooler, and prepares statements, which stay with a backend that it"
            " may not get again: open it with prepare_threshold=None"
        )


def level_of(isolation: str) -> psycopg.IsolationLevel:
    """psycopg's name for an isolation level of the core's."""
    return psycopg.IsolationLevel[isolation.replace(" ", "_").upper()]


def is_doubt(notice: psycopg.errors.Diagnostic) -> bool:
    """Whether a notice says that a commit has not reached its synchronous standby."""
    return notice.sqlstate == "01000" and notice.source_function == "SyncRepWaitForLSN"


def check_kind(connection: object, *, asynchronous: bool) -> None:
    """Refuses what is no psycopg connection, or one of the other kind. Raises TypeError."""
    wanted, other = psycopg.Connection, psycopg.AsyncConnection
    if isinstance(connection, other if asynchronous else wanted):
        return
    if isinstance(connection, wanted):
        raise TypeError("connection is a sync psycopg.Connection: open a psycopg.AsyncConnection for the async API")
    if isinstance(connection, other):
        raise TypeError("connection is a psycopg.AsyncConnection: use bmdb's Async classes with it")
    name = f"psycopg.{'Async' if asynchronous else ''}Connection"
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(f"connection must be a {name}, not {kind}")


def check_usable(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Refuses a connection that cannot begin a transaction.

    Raises ConfigError for one that is closed, ConnectionFailedError for one that broke, WorkStateError for one that is
    in a transaction, in a pipeline, or in use.
    """
    if connection.broken:
        raise ConnectionFailedError("the psycopg connection is broken, and bmdb cannot replace it: open a new one")
    if connection.closed:
        raise ConfigError("the psycopg connection is closed: open a new one")
    status = connection.info.transaction_status
    if status is not psycopg.pq.TransactionStatus.IDLE:
        raise WorkStateError(
            f"the psycopg connection is in a transaction already ({status.name}): commit or roll it back first,"
            " so that the transaction here is begun, and ended, as a whole"
        )
    if connection.info.pipeline_status is not psycopg.pq.PipelineStatus.OFF:
        raise WorkStateError("the psycopg connection is in pipeline mode: leave it first")
