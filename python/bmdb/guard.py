"""What stops an asyncio task whose lease is lost, and the awaitable that may also be entered.

Structured as asyncio.timeout is: the guard cancels the task that entered the block, takes that cancellation back when
the block is left, and turns it into the error that says what was lost. A cancellation by anybody else passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from bmdb import _core
from bmdb.errors import Error
from bmdb.listener import Listener

# An end is on its way when the loss is told: so long until it is looked at again, in seconds.
_ENDING_PAUSE = 0.05


class Guard:
    """Cancels the task that it was entered in once `work` is lost, until it is left."""

    __slots__ = (
        "_before",
        "_cancelled",
        "_disowned",
        "_ending",
        "_left",
        "_listener",
        "_loop",
        "_lost",
        "_session",
        "_task",
        "_watch",
        "_work",
    )

    def __init__(
        self,
        work: _core.Work,
        session: str,
        listener: Listener,
        disowned: Callable[[asyncio.Task[Any]], bool],
        ending: Callable[[], bool],
    ) -> None:
        """`disowned` says of a task whether the loss is its own doing, and so no surprise to it.

        `ending` says whether somebody still waits to hear how an end of the work fared.
        """
        self._work = work
        self._session = session
        self._listener = listener
        self._disowned = disowned
        self._ending = ending
        self._cancelled = self._left = False
        self._lost: Error | None = None

    def enter(self) -> None:
        """Begins to watch, for the task that calls."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("async with on work needs a task: it is what a lost lease cancels")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._before = task.cancelling()
        self._watch = self._listener.watch(self._session, self._work.serial, self._tell)
        # It may have been lost before anybody listened.
        self._look()

    async def leave(self, error: BaseException | None) -> None:
        """Ends watching. Raises the loss unless `error`, which the body raised, says more.

        What says more is any exception of the body's own, and the cancellation of somebody else.
        """
        self._left = True
        self._watch.stop()
        # What it was cancelled for, even if the session has been closed by this task since.
        loss = self._lost or self._loss()
        outer = False
        if self._cancelled:
            outer = self._task.uncancel() > self._before
            if not outer and not isinstance(error, asyncio.CancelledError):
                await self._take_back()
        ours = self._cancelled and not outer and isinstance(error, asyncio.CancelledError)
        if loss is not None and (error is None or ours):
            raise loss from error

    async def _take_back(self) -> None:
        """Meets a cancellation that no await of the body's has met, so that it does not hit what follows the block."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._task.cancelling() > self._before:
                raise

    def _tell(self) -> None:
        """Called on the listener's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task gone with it
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._left or self._cancelled:
            return
        if self._ending():
            # It comes to its own outcome, which must not be hidden behind a cancellation.
            self._loop.call_later(_ENDING_PAUSE, self._look)
        elif (loss := self._loss()) is not None:
            self._cancelled, self._lost = True, loss
            self._task.cancel()

    def _loss(self) -> Error | None:
        """The error that tells of the loss; None for work that is held, or has ended."""
        if self._work.state != "lost" or self._disowned(self._task):
            return None
        try:
            self._work.check()
        except Error as loss:
            return loss.with_traceback(None)
        return None


class _Block(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


B = TypeVar("B", bound=_Block)


class Leasing(Coroutine[Any, Any, B]):
    """What an async `work()` returns: to be awaited for the work, or entered with `async with` for a block around it.

    A coroutine, so that it may be a task, too. Used once.
    """

    __slots__ = ("_block", "_claim")

    def __init__(self, claim: Coroutine[Any, Any, B]) -> None:
        self._claim = claim
        self._block: B | None = None

    def __await__(self) -> Generator[Any, Any, B]:
        return self._claim.__await__()

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        return self._claim.send(value)

    def throw(self, *raised: Any) -> Any:
        """As a coroutine's."""
        try:
            return self._claim.throw(*raised)
        finally:
            # A traceback keeps this frame, and the frame its exception: only the garbage collector would end that.
            del raised

    def close(self) -> None:
        """As a coroutine's."""
        self._claim.close()

    async def __aenter__(self) -> B:
        block = await self._claim
        self._block = await block.__aenter__()
        return self._block

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._block is not None:
            await self._block.__aexit__(kind, error, traceback)
