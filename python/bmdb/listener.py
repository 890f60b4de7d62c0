"""The Python thread that listens to the core: its events become log records, and lost sessions callbacks."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable

from bmdb import _core
from bmdb.logs import About, logger

_LOGGER = logger("bmdb")


class Watch:
    """Somebody who wants to look at a lease whenever something is told of it. Ended by `stop`."""

    __slots__ = ("_listener", "call", "serial", "session")

    def __init__(self, listener: Listener, session: str, serial: int, call: Callable[[], object]) -> None:
        self._listener = listener
        self.session = session
        self.serial = serial
        self.call = call

    def stop(self) -> None:
        """Is called no more, but for a call that is on its way."""
        self._listener._unwatch(self)


class Listener:
    """One daemon thread for each connection. The core never waits for it."""

    def __init__(self, core: _core.Connection) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callable[[], object]]] = {}
        self._watches: dict[str, list[Watch]] = {}
        self._thread = threading.Thread(target=self._listen, name="bmdb-events", daemon=True)
        self._thread.start()

    def on_lost(self, session: str, callback: Callable[[], object], lost: Callable[[], bool]) -> None:
        """Calls `callback` once when the session is lost; soon if `lost` says that it has been already."""
        with self._lock:
            self._callbacks.setdefault(session, []).append(callback)
        # The event may have come and gone before the callback was there.
        if lost():
            # In a context of its own, so that a transaction that is running here is none there.
            run = contextvars.Context().run
            threading.Thread(target=run, args=(self._tell, session), name="bmdb-lost", daemon=True).start()

    def watch(self, session: str, serial: int, callback: Callable[[], object]) -> Watch:
        """Calls `callback` on this thread whenever something is told of the session, or of the lease of this serial.

        That it is called says no more than that it is time to look. It must return at once, and not raise.
        """
        watch = Watch(self, session, serial, callback)
        with self._lock:
            self._watches.setdefault(session, []).append(watch)
        return watch

    def _unwatch(self, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(watch.session, [])
            if watch in watches:
                watches.remove(watch)
            if not watches:
                self._watches.pop(watch.session, None)

    def forget(self, session: str) -> None:
        """Calls nothing any more for this session."""
        with self._lock:
            self._callbacks.pop(session, None)

    def stop(self, timeout: float) -> None:
        """Waits for the thread to end, once the core is closed."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _listen(self) -> None:
        while (events := self._core.drain_events(60.0)) is not None:
            # First what stops the work; log handlers and callbacks may take their time.
            for _, _, session, _, _, lease, _ in events:
                self._wake(session, lease)
            for level, source, session, lost, message, _, subject in events:
                try:
                    extra = About(session, *(subject or ())).extra
                    logger(f"bmdb.{source}").log(level, "%s", message, extra=extra)
                except BaseException:  # noqa: S110 - a broken log handler must not stop this thread
                    pass
                if lost and session is not None:
                    self._tell(session)

    def _wake(self, session: str | None, lease: int | None) -> None:
        if session is None:
            return
        with self._lock:
            watches = list(self._watches.get(session, ()))
        for watch in watches:
            if lease is None or lease == watch.serial:
                watch.call()

    def _tell(self, session: str) -> None:
        with self._lock:
            callbacks = self._callbacks.pop(session, [])
        for callback in callbacks:
            self._call(callback)

    @staticmethod
    def _call(callback: Callable[[], object]) -> None:
        try:
            callback()
        except BaseException:
            # SystemExit, too: it would end this thread, and with it all word of losses.
            with contextlib.suppress(BaseException):
                _LOGGER.exception("a callback for a lost session failed")
