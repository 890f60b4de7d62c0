"""The exceptions of bmdb. Catch `Error` for all of them; `NothingToDo`, `Retry` and `Cancel` are control flow."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Protocol


class Server(Protocol):
    """Whoever can say how a transaction ended."""

    def transaction_outcome(self, doubt: Any, timeout: float) -> bool | None: ...

    def transaction_outcome_async(self, doubt: Any, timeout: float) -> Awaitable[bool | None]: ...


class Error(Exception):
    """Anything that bmdb raises on purpose, other than TypeError and ValueError for arguments that make no sense."""


class ConfigError(Error):
    """The settings cannot be used: a bad conninfo, a closed connection, one inherited through fork."""


class ConnectionFailedError(Error):
    """No connection could be had, or the one in use broke before anything was committed."""


class DatabaseError(Error):
    """The server answered with an error.

    Attributes: `sqlstate` (five characters), `constraint`, `detail`, `hint` and `table` (each a str or None).
    """

    def __init__(
        self,
        message: str,
        sqlstate: str = "",
        *,
        constraint: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
        table: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.detail = detail
        self.hint = hint
        self.table = table

    def __reduce__(self) -> tuple[object, ...]:
        state = {key: getattr(self, key) for key in ("constraint", "detail", "hint", "table")}
        return (type(self), (str(self), self.sqlstate), state)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MigrationError(Error):
    """The schema is missing, newer than this library, or a migration failed."""


class SessionExpiredError(Error):
    """The session is gone, so nothing it writes lands any more. Start a new session."""


class WorkConflictError(Error):
    """Every machine that was offered is taken.

    Each is being worked on under this process, or under one that excludes it or that it excludes, or is in quarantine.
    """


class WorkStateError(Error):
    """Used out of turn: work that has ended, a transaction outside its callback, a nested transact."""


class LeaseLostError(Error):
    """The lease is gone, so somebody else may hold the machine. Nothing was written."""


class RetriesExhaustedError(Error):
    """The callback met a retryable error as often, or for as long, as allowed.

    Attribute: `attempts`, how often it ran. `__cause__` is the error of the last attempt.
    """

    def __init__(self, message: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.attempts = attempts

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.attempts))

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AlreadyCommittedError(Error):
    """A transaction with this idempotency key has been committed by an earlier call: the callback was not run."""


class TransactionRestartError(Error):
    """Rolling back to the restart savepoint failed (CockroachDB). `__cause__` is why a restart was wanted."""


class AmbiguousCommitError(Error):
    """COMMIT was sent and its answer was lost: the transaction is committed, or it is not.

    `xid`, `timeline` and `incarnation` name the transaction to the server that ran it (each None where there is no such
    thing): its id, the log on which the id means something, and when the server last recovered from a crash, since when
    it may have given the id to another transaction.
    """

    def __init__(
        self,
        message: str,
        xid: int | None = None,
        timeline: int | None = None,
        incarnation: int | None = None,
    ) -> None:
        super().__init__(message)
        self.xid = xid
        self.timeline = timeline
        self.incarnation = incarnation
        self._server: Server | None = None
        self._doubt: object = None

    def resolve(self, timeout: float = 30.0) -> bool:
        """Asks the server how the transaction ended: True committed, False aborted.

        Waits up to `timeout` seconds for a server that is unreachable or still at it, then raises TimeoutError. What
        leases or ends a machine, and what has an idempotency key, leaves a trace that every server tells by; of any
        other transaction nobody can tell after a failover or a crash, or on CockroachDB: then it is raised too.
        """
        if self._server is None:
            raise WorkStateError("this error came from no open connection here, so there is nobody to ask")
        return self._told(self._server.transaction_outcome(self._doubt, timeout), timeout)

    async def aresolve(self, timeout: float = 30.0) -> bool:
        """The same for the event loop of the AsyncConnection that the error came from."""
        if self._server is None:
            raise WorkStateError("this error came from no open connection here, so there is nobody to ask")
        return self._told(await self._server.transaction_outcome_async(self._doubt, timeout), timeout)

    @property
    def _id(self) -> tuple[int | None, int | None, int | None]:
        return self.xid, self.timeline, self.incarnation

    def _ask(self, server: Server) -> None:
        """Names whom to ask; the first one stands."""
        self._server = self._server or server

    @staticmethod
    def _told(outcome: bool | None, timeout: float) -> bool:
        if outcome is None:
            raise TimeoutError(f"the outcome of the transaction could not be found out within {timeout:g} s")
        return outcome

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), *self._id))

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NothingToDo(Exception):
    """Raised by a retrieval function, or by `work()` for it, when no machine needs the process now."""


# Seconds. The database's times end somewhere, and a typing error is nearer than that.
_LONGEST_RETRY = 100 * 366 * 86_400


class Retry(Exception):
    """Raised by the function of a loop: this time, try the machine again after exactly `after`.

    Attributes: `cause` and `after`, in seconds or None. `cause` is kept as the failure's cause. `after`: seconds or a
    timedelta, in whole seconds rounded up, one at least; by default the work's backoff. The period counts as the
    previous one of the next failure.

    Raises TypeError for what is neither, ValueError for less than nothing or more than a hundred years.
    """

    def __init__(self, cause: str = "to be tried again", *, after: float | timedelta | None = None) -> None:
        super().__init__(cause)
        if not isinstance(cause, str):
            raise TypeError(f"cause must be a str, not {type(cause).__name__}; seconds go into after=")
        seconds: Any = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and (not isinstance(seconds, int | float) or isinstance(seconds, bool)):
            raise TypeError(f"after must be seconds or a timedelta, not {type(after).__name__}")
        if seconds is not None and not 0 <= seconds <= _LONGEST_RETRY:
            raise ValueError(f"after must be from 0 to {_LONGEST_RETRY} seconds (a hundred years), not {seconds:g}")
        self.cause = cause
        self.after = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.cause,), {"after": self.after})


class Cancel(Exception):
    """Raised by the function of a loop: give the machine back as if the work had not begun.

    Its text is logged. Nothing keeps the machine from being leased again at once.
    """
