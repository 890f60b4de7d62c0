"""The Python thread that listens to the core: its events become log records, and lost sessions callbacks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bmdb import _core

_LOGGER = logging.getLogger("bmdb")


class Listener:
    """One daemon thread for each connection. The core never waits for it."""

    def __init__(self, core: _core.Connection) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callable[[], object]]] = {}
        self._thread = threading.Thread(target=self._listen, name="bmdb-events", daemon=True)
        self._thread.start()

    def on_lost(self, session: str, callback: Callable[[], object], lost: Callable[[], bool]) -> None:
        """Calls `callback` once when the session is lost; soon if `lost` says that it has been already."""
        with self._lock:
            self._callbacks.setdefault(session, []).append(callback)
        # The event may have come and gone before the callback was there.
        if lost():
            threading.Thread(target=self._tell, args=(session,), name="bmdb-lost", daemon=True).start()

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
            for level, source, session, lost, message in events:
                try:
                    extra = {"bmdb_session": session}
                    logging.getLogger(f"bmdb.{source}").log(level, "%s", message, extra=extra)
                except Exception:  # noqa: S110 - a broken log handler must not stop the callbacks
                    pass
                if lost and session is not None:
                    self._tell(session)

    def _tell(self, session: str) -> None:
        with self._lock:
            callbacks = self._callbacks.pop(session, [])
        for callback in callbacks:
            self._call(callback)

    @staticmethod
    def _call(callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            _LOGGER.exception("a callback for a lost session failed")
