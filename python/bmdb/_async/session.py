"""A session: what a component does in the database, for as long as its heartbeat keeps it alive."""

from __future__ import annotations

# async only
import asyncio

# end async only
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload
from uuid import UUID

from bmdb import _core, logs, tracing
from bmdb._async.foreign import AsyncPsycopgQueries, foreign
from bmdb._async.queries import AsyncQueries
from bmdb._async.transaction import run
from bmdb._async.work import AsyncWork
from bmdb._core import Change, Eligibility, Nesting

# async only
from bmdb.background import given_back, outlasted

# end async only
from bmdb.callbacks import check_callback, offered
from bmdb.durations import positive_seconds
from bmdb.eligibility import lease_limit
from bmdb.errors import AmbiguousCommitError, Error, NothingToDo, WorkConflictError, WorkStateError

# async only
from bmdb.guard import Leasing

# end async only
from bmdb.identity import Unique
from bmdb.process import Process, eligibility_of, name_of
from bmdb.tracing import Step

if TYPE_CHECKING:
    import psycopg

    # async only
    from sqlalchemy.ext.asyncio import AsyncEngine as SaEngine

    # end async only
    # sync only
    # from sqlalchemy import Engine as SaEngine
    #
    # end sync only
    from bmdb._async.connection import AsyncConnection
    from bmdb._async.engine import AsyncOrmQueries

T = TypeVar("T")

_LOGGER = logs.logger("bmdb.session")


class AsyncSession(Unique):
    """A row in the database that a thread of the core renews, without Python, until it is closed or lost.

    While it lives its owner may work; once it is lost every call raises SessionExpiredError and a new session has to
    be started. A context manager: leaving it closes it. May be shared by threads or tasks.
    """

    # async only
    __slots__ = ("__weakref__", "_closer", "_connection", "_core")
    # end async only
    # sync only
    # __slots__ = ("__weakref__", "_connection", "_core")
    # end sync only

    def __init__(self, connection: AsyncConnection, core: _core.Session) -> None:
        self._connection = connection
        self._core = core
        # async only
        self._closer: asyncio.Task[Any] | None = None
        # end async only

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
    def connection(self) -> AsyncConnection:
        """The connection that the session was started on."""
        return self._connection

    async def wait_expired(self, timeout: float | None = None) -> bool:
        """Waits until the session is lost or closed, for `timeout` seconds at most; returns whether it is."""
        return await self._core.wait_expired_async(timeout)

    def on_expired(self, callback: Callable[[AsyncSession], object]) -> None:
        """Calls `callback` with this session, once, when it is lost; not when it is closed.

        It runs soon after the loss, on a thread of bmdb's (for an AsyncSession: on the event loop that registered it),
        never inside a transaction. What it raises is logged.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        # async only
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(callback, self)

        # end async only
        # sync only
        # def tell() -> None:
        #     callback(self)
        #
        # end sync only
        self._connection._listener.on_lost(str(self.uuid), tell, lambda: self._core.lost)

    @overload
    async def transact(
        self,
        fn: Callable[[AsyncQueries], Awaitable[T]],
        *,
        connection: None = None,
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # async only
    @overload
    async def transact(
        self,
        fn: Callable[[AsyncQueries], T],
        *,
        connection: None = None,
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # end async only

    @overload
    async def transact(
        self,
        fn: Callable[[AsyncPsycopgQueries], Awaitable[T]],
        *,
        connection: psycopg.AsyncConnection[Any],
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # async only
    @overload
    async def transact(
        self,
        fn: Callable[[AsyncPsycopgQueries], T],
        *,
        connection: psycopg.AsyncConnection[Any],
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # end async only

    @overload
    async def transact(
        self,
        fn: Callable[[AsyncOrmQueries], Awaitable[T]],
        *,
        connection: None = None,
        engine: SaEngine,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # async only
    @overload
    async def transact(
        self,
        fn: Callable[[AsyncOrmQueries], T],
        *,
        connection: None = None,
        engine: SaEngine,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...

    # end async only

    async def transact(
        self,
        fn: Callable[[Any], Any],
        *,
        connection: psycopg.AsyncConnection[Any] | None = None,
        engine: SaEngine | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Runs `fn` in a transaction that lands only while this session lives, and returns what it returned.

        `fn` gets the transaction's queries; under asyncio it may be an `async def` or a plain function. It may run many
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
        # async only
        check_callback(fn, asynchronous=True)
        # end async only
        # sync only
        # check_callback(fn, asynchronous=False)
        # end sync only
        core = self._connection._core
        step = None if tracing.observer is None else tracing.observer.step("transact", self)
        if connection is None and engine is None:
            return await run(core, core.transaction(self._core, isolation, max_retries, idempotency_key), fn, step=step)
        tx = foreign(core.foreign(self._core, isolation, max_retries, idempotency_key), core, connection, engine)
        return await run(core, tx, fn, tx.queries, step)

    def work(
        self,
        process: str | Process,
        retrieve: Callable[[AsyncQueries], Any] | Eligibility | None = None,
        *,
        max_hold: float | timedelta | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
        # async only
    ) -> Leasing[AsyncWork]:
        # end async only
        # sync only
        # ) -> Work:
        # end sync only
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

        `async with session.work(…) as work:` gives the machine back when the block is left with the work undone. Under
        asyncio it also cancels the task inside when the lease is lost, and raises what `work.check()` would.

        Raises NothingToDo when `retrieve` returned nothing (or raised it), WorkConflictError when all machines that it
        returned are taken in one of these ways, DatabaseError with constraint `work_machine_fkey` for a machine that
        does not exist, ValueError for a process name that is empty or over 128 bytes, and otherwise as `transact`.
        """
        eligibility = eligibility_of(process, retrieve)
        if eligibility is None:
            # async only
            check_callback(retrieve, asynchronous=True)
            # end async only
            # sync only
            # check_callback(retrieve, asynchronous=False)
            # end sync only
        hold = positive_seconds("max_hold", max_hold)
        # async only
        if eligibility is not None:
            return Leasing(self._lease_one(process, eligibility, hold))
        return Leasing(self._lease(process, cast(Any, retrieve), hold, isolation, max_retries))
        # end async only
        # sync only
        # if eligibility is not None:
        #     return self._lease_one(process, eligibility, hold)
        # return self._lease(process, cast(Any, retrieve), hold, isolation, max_retries)
        # end sync only

    async def work_many(
        self,
        process: str | Process,
        limit: int,
        eligible: Eligibility | None = None,
        *,
        max_hold: float | timedelta | None = None,
    ) -> list[AsyncWork]:
        """Leases up to `limit` machines at once, 1 to 500: at least one, and fewer than `limit` when no more are found.

        `eligible` says which machines need `process`; by default what the `Process` declares. Leases that are not ended
        by `finish_many`, or one by one, go with the session. `max_hold` and what it raises are as for `work`; there is
        no WorkConflictError.
        """
        eligibility = eligibility_of(process, eligible)
        if eligibility is None:
            raise TypeError("work_many needs an eligibility: give the Process one, or pass bmdb.eligible(…)")
        return await self._lease_eligible(
            process, eligibility, lease_limit(limit), positive_seconds("max_hold", max_hold)
        )

    async def _lease_eligible(
        self, process: str | Process, eligibility: Eligibility, limit: int, hold: float | None
    ) -> list[AsyncWork]:
        connection, backoff = self._connection, None
        if isinstance(process, Process):
            if process not in connection._processes:
                await connection.register(process)
            name, backoff = process.name, process.backoff
            hold = hold if hold is not None else process.max_hold
        else:
            name = name_of(process)
        if (name, eligibility.fingerprint) not in connection._declared:
            await connection._declare(name, eligibility)
        core = connection._core
        look = None if tracing.observer is None else tracing.observer.look(self, name, limit)
        try:
            claimed = await self._claimed(name, eligibility, limit)
            if not claimed and await self._collect_if_due():
                claimed = await self._claimed(name, eligibility, limit)
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
        works = [AsyncWork(self, lease) for lease in claimed]
        if look is not None:
            look.leased(works)
        return works

    async def _claimed(self, name: str, eligibility: Eligibility, limit: int) -> list[_core.Work]:
        connection = self._connection
        # async only
        with Nesting(connection._core):
            claim = connection._batches.claim_async(self._core, name, eligibility, limit)
            try:
                return await claim
            except asyncio.CancelledError as error:
                if not claim.done() or claim.cancelled() or claim.exception() is not None:
                    # What the claim leases is given back by the core.
                    raise
                cancelled = error
        # Told in the same moment, the leases would be nobody's. Given back behind the caller, who is on its way out.
        with contextlib.suppress(asyncio.CancelledError):
            await given_back(self._give_back(claim.result()))
        raise cancelled
        # end async only
        # sync only
        # with Nesting(connection._core):
        #     return connection._batches.claim(self._core, name, eligibility, limit)
        # end sync only

    # async only
    async def _give_back(self, leases: list[_core.Work]) -> None:
        for lease in leases:
            await AsyncWork(self, lease).cancel()

    # end async only
    async def _lease_one(self, process: str | Process, eligibility: Eligibility, hold: float | None) -> AsyncWork:
        return (await self._lease_eligible(process, eligibility, 1, hold))[0]

    async def finish_many(self, works: Iterable[AsyncWork | tuple[AsyncWork | Change, ...]]) -> list[Error | None]:
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
            return await self._end_many(ends)
        with tracing.observer.ends("finish", [each[0] if isinstance(each, tuple) else each for each in given]):
            return await self._end_many(ends)

    async def _end_many(self, ends: list[tuple[_core.Work, str, list[Change], None, None]]) -> list[Error | None]:
        batches = self._connection._batches
        with Nesting(self._connection._core):
            # async only
            future = asyncio.ensure_future(batches.end_many_async(ends))
            try:
                verdicts = await asyncio.shield(future)
            except asyncio.CancelledError:
                if not future.cancelled():
                    # Each work's state tells how it ended.
                    await outlasted(future)
                raise
            # end async only
            # sync only
            # verdicts = batches.end_many(ends)
            # end sync only
        for verdict in verdicts:
            if isinstance(verdict, AmbiguousCommitError):
                verdict._ask(self._connection._core)
        return verdicts

    def _finish_of(self, each: object) -> tuple[_core.Work, str, list[Change], None, None]:
        work, *changes = each if isinstance(each, tuple) and each else (each,)
        if not isinstance(work, AsyncWork):
            raise TypeError(f"finish_many takes works, or tuples that begin with one, not {type(work).__name__}")
        if work.session.connection is not self._connection:
            raise WorkStateError("finish_many takes works of its own connection only")
        for change in changes:
            if not isinstance(change, Change):
                raise TypeError(f"after a work come changes of tags, not {type(change).__name__}")
        return work._core, "finish", changes, None, None

    async def _lease(
        self,
        process: str | Process,
        retrieve: Callable[[AsyncQueries], Any],
        max_hold: float | None,
        isolation: str | None,
        max_retries: int | None,
    ) -> AsyncWork:
        name = name_of(process)
        if isinstance(process, Process):
            await self._connection.register(process)
            await self._connection._introduce(process)
        try:
            claimed, step = await self._claim(name, retrieve, isolation, max_retries)
        except (NothingToDo, WorkConflictError):
            if not await self._collect_if_due():
                raise
            claimed, step = await self._claim(name, retrieve, isolation, max_retries)
        if isinstance(process, Process):
            claimed.backoff = process.backoff
            max_hold = max_hold if max_hold is not None else process.max_hold
        if max_hold is not None:
            self._connection._core.hold(claimed, max_hold)
        work = AsyncWork(self, claimed)
        if step is not None:
            step.leased([work])
        return work

    async def _claim(
        self,
        process: str,
        retrieve: Callable[[AsyncQueries], Any],
        isolation: str | None,
        max_retries: int | None,
    ) -> tuple[_core.Work, Step | None]:
        core = self._connection._core
        step = None if tracing.observer is None else tracing.observer.step("claim", self, process)
        tx = core.claiming(self._core, process, isolation, max_retries)
        claimed: _core.Work | None = None

        async def lease(q: AsyncQueries) -> _core.Work:
            nonlocal claimed
            found = retrieve(q)
            # async only
            if hasattr(found, "__await__"):
                found = await found
            # end async only
            machines = offered(found)
            claimed = leased = await tx.claim_async(process, machines)
            if leased is None:
                raise WorkConflictError(
                    f"all {len(machines)} machines offered are being worked on under process {process!r} or one that"
                    " excludes it, or are in quarantine"
                )
            return leased

        try:
            return await run(core, tx, lease, step=step), step
        except BaseException as error:
            # Cancelled or interrupted in COMMIT, which took effect: nobody would ever end that lease.
            if claimed is not None and getattr(error, "committed", False) is not False:
                # async only
                with contextlib.suppress(asyncio.CancelledError):  # the first one says more
                    await given_back(AsyncWork(self, claimed).cancel())
                # end async only
                # sync only
                # Work(self, claimed).cancel()
                # end sync only
            raise

    async def _collect_if_due(self) -> bool:
        """True when collection has freed a lease, so that it is worth looking again."""
        with contextlib.suppress(Error):
            began = 0 if tracing.observer is None else time.time_ns()
            sessions, leases = await self._connection._core.collect_if_due_async()
            if sessions and tracing.observer is not None:
                tracing.observer.collected(self._connection, began, sessions, leases)
            return leases > 0
        return False

    async def close(self) -> None:
        """Ends the session now: its leases are released (history `Canceled`) and its row is deleted. Idempotent.

        Raises WorkStateError inside a transaction's callback, whose fence would have to be waited for.
        """
        with Nesting(self._connection._core):
            self._connection._listener.forget(str(self.uuid))
            # async only
            self._closer = asyncio.current_task()
            # end async only
            await self._connection._core.end_session_async(self._core)

    # async only
    def _closed_by(self, task: asyncio.Task[Any]) -> bool:
        """Whether this session was closed, and by that task, which then knows that its leases are gone."""
        return self._closer is task and not self._core.lost

    # end async only
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except Error as failure:
            # What happened inside says more; the session expires by itself.
            if error is None:
                raise
            extra = logs.About(str(self.uuid)).extra
            _LOGGER.error("could not close session %s: %s", self.uuid, failure, extra=extra)

    def __repr__(self) -> str:
        state = "expired" if self.expired else f"trusted for {self.trusted_for:.1f} s"
        return f"<{type(self).__name__} {self.uuid}, {state}>"
