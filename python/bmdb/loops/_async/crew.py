"""The instances of one loop in one OS process: each leases a machine, calls the function, records how it went."""

from __future__ import annotations

# async only
import asyncio

# end async only
import inspect
import time
from collections.abc import Callable
from typing import Any

from bmdb import _core, logs
from bmdb._async.connection import AsyncConnection
from bmdb._async.work import AsyncWork
from bmdb._core import Backoff
from bmdb.errors import (
    Cancel,
    Error,
    LeaseLostError,
    NothingToDo,
    Retry,
    SessionExpiredError,
    WorkConflictError,
    WorkStateError,
)
from bmdb.identity import Unique
from bmdb.loops._async.keeper import AsyncKeeper
from bmdb.loops.bell import Bell
from bmdb.loops.idle import Idle
from bmdb.loops.loop import Loop
from bmdb.loops.outcome import cause_of, clean, parts_of, wished
from bmdb.loops.state import State

_LOGGER = logs.logger("bmdb.loops")


class AsyncCrew(Unique):
    """They share a session, a pace and their idleness. `serve` is one instance and may be called at the same time."""

    def __init__(self, loop: Loop[Any], connection: AsyncConnection, changed: Callable[[], object]) -> None:
        self.loop = loop
        self.bell = Bell()
        self.idle = Idle(loop.max_idle)
        self.state = State(loop.name, loop.process.name)
        self._changed = changed
        self._pace = _core.Pace(loop.rate, loop.burst)
        self._keeper = AsyncKeeper(loop, connection, self.bell, self.state)
        self._held: set[AsyncWork] = set()
        # async only
        self._busy: set[asyncio.Task[Any]] = set()
        # end async only

    def wake(self) -> None:
        """There may be work: look now. From any thread."""
        self.idle.wake()
        self.bell.ring()

    async def serve(self) -> None:
        """Leases and works until the runner stops; nothing that goes wrong ends it."""
        while not self.bell.stopped:
            seen = self.bell.rings
            if wait := self.idle.turn():
                await self.bell.wait_async(seen, wait)
                continue
            try:
                if (work := await self._lease(seen)) is not None:
                    await self._work_on(work)
            # async only
            except GeneratorExit:
                raise
            except asyncio.CancelledError:
                if self.bell.stopped:
                    raise
                _forget_cancellations(0)
                _LOGGER.exception("loop %s: an instance was cancelled by its own, and goes on", self.loop.name)
                self.idle.trouble()
            # end async only
            except BaseException:
                # KeyboardInterrupt, too: on a thread of ours, or in a task, it is nobody's Ctrl-C.
                _LOGGER.exception("loop %s: an instance failed, and goes on", self.loop.name)
                self.idle.trouble()

    async def _lease(self, seen: int) -> AsyncWork | None:
        """A machine that needs the process; None when there is none now. Whoever calls this had its turn.

        `seen`: the bell's rings before that. A later one may tell of what the look was too early for.
        """
        try:
            session = await self._keeper.session()
            await self._keep_pace()
            if session is None or self.bell.stopped:
                self.idle.again()
                return None
            work = await session.work(self.loop.process, self.loop.retrieve, isolation=self.loop.isolation)
        except NothingToDo:
            self.state.troubled(None)
            self.idle.nothing(self.bell.rings != seen)
        except WorkConflictError:
            self.state.troubled(None)
            self.idle.conflict(self.bell.rings != seen)
        except SessionExpiredError as error:
            _LOGGER.info("loop %s: %s", self.loop.name, error)
            self.idle.again()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # What `retrieve` raises is logged whole: it is the user's, as often as not.
            told = isinstance(error, Error)
            _LOGGER.warning("loop %s could not look for work: %s", self.loop.name, cause_of(error), exc_info=not told)
            self.state.troubled(cause_of(error))
            self.idle.trouble()
        except BaseException:
            self.idle.again()
            raise
        else:
            self.state.troubled(None)
            if self.idle.found():
                self.bell.ring()
            return work
        return None

    async def _keep_pace(self) -> None:
        while not self.bell.stopped and (wait := self._pace.take(time.monotonic())):
            await self.bell.sleep_async(wait)

    async def _work_on(self, work: AsyncWork) -> None:
        self._held.add(work)
        self.state.began()
        try:
            # Leaving it undone cancels it.
            async with work:
                if not self.bell.stopped:
                    # async only
                    self._busy.add(_task())
                    # end async only
                    await self._carry_out(work)
        except (LeaseLostError, SessionExpiredError) as error:
            _LOGGER.warning(
                "loop %s lost machine %s: %s", self.loop.name, work.machine, error, extra=logs.about(work).extra
            )
        except WorkStateError as error:
            # Given back while the function was running on, because the runner stops.
            if not self.bell.stopped:
                raise
            _LOGGER.warning(
                "loop %s ended machine %s too late: %s",
                self.loop.name,
                work.machine,
                error,
                extra=logs.about(work).extra,
            )
        finally:
            # async only
            self._busy.discard(_task())
            # end async only
            self._held.discard(work)
            self.state.ended(work.state)
            self._changed()

    async def _carry_out(self, work: AsyncWork) -> None:
        name = self.loop.name
        # async only
        before = _task().cancelling()
        # end async only
        try:
            parts = await self._call(work)
            if work.state == "active":
                await work.finish(*parts)
            elif parts:
                _LOGGER.warning("loop %s: the work was ended by the function already, what it returned is left", name)
        except (LeaseLostError, SessionExpiredError):
            raise
        except Cancel as wish:
            _LOGGER.info("loop %s gives machine %s back: %s", name, work.machine, wish)
            await work.cancel()
        except Retry as wish:
            _LOGGER.info("loop %s tries machine %s again later: %s", name, work.machine, wish)
            await self._fail(work, clean(str(wish.cause)), wished(wish))
        # async only
        except asyncio.CancelledError as error:
            if self.bell.stopped or work.state == "lost":
                raise
            # The function's own doing.
            _forget_cancellations(before)
            await self._fail(work, cause_of(error), None)
        # end async only
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            _LOGGER.warning("loop %s failed on machine %s", name, work.machine, exc_info=True)
            await self._fail(work, cause_of(error), None)

    async def _call(self, work: AsyncWork) -> tuple[Any, ...]:
        """What finishes the work by the function's answer. Raises what the function raises."""
        answer = self.loop.fn(work)
        # async only
        if inspect.isawaitable(answer):
            answer = await answer
        # end async only
        # sync only
        # if inspect.iscoroutine(answer):
        #     answer.close()
        # end sync only
        return parts_of(answer)

    async def _fail(self, work: AsyncWork, cause: str, backoff: Backoff | None) -> None:
        if work.state == "active":
            await work.fail(cause, backoff)

    # async only
    def interrupt(self) -> None:
        """Cancels the functions that run; who only looks for work ends by itself once the bell is stopped."""
        for task in self._busy:
            task.cancel()

    # end async only
    async def release(self) -> None:
        """Gives back all that is held, even what a function still works on, and ends the session. Raises nothing."""
        for work in list(self._held):
            await work.cancel()
        await self._keeper.close()


# async only
def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an instance is served outside a task")
    return task


def _forget_cancellations(before: int) -> None:
    """A task group that failed, or a task that cancelled itself, leaves the count of cancellations raised."""
    task = _task()
    while task.cancelling() > before:
        task.uncancel()


# end async only
