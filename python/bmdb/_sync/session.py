# Generated from python/bmdb/_async/session.py by tools/generate_sync.py: do not edit.
"""A session: what a component does in the database, for as long as its heartbeat keeps it alive."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload
from uuid import UUID

from bmdb import _core, logs, tracing
from bmdb._core import Change, Eligibility, Nesting
from bmdb._sync.foreign import PsycopgQueries, foreign
from bmdb._sync.queries import Queries
from bmdb._sync.transaction import run
from bmdb._sync.work import Work
from bmdb.callbacks import check_callback, offered
from bmdb.durations import positive_seconds
from bmdb.eligibility import lease_limit
from bmdb.errors import AmbiguousCommitError, Error, NothingToDo, WorkConflictError, WorkStateError
from bmdb.identity import Unique
from bmdb.process import Process, eligibility_of, name_of
from bmdb.tracing import Step

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Engine as SaEngine

    from bmdb._sync.connection import Connection
    from bmdb._sync.engine import OrmQueries

T = TypeVar("T")

_LOGGER = logs.logger("bmdb.session")


class Session(Unique):
    """A row in the database that a thread of the core renews, without Python, until it is closed or lost.

    While it lives its owner may work; once it is lost every call raises SessionExpiredError and a new session has to
    be started. A context manager: leaving it closes it. May be shared by threads or tasks.
    """

    __slots__ = ("__weakref__", "_connection", "_core")

    def __init__(self, connection: Connection, core: _core.Session) -> None:
        self._connection = connection
        self._core = core

    @property
    def uuid(self) -> UUID:
        """The session's id, fresh for each session."""
        return self._core.uuid

    @property
    def interval(self) -> float:
        """Seconds that one renewal lasts in the database: whole, as given to `start_session` or rounded up."""
        return self._core.interval

    @property
    def expired(self) -> bool:
        """True once the session is lost or closed; never False again."""
        return self._core.expired

    @property
    def trusted_for(self) -> float:
        """Seconds for which the session is valid even if no renewal succeeds any more; 0.0 once expired.

        Trust ends a fifth of the interval before the database lets anybody else have the session's machines.
        """
        return self._core.trusted_for

    @property
    def connection(self) -> Connection:
        """The connection that the session was started on."""
        return self._connection

    def wait_expired(self, timeout: float | None = None) -> bool:
        """Waits until the session is lost or closed, for `timeout` seconds at most; returns whether it is."""
        return self._core.wait_expired(timeout)

    def on_expired(self, callback: Callable[[Session], object]) -> None:
        """Calls `callback` with this session, once, when it is lost; not when it is closed.

        It runs soon after the loss, on a thread of bmdb's (for an Session: on the event loop that registered it),
        never inside a transaction. What it raises is logged.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")

        def tell() -> None:
            callback(self)

        self._connection._listener.on_lost(str(self.uuid), tell, lambda: self._core.lost)

    @overload
    def transact(
        self,
        fn: Callable[[Queries], T],
        *,
        connection: None = None,
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    @overload
    def transact(
        self,
        fn: Callable[[PsycopgQueries], T],
        *,
        connection: psycopg.Connection[Any],
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    @overload
    def transact(
        self,
        fn: Callable[[OrmQueries], T],
        *,
        connection: None = None,
        engine: SaEngine,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    def transact(
        self,
        fn: Callable[[Any], Any],
        *,
        connection: psycopg.Connection[Any] | None = None,
        engine: SaEngine | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Runs `fn` in a transaction that lands only while this session lives, and returns what it returned.

        `fn` gets the transaction's queries; under asyncio it may be an `def` or a plain function. It may run many
        times (after a conflict with another transaction, or when the connection breaks before COMMIT), so it must have
        no effect outside the database. What it raises rolls the transaction back and surfaces unchanged, unless it is,
        or was caused by, a retryable database error. It runs in the caller's context: it sees its context variables,
        and what it sets stays set.

        `isolation`: "serializable", "repeatable read" or "read committed"; by default the connection's. `max_retries`
        bounds the runs after the first; after 60 s none is begun either.

        `connection`: a psycopg connection of yours, idle, to the same database, on which the transaction then runs;
        `q.connection` is that connection. It is given back as it was found. bmdb cannot replace it: once it breaks
        before COMMIT, ConnectionFailedError is raised instead of another run, and nothing is committed.

        `engine`: an SQLAlchemy engine (postgresql+psycopg) to the same database, which lends a connection; `q.orm` is
        an ORM session in the same transaction, flushed before COMMIT.

        `idempotency_key` names the transaction, in 1 to 512 bytes, and is written with it, for a week at least: it is
        committed once only, whoever calls, in this process or another one. A lost COMMIT is then settled and, if it
        came to nothing, the transaction is run again; what the run returned that was committed is returned. Where an
        earlier call has committed it `fn` is not run, and AlreadyCommittedError is raised, as what that returned is not
        kept. Two calls with one key at once wait for one another.

        Raises SessionExpiredError (nothing is written), RetriesExhaustedError, AmbiguousCommitError (ask its
        `resolve()`), DatabaseError when a statement's error was swallowed by `fn`, ConnectionFailedError when no
        connection can be had, WorkStateError when called inside another transaction's callback, TypeError for a
        callback that cannot be run. A CancelledError or KeyboardInterrupt surfaces once the outcome is known; after one
        amid COMMIT its attribute `committed` is True, False, or None when that cannot be known.
        """
        check_callback(fn, asynchronous=False)
        core = self._connection._core
        step = None if tracing.observer is None else tracing.observer.step("transact", self)
        if connection is None and engine is None:
            return run(core, core.transaction(self._core, isolation, max_retries, idempotency_key), fn, step=step)
        tx = foreign(core.foreign(self._core, isolation, max_retries, idempotency_key), core, connection, engine)
        return run(core, tx, fn, tx.queries, step)

    def work(
        self,
        process: str | Process,
        retrieve: Callable[[Queries], Any] | Eligibility | None = None,
        *,
        max_hold: float | timedelta | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> Work:
        """Leases a machine that needs `process`: a `Process`, which is registered the first time, or just its name.

        Which machines do is declared by `bmdb.eligible(…)`, as the `Process`'s or in place of `retrieve`. The core then
        claims by itself, at "read committed": calls that come while a claim is under way are served by the next one
        together, and a call that is alone goes out at once. `isolation` and `max_retries` are for callbacks only.

        Or `retrieve` says it, a callback. It gets the queries of a transaction and returns machine ids, or rows that
        have a `machine_id`. The first of them is leased that nobody holds under this process, or under one that
        excludes it or that it excludes, and that is not in quarantine. It may run many times and should only read. The
        transaction has one snapshot for retrieval and lease: at "read committed" it runs at "repeatable read", and a
        machine that somebody leased or finished meanwhile is never leased by mistake.

        When there is nothing to do, expired sessions are collected, at most once a second, and `retrieve` runs again.

        `max_hold` is how long the work may be held, in seconds or as a timedelta; by default what the `Process` says,
        else as long as the session lives. `work.touch()` starts that time anew. Past it the lease is lost, and the core
        itself fails the work, with `work.backoff`, even if Python is stuck; only not while an end runs its callback.

        `with session.work(…) as work:` gives the machine back when the block is left with the work undone. Under
        asyncio it also cancels the task inside when the lease is lost, and raises what `work.check()` would.

        Raises NothingToDo when `retrieve` returned nothing (or raised it), WorkConflictError when all machines that it
        returned are taken in one of these ways, DatabaseError with constraint `work_machine_fkey` for a machine that
        does not exist, ValueError for a process name that is empty or over 128 bytes, and otherwise as `transact`.
        """
        eligibility = eligibility_of(process, retrieve)
        if eligibility is None:
            check_callback(retrieve, asynchronous=False)
        hold = positive_seconds("max_hold", max_hold)
        if eligibility is not None:
            return self._lease_one(process, eligibility, hold)
        return self._lease(process, cast(Any, retrieve), hold, isolation, max_retries)

    def work_many(
        self,
        process: str | Process,
        limit: int,
        eligible: Eligibility | None = None,
        *,
        max_hold: float | timedelta | None = None,
    ) -> list[Work]:
        """Leases up to `limit` machines at once, 1 to 500: at least one, and fewer than `limit` when no more are found.

        `eligible` says which machines need `process`; by default what the `Process` declares. Leases that are not ended
        by `finish_many`, or one by one, go with the session. `max_hold` and what it raises are as for `work`; there is
        no WorkConflictError.
        """
        eligibility = eligibility_of(process, eligible)
        if eligibility is None:
            raise TypeError("work_many needs an eligibility: give the Process one, or pass bmdb.eligible(…)")
        return self._lease_eligible(process, eligibility, lease_limit(limit), positive_seconds("max_hold", max_hold))

    def _lease_eligible(
        self, process: str | Process, eligibility: Eligibility, limit: int, hold: float | None
    ) -> list[Work]:
        connection, backoff = self._connection, None
        if isinstance(process, Process):
            if process not in connection._processes:
                connection.register(process)
            name, backoff = process.name, process.backoff
            hold = hold if hold is not None else process.max_hold
        else:
            name = name_of(process)
        if (name, eligibility.fingerprint) not in connection._declared:
            connection._declare(name, eligibility)
        core = connection._core
        look = None if tracing.observer is None else tracing.observer.look(self, name, limit)
        try:
            claimed = self._claimed(name, eligibility, limit)
            if not claimed and self._collect_if_due():
                claimed = self._claimed(name, eligibility, limit)
        except BaseException as error:
            if isinstance(error, AmbiguousCommitError):
                error._ask(core)
            if look is not None:
                look.failed(error)
            raise
        if not claimed:
            raise NothingToDo(f"no machine is eligible for process {name!r} now")
        for lease in claimed:
            if backoff is not None:
                lease.backoff = backoff
            if hold is not None:
                core.hold(lease, hold)
        works = [Work(self, lease) for lease in claimed]
        if look is not None:
            look.leased(works)
        return works

    def _claimed(self, name: str, eligibility: Eligibility, limit: int) -> list[_core.Work]:
        connection = self._connection
        with Nesting(connection._core):
            return connection._batches.claim(self._core, name, eligibility, limit)

    def _lease_one(self, process: str | Process, eligibility: Eligibility, hold: float | None) -> Work:
        return self._lease_eligible(process, eligibility, 1, hold)[0]

    def finish_many(self, works: Iterable[Work | tuple[Work | Change, ...]]) -> list[Error | None]:
        """Finishes many at once: works, or tuples of a work and the changes of its tags, `(work, bmdb.set_tag(…), …)`.

        Answers a list as long: for each None once its finish is durable, or the error that `work.finish` would have
        raised. One that fails does not keep the others. Raises TypeError for something else in `works`, before anything
        is done, and errors that concern none of them in particular.
        """
        given = list(works)
        ends = [self._finish_of(each) for each in given]
        if not ends:
            return []
        if tracing.observer is None:
            return self._end_many(ends)
        with tracing.observer.ends("finish", [each[0] if isinstance(each, tuple) else each for each in given]):
            return self._end_many(ends)

    def _end_many(self, ends: list[tuple[_core.Work, str, list[Change], None, None]]) -> list[Error | None]:
        batches = self._connection._batches
        with Nesting(self._connection._core):
            verdicts = batches.end_many(ends)
        for verdict in verdicts:
            if isinstance(verdict, AmbiguousCommitError):
                verdict._ask(self._connection._core)
        return verdicts

    def _finish_of(self, each: object) -> tuple[_core.Work, str, list[Change], None, None]:
        work, *changes = each if isinstance(each, tuple) and each else (each,)
        if not isinstance(work, Work):
            raise TypeError(f"finish_many takes works, or tuples that begin with one, not {type(work).__name__}")
        if work.session.connection is not self._connection:
            raise WorkStateError("finish_many takes works of its own connection only")
        for change in changes:
            if not isinstance(change, Change):
                raise TypeError(f"after a work come changes of tags, not {type(change).__name__}")
        return work._core, "finish", changes, None, None

    def _lease(
        self,
        process: str | Process,
        retrieve: Callable[[Queries], Any],
        max_hold: float | None,
        isolation: str | None,
        max_retries: int | None,
    ) -> Work:
        name = name_of(process)
        if isinstance(process, Process):
            self._connection.register(process)
            self._connection._introduce(process)
        try:
            claimed, step = self._claim(name, retrieve, isolation, max_retries)
        except (NothingToDo, WorkConflictError):
            if not self._collect_if_due():
                raise
            claimed, step = self._claim(name, retrieve, isolation, max_retries)
        if isinstance(process, Process):
            claimed.backoff = process.backoff
            max_hold = max_hold if max_hold is not None else process.max_hold
        if max_hold is not None:
            self._connection._core.hold(claimed, max_hold)
        work = Work(self, claimed)
        if step is not None:
            step.leased([work])
        return work

    def _claim(
        self,
        process: str,
        retrieve: Callable[[Queries], Any],
        isolation: str | None,
        max_retries: int | None,
    ) -> tuple[_core.Work, Step | None]:
        core = self._connection._core
        step = None if tracing.observer is None else tracing.observer.step("claim", self, process)
        tx = core.claiming(self._core, process, isolation, max_retries)
        claimed: _core.Work | None = None

        def lease(q: Queries) -> _core.Work:
            nonlocal claimed
            found = retrieve(q)
            machines = offered(found)
            claimed = leased = tx.claim(process, machines)
            if leased is None:
                raise WorkConflictError(
                    f"all {len(machines)} machines offered are being worked on under process {process!r} or one that"
                    " excludes it, or are in quarantine"
                )
            return leased

        try:
            return run(core, tx, lease, step=step), step
        except BaseException as error:
            # Cancelled or interrupted in COMMIT, which took effect: nobody would ever end that lease.
            if claimed is not None and getattr(error, "committed", False) is not False:
                Work(self, claimed).cancel()
            raise

    def _collect_if_due(self) -> bool:
        """True when collection has freed a lease, so that it is worth looking again."""
        with contextlib.suppress(Error):
            began = 0 if tracing.observer is None else time.time_ns()
            sessions, leases = self._connection._core.collect_if_due()
            if sessions and tracing.observer is not None:
                tracing.observer.collected(self._connection, began, sessions, leases)
            return leases > 0
        return False

    def close(self) -> None:
        """Ends the session now: its leases are released (history `Canceled`) and its row is deleted. Idempotent.

        Raises WorkStateError inside a transaction's callback, whose fence would have to be waited for.
        """
        with Nesting(self._connection._core):
            self._connection._listener.forget(str(self.uuid))
            self._connection._core.end_session(self._core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Error as failure:
            # What happened inside says more; the session expires by itself.
            if error is None:
                raise
            extra = logs.About(str(self.uuid)).extra
            _LOGGER.error("could not close session %s: %s", self.uuid, failure, extra=extra)

    def __repr__(self) -> str:
        state = "expired" if self.expired else f"trusted for {self.trusted_for:.1f} s"
        return f"<{type(self).__name__} {self.uuid}, {state}>"
