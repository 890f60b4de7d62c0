"""Hints from the database: one connection that listens, so that a loop need not wait for its next look."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bmdb import _core, logs

_LOGGER = logs.logger("bmdb.loops")

# Seconds: after a failure so long, doubling up to the second.
_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# What libpq gets unless the connection string says otherwise: a dead link must not leave it deaf for hours.
_PATIENT = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}


class Wakeup:
    """A daemon thread with a connection of its own. Nothing depends on it: loops look by themselves now and then.

    `hear` is called on that thread, with the process that a hint names, or with None when hints may have been missed
    because it listens only from now on. PostgreSQL only; anywhere else it ends at once.
    """

    def __init__(self, conninfo: str, hear: Callable[[str | None], object]) -> None:
        self._conninfo = conninfo
        self._hear = hear
        self._stopped = threading.Event()
        self._listening = False
        self._stop, self._told = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="bmdb-hints", daemon=True)

    @property
    def listening(self) -> bool:
        """Whether hints are heard just now."""
        return self._listening

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends, and waits so long for it: a connection attempt cannot be called off."""
        self._stopped.set()
        self._stop.close()
        self._thread.join(seconds)

    def _run(self) -> None:
        with self._told:
            self._repeat()

    def _repeat(self) -> None:
        pause = _PAUSE
        while not self._stopped.is_set():
            try:
                with self._connect() as connection:
                    if connection.info.parameter_status("crdb_version") is not None:
                        _LOGGER.info("this server sends no hints: loops look by themselves")
                        return
                    ((pid,),) = connection.execute(_QUERIES["doctor_backend"].encode(), prepare=False)
                    if pid != connection.info.backend_pid:
                        _LOGGER.info("a pooler stands in between, which passes no hints on: loops look by themselves")
                        return
                    self._listen(connection)
            except psycopg.Error as error:
                _LOGGER.info("no hints from the database for now: %s", error)
            if self._listening:
                self._listening, pause = False, _PAUSE
            self._stopped.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _connect(self) -> psycopg.Connection[Any]:
        given = {key: str(value) for key, value in conninfo_to_dict(self._conninfo).items() if value is not None}
        return psycopg.connect(make_conninfo("", **{**_PATIENT, **given}), autocommit=True)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(_QUERIES["work_listen"].encode())
        self._listening = True
        self._hear(None)
        with selectors.DefaultSelector() as waiting:
            waiting.register(connection.fileno(), selectors.EVENT_READ)
            waiting.register(self._told, selectors.EVENT_READ)
            while not self._stopped.is_set():
                for hint in connection.notifies(timeout=0):
                    self._hear(hint.payload)
                waiting.select()


_QUERIES = dict(_core.queries())
