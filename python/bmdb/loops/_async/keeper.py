"""The one session of a loop in this OS process, started anew when it is lost."""

from __future__ import annotations

# async only
import asyncio

# end async only
# sync only
# import threading
#
# end sync only
import random
from typing import Any

from bmdb import logs
from bmdb._async.connection import AsyncConnection
from bmdb._async.session import AsyncSession
from bmdb.errors import Error
from bmdb.identity import Unique
from bmdb.loops.bell import Bell
from bmdb.loops.loop import Loop
from bmdb.loops.state import State

_LOGGER = logs.logger("bmdb.loops")

# Seconds: about so long after a loss, doubling with each failure to start, up to the second.
PAUSE = 1.0
LONGEST_PAUSE = 30.0


class AsyncKeeper(Unique):
    """Hands out a live session; shared by the instances of the loop."""

    def __init__(self, loop: Loop[Any], connection: AsyncConnection, bell: Bell, state: State) -> None:
        self._loop = loop
        self._connection = connection
        self._bell = bell
        self._state = state
        self._session: AsyncSession | None = None
        self._failures = 0
        # async only
        self._lock = asyncio.Lock()
        # end async only
        # sync only
        # self._lock = threading.Lock()
        # end sync only

    async def session(self) -> AsyncSession | None:
        """A session that lives, sooner or later; None once the runner stops.

        After a loss a new one is started about a second later, with jitter, and after that ever less often up to twice
        a minute, for as long as the database cannot be reached.
        """
        async with self._lock:
            while not self._bell.stopped:
                if self._session is not None:
                    if not self._session.expired:
                        return self._session
                    extra = logs.About(str(self._session.uuid)).extra
                    _LOGGER.warning("loop %s: its session is lost, another is started", self._loop.name, extra=extra)
                    self._drop()
                    self._failures = 1
                if self._failures:
                    pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._failures - 1, 16))
                    if not await self._bell.sleep_async(pause * random.uniform(0.5, 1.5)):  # noqa: S311
                        break
                await self._start()
            return None

    async def _start(self) -> None:
        try:
            self._session = await self._connection.start_session(
                interval=self._loop.interval, processor=self._loop.processor
            )
        except Error as error:
            self._failures += 1
            self._state.troubled(f"no session: {error}")
            _LOGGER.warning("loop %s: no session could be started: %s", self._loop.name, error)
            return
        self._failures = 0
        self._state.has_session(str(self._session.uuid))
        self._session.on_expired(lambda lost: self._state.lost_session(str(lost.uuid)))

    def _drop(self) -> None:
        self._session = None
        self._state.has_session(None)

    async def close(self) -> None:
        """Ends the session, which gives back what it holds. Raises nothing of bmdb's."""
        session, self._session = self._session, None
        self._state.has_session(None)
        if session is not None and not session.expired:
            try:
                await session.close()
            except Error as error:
                extra = logs.About(str(session.uuid)).extra
                _LOGGER.warning("loop %s: its session could not be closed: %s", self._loop.name, error, extra=extra)
