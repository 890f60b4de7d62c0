"""Work: a lease on one machine for one process, and the three ways to end it."""

from __future__ import annotations

# async only
import asyncio

# end async only
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload
from uuid import UUID

from bmdb import _core, logs, tracing
from bmdb._async.foreign import foreign
from bmdb._async.queries import AsyncQueries
from bmdb._async.transaction import run
from bmdb._core import Backoff, Change, Nesting

# async only
from bmdb.background import given_back, outlasted

# end async only
from bmdb.callbacks import ending_parts
from bmdb.errors import AmbiguousCommitError, Error, LeaseLostError, SessionExpiredError

# async only
from bmdb.guard import Guard

# end async only
from bmdb.identity import Unique

if TYPE_CHECKING:
    import psycopg

    # async only
    from sqlalchemy.ext.asyncio import AsyncEngine as SaEngine

    # end async only
    # sync only
    # from sqlalchemy import Engine as SaEngine
    #
    # end sync only
    from bmdb._async.engine import AsyncOrmQueries
    from bmdb._async.foreign import AsyncPsycopgQueries
    from bmdb._async.session import AsyncSession

_LOGGER = logs.logger("bmdb.work")

State = Literal["active", "ending", "finished", "failed", "canceled", "lost"]


async def nothing(_: AsyncQueries) -> None:
    """The callback of an end that records nothing more."""


class AsyncWork(Unique):
    """A machine leased for a process, from `work()` until finish, fail or cancel.

    A context manager: leaving it with the work undone cancels it. Under asyncio the task inside the block is cancelled
    at its next await once the lease is lost, and the block raises what `check()` would. Use it from one thread or task
    at a time; `check()`, `touch()` and the properties may be used from any.
    """

    # async only
    __slots__ = ("_core", "_ends", "_guards", "_outer", "_session", "_span")
    # end async only
    # sync only
    # __slots__ = ("_core", "_outer", "_session", "_span")
    # end sync only

    def __init__(self, session: AsyncSession, core: _core.Work) -> None:
        self._session = session
        self._core = core
        # Who watches this lease.
        self._span: tracing.Span | None = None
        # Of each block around it that is entered: which work log records were about outside of it.
        self._outer: tuple[Any, ...] | None = None
        # async only
        self._guards: list[Guard] = []
        # How many ends have not told their callers yet how they fared.
        self._ends = 0
        # end async only

    @property
    def machine(self) -> UUID:
        """The id of the machine leased."""
        return self._core.machine

    @property
    def process(self) -> str:
        """The process it is leased for."""
        return self._core.process

    @property
    def token(self) -> int:
        """The fencing token: rises with each lease of this machine and process.

        Hand it to whatever outside the database must refuse a holder that has been succeeded.
        """
        return self._core.token

    @property
    def previous_backoff(self) -> int | None:
        """The period in whole seconds of the last failure since the last finish, or None."""
        return self._core.previous_backoff

    @property
    def session(self) -> AsyncSession:
        """The session that holds the lease."""
        return self._session

    @property
    def state(self) -> State:
        """ "active", "ending" while an end is on its way, then "finished", "failed", "canceled" or "lost"."""
        return self._core.state

    @property
    def lost(self) -> bool:
        """True once the lease is known to be gone without this object having ended it."""
        return self._core.lost

    def check(self) -> None:
        """Raises if the work must stop; costs a microsecond, so it may be called in a tight loop.

        Raises SessionExpiredError when the session is lost or closed, LeaseLostError when only this lease is, as after
        `max_hold`. Work that has ended by finish, fail or cancel is not lost.
        """
        self._core.check()

    def touch(self) -> None:
        """Tells that the work makes progress: the time of `max_hold` starts anew. Without a `max_hold` it only checks.

        Raises as `check` does, and WorkStateError when the work has ended.
        """
        self._core.touch()

    @property
    def backoff(self) -> Backoff | None:
        """The backoff of failures that name none: those of `fail(cause)` and of `max_hold`. May be replaced.

        Starts as the `Process`'s; None if the work was leased for a mere name.
        """
        return self._core.backoff

    @backoff.setter
    def backoff(self, backoff: Backoff | None) -> None:
        if backoff is not None and not isinstance(backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff or None, not {type(backoff).__name__}")
        self._core.backoff = backoff

    @overload
    async def finish(
        self,
        commit: Callable[[AsyncQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncQueries], Any] | Change,
        connection: None = None,
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> None: ...

    @overload
    async def finish(
        self,
        commit: Callable[[AsyncPsycopgQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncPsycopgQueries], Any] | Change,
        connection: psycopg.AsyncConnection[Any],
        engine: None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> None: ...

    @overload
    async def finish(
        self,
        commit: Callable[[AsyncOrmQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncOrmQueries], Any] | Change,
        connection: None = None,
        engine: SaEngine,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> None: ...

    async def finish(
        self,
        commit: Callable[[Any], Any] | Change | None = None,
        *changes: Callable[[Any], Any] | Change,
        connection: psycopg.AsyncConnection[Any] | None = None,
        engine: SaEngine | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> None:
        """Ends the work as done: frees the machine, forgives its backoff, and writes what it is given to write.

        That should be the tags that keep the machine from being claimed again: `bmdb.set_tag(…)` and
        `bmdb.clear_tag(…)`, any number of them, or a callback that gets the queries of that one transaction, or both,
        in any order. Without a callback ends that come together are committed together, which is faster; each still
        returns once it is durable itself, with its own error. A callback may run many times, and never once the lease
        is lost. After an error the work is still active, and may be ended again, unless it was lost.

        `connection`, `engine`, `isolation` and `max_retries` are as in `AsyncSession.transact`. Without a callback the
        transaction runs at "read committed".

        Raises LeaseLostError or SessionExpiredError when the lease is gone (nothing is written), WorkStateError when
        the work has ended already, AmbiguousCommitError when the outcome cannot be found out, and what `commit` raised.
        A CancelledError or KeyboardInterrupt has the attribute `committed` as in `transact`.
        """
        parts = (*changes, commit) if commit is not None else changes
        await self._end(
            "finish", parts, connection=connection, engine=engine, isolation=isolation, max_retries=max_retries
        )

    @overload
    async def fail(
        self,
        cause: str,
        backoff: Backoff | None = None,
        *changes: Change,
        commit: Callable[[AsyncQueries], Any] | None = None,
        connection: None = None,
        engine: None = None,
    ) -> None: ...

    @overload
    async def fail(
        self,
        cause: str,
        backoff: Backoff | None = None,
        *changes: Change,
        commit: Callable[[AsyncPsycopgQueries], Any] | None = None,
        connection: psycopg.AsyncConnection[Any],
        engine: None = None,
    ) -> None: ...

    @overload
    async def fail(
        self,
        cause: str,
        backoff: Backoff | None = None,
        *changes: Change,
        commit: Callable[[AsyncOrmQueries], Any] | None = None,
        connection: None = None,
        engine: SaEngine,
    ) -> None: ...

    async def fail(
        self,
        cause: str,
        backoff: Backoff | None = None,
        *changes: Change,
        commit: Callable[[Any], Any] | None = None,
        connection: psycopg.AsyncConnection[Any] | None = None,
        engine: SaEngine | None = None,
    ) -> None:
        """Ends the work as failed: frees the machine, but not for this process until the backoff has passed.

        `cause` is for people: kept in history and beside the backoff, cut to 8 KiB; ValueError if it contains NUL. The
        period grows from the last one as `backoff` says, by default `work.backoff`; without either it stays as it was,
        one second at least, and a warning is logged. `changes` of tags, `commit`, `connection` and `engine` are as in
        `finish`; raises as `finish` does.
        """
        if not isinstance(cause, str):
            raise TypeError(f"cause must be a str, not {type(cause).__name__}: str(error) makes one")
        if isinstance(backoff, Change):
            raise TypeError("changes come after the backoff: fail(cause, None, change) keeps work.backoff")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff or None, not {type(backoff).__name__}")
        parts = (*changes, commit) if commit is not None else changes
        await self._end("fail", parts, connection=connection, engine=engine, cause=cause, backoff=backoff)
        if backoff is None and self.backoff is None:
            _LOGGER.warning(
                "work %s on machine %s failed without a backoff: its period stays at %d s",
                self.process,
                self.machine,
                max(1, self.previous_backoff or 1),
                extra=logs.about(self).extra,
            )

    @overload
    async def cancel(
        self,
        commit: Callable[[AsyncQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncQueries], Any] | Change,
        connection: None = None,
        engine: None = None,
    ) -> None: ...

    @overload
    async def cancel(
        self,
        commit: Callable[[AsyncPsycopgQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncPsycopgQueries], Any] | Change,
        connection: psycopg.AsyncConnection[Any],
        engine: None = None,
    ) -> None: ...

    @overload
    async def cancel(
        self,
        commit: Callable[[AsyncOrmQueries], Any] | Change | None = None,
        *changes: Callable[[AsyncOrmQueries], Any] | Change,
        connection: None = None,
        engine: SaEngine,
    ) -> None: ...

    async def cancel(
        self,
        commit: Callable[[Any], Any] | Change | None = None,
        *changes: Callable[[Any], Any] | Change,
        connection: psycopg.AsyncConnection[Any] | None = None,
        engine: SaEngine | None = None,
    ) -> None:
        """Gives the machine back as if the work had not begun; does nothing if the work has ended.

        Errors are logged, not raised: if the lease cannot be given back now, it goes with its session. With something
        to write in the same transaction, as in `finish`, they are raised as by that, also for work that has ended.
        """
        if commit is not None:
            await self._end("cancel", (*changes, commit), connection=connection, engine=engine)
            return
        if self.state != "active":
            return
        try:
            await self._end("cancel", (), connection=connection, engine=engine)
        except (LeaseLostError, SessionExpiredError) as error:
            gone = "work %s on machine %s was gone before it was canceled: %s"
            _LOGGER.info(gone, self.process, self.machine, error, extra=logs.about(self).extra)
        except Error as error:
            failed = "could not cancel work %s on machine %s: %s"
            _LOGGER.error(failed, self.process, self.machine, error, extra=logs.about(self).extra)

    async def _end(
        self,
        kind: str,
        parts: tuple[object, ...],
        *,
        connection: psycopg.AsyncConnection[Any] | None = None,
        engine: SaEngine | None = None,
        cause: str | None = None,
        backoff: Backoff | None = None,
        isolation: str | None = None,
        max_retries: int | None = None,
    ) -> None:
        # async only
        commit, changes = ending_parts(parts, asynchronous=True)
        self._ends += 1
        try:
            await self._end_by(kind, commit, changes, connection, engine, cause, backoff, isolation, max_retries)
        finally:
            self._ends -= 1
        # end async only
        # sync only
        # commit, changes = ending_parts(parts, asynchronous=False)
        # self._end_by(kind, commit, changes, connection, engine, cause, backoff, isolation, max_retries)
        # end sync only

    async def _end_by(
        self,
        kind: str,
        commit: Callable[[Any], Any] | None,
        changes: list[Change],
        connection: psycopg.AsyncConnection[Any] | None,
        engine: SaEngine | None,
        cause: str | None,
        backoff: Backoff | None,
        isolation: str | None,
        max_retries: int | None,
    ) -> None:
        core = self._session.connection._core
        own = connection is None and engine is None
        step = None if tracing.observer is None else tracing.observer.ends(kind, [self])
        if own and commit is None and isolation is None and max_retries is None:
            if step is None:
                await self._end_batched(kind, changes, cause, backoff)
            else:
                with step:
                    await self._end_batched(kind, changes, cause, backoff)
            return
        if changes:
            with Nesting(core):
                await self._session.connection._batches.prepare_async(kind, changes)
        prepare = core.ending if own else core.foreign_ending
        made = prepare(
            self._core,
            kind,
            callback=commit is not None,
            cause=cause,
            backoff=backoff,
            isolation=isolation,
            max_retries=max_retries,
            changed=changes,
        )
        if isinstance(made, _core.Transaction):
            await run(core, made, commit or nothing, step=step)
        else:
            tx = foreign(made, core, connection, engine)
            await run(core, tx, commit or nothing, tx.queries, step)

    async def _end_batched(self, kind: str, changes: list[Change], cause: str | None, backoff: Backoff | None) -> None:
        """Ends it together with whatever else ends at the same time."""
        core = self._session.connection._core
        try:
            with Nesting(core):
                await self._session._connection._batches.end_async(self._core, kind, changes, cause, backoff)
        # async only
        except asyncio.CancelledError as cancelled:
            raise await self._told(cancelled) from None
        # end async only
        except AmbiguousCommitError as error:
            error._ask(core)
            raise

    # async only
    async def _told(self, cancelled: asyncio.CancelledError) -> asyncio.CancelledError:
        """The cancellation, which says by its attribute `committed` what became of the end that it met."""
        settled, again = await outlasted(self._session._connection._batches.settled_async(self._core))
        told = again or cancelled
        told.committed = None if settled.cancelled() or settled.exception() else settled.result()  # type: ignore[attr-defined]
        return told

    # end async only
    async def __aenter__(self) -> Self:
        # async only
        session = self._session
        guard = Guard(
            self._core, str(session.uuid), session.connection._listener, session._closed_by, lambda: self._ends > 0
        )
        guard.enter()
        self._guards.append(guard)
        # end async only
        self._outer = (logs.enter(self), self._outer)
        if self._span is not None:
            self._span.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # async only
            await self._guards.pop().leave(error)
            await given_back(self.cancel())
            # end async only
            # sync only
            # self.cancel()
            # end sync only
        finally:
            if self._span is not None:
                self._span.leave()
            if self._outer is not None:
                before, self._outer = self._outer
                logs.leave(self, before)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.process} on {self.machine}, token {self.token}, {self.state}>"
