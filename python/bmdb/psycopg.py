"""bmdb's retry executor for psycopg connections, with or without a session.

`run_transaction` is the executor alone. With a session there is `session.transact(fn, connection=…)`, whose callback
gets a `PsycopgQueries` or `AsyncPsycopgQueries`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

import psycopg

from bmdb._async import foreign as _async
from bmdb._async.foreign import AsyncPsycopgQueries
from bmdb._sync import foreign as _sync
from bmdb._sync.foreign import PsycopgQueries

__all__ = ["AsyncPsycopgQueries", "PsycopgQueries", "run_transaction"]

T = TypeVar("T")
SyncT = TypeVar("SyncT", bound=psycopg.Connection[Any])
AsyncT = TypeVar("AsyncT", bound=psycopg.AsyncConnection[Any])


@overload
def run_transaction(
    conn: SyncT, fn: Callable[[SyncT], T], *, isolation: str = "serializable", max_retries: int = 50
) -> T: ...


@overload
def run_transaction(
    conn: AsyncT, fn: Callable[[AsyncT], Awaitable[T]], *, isolation: str = "serializable", max_retries: int = 50
) -> Coroutine[Any, Any, T]: ...


def run_transaction(
    conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    fn: Callable[[Any], Any],
    *,
    isolation: str = "serializable",
    max_retries: int = 50,
) -> Any:
    """Runs `fn(conn)` in a transaction until it is committed, and returns what its last run returned.

    With an AsyncConnection it has to be awaited. `conn` must be idle, and is given back as it was found. `fn` runs
    again after a conflict with another transaction (SQLSTATE 40001, 40P01), up to `max_retries` times, none of them
    begun after 60 s, with waits of random length in between; so it must have no effect outside the database. On
    CockroachDB it is run again by that server's protocol (SAVEPOINT cockroach_restart), on PostgreSQL in a new
    transaction. Its own exception rolls back and surfaces unchanged, unless a retryable database error is in the
    exception's chain. An error that it swallowed, and that aborted the transaction, counts as if it had surfaced.
    To end the transaction is not the callback's to do. One that sent COMMIT or ROLLBACK itself gets
    AmbiguousCommitError; if it also began another transaction, nothing here tells the two apart: no error is raised.

    Raises RetriesExhaustedError; AmbiguousCommitError when the connection broke in COMMIT, whose outcome nobody can
    ask for here; DatabaseError for an error that `fn` swallowed, or of COMMIT; ConnectionFailedError when the
    connection broke before COMMIT (nothing is committed, and it cannot be replaced here); TransactionRestartError when
    CockroachDB cannot go back to the savepoint; WorkStateError for a connection in a transaction; ConfigError for a
    closed one; TypeError for what is no psycopg connection.
    """
    if isinstance(conn, psycopg.AsyncConnection):
        return _async.alone(conn, fn, isolation, max_retries)
    return _sync.alone(conn, fn, isolation, max_retries)
