# Generated from python/bmdb/loops/_async/crew.py by tools/generate_sync.py: do not edit.
"""The instances of one loop in one OS process: each leases a machine, calls the function, records how it went."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from bmdb import _core, logs
from bmdb._core import Backoff
from bmdb._sync.connection import Connection
from bmdb._sync.work import Work
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
from bmdb.loops._sync.keeper import Keeper
from bmdb.loops.bell import Bell
from bmdb.loops.idle import Idle
from bmdb.loops.loop import Loop
from bmdb.loops.outcome import cause_of, clean, parts_of, wished
from bmdb.loops.state import State

_LOGGER = logs.logger("bmdb.loops")


class Crew(Unique):
    """They share a session, a pace and their idleness. `serve` is one instance and may be called at the same time."""

    def __init__(self, loop: Loop[Any], connection: Connection, changed: Callable[[], object]) -> None:
        self.loop = loop
        self.bell = Bell()
        self.idle = Idle(loop.max_idle)
        self.state = State(loop.name, loop.process.name)
        self._changed = changed
        self._pace = _core.Pace(loop.rate, loop.burst)
        self._keeper = Keeper(loop, connection, self.bell, self.state)
        self._held: set[Work] = set()

    def wake(self) -> None:
        """There may be work: look now. From any thread."""
        self.idle.wake()
        self.bell.ring()

    def serve(self) -> None:
        """Leases and works until the runner stops; nothing that goes wrong ends it."""
        while not self.bell.stopped:
            seen = self.bell.rings
            if wait := self.idle.turn():
                self.bell.wait(seen, wait)
                continue
            try:
                if (work := self._lease(seen)) is not None:
                    self._work_on(work)
            except BaseException:
                # KeyboardInterrupt, too: on a thread of ours, or in a task, it is nobody's Ctrl-C.
                _LOGGER.exception("loop %s: an instance failed, and goes on", self.loop.name)
                self.idle.trouble()

    def _lease(self, seen: int) -> Work | None:
        """A machine that needs the process; None when there is none now. Whoever calls this had its turn.

        `seen`: the bell's rings before that. A later one may tell of what the look was too early for.
        """
        try:
            session = self._keeper.session()
            self._keep_pace()
            if session is None or self.bell.stopped:
                self.idle.again()
                return None
            work = session.work(self.loop.process, self.loop.retrieve, isolation=self.loop.isolation)
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

    def _keep_pace(self) -> None:
        while not self.bell.stopped and (wait := self._pace.take(time.monotonic())):
            self.bell.sleep(wait)

    def _work_on(self, work: Work) -> None:
        self._held.add(work)
        self.state.began()
        try:
            # Leaving it undone cancels it.
            with work:
                if not self.bell.stopped:
                    self._carry_out(work)
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
            self._held.discard(work)
            self.state.ended(work.state)
            self._changed()

    def _carry_out(self, work: Work) -> None:
        name = self.loop.name
        try:
            parts = self._call(work)
            if work.state == "active":
                work.finish(*parts)
            elif parts:
                _LOGGER.warning("loop %s: the work was ended by the function already, what it returned is left", name)
        except (LeaseLostError, SessionExpiredError):
            raise
        except Cancel as wish:
            _LOGGER.info("loop %s gives machine %s back: %s", name, work.machine, wish)
            work.cancel()
        except Retry as wish:
            _LOGGER.info("loop %s tries machine %s again later: %s", name, work.machine, wish)
            self._fail(work, clean(str(wish.cause)), wished(wish))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            _LOGGER.warning("loop %s failed on machine %s", name, work.machine, exc_info=True)
            self._fail(work, cause_of(error), None)

    def _call(self, work: Work) -> tuple[Any, ...]:
        """What finishes the work by the function's answer. Raises what the function raises."""
        answer = self.loop.fn(work)
        if inspect.iscoroutine(answer):
            answer.close()
        return parts_of(answer)

    def _fail(self, work: Work, cause: str, backoff: Backoff | None) -> None:
        if work.state == "active":
            work.fail(cause, backoff)

    def release(self) -> None:
        """Gives back all that is held, even what a function still works on, and ends the session. Raises nothing."""
        for work in list(self._held):
            work.cancel()
        self._keeper.close()
