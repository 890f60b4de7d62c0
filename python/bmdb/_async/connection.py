"""A component's access to the database."""

from __future__ import annotations

# async only
import asyncio

# end async only
import os
import platform
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

from bmdb import _core, tracing
from bmdb import conninfo as _conninfo
from bmdb._async.operators import AsyncOperators
from bmdb._async.queries import AsyncQueries
from bmdb._async.session import AsyncSession
from bmdb._core import Nesting
from bmdb.durations import positive_seconds
from bmdb.errors import ConfigError
from bmdb.lifecycle import track, untrack
from bmdb.listener import Listener
from bmdb.model import HistoryEvent, SessionInfo
from bmdb.process import Process
from bmdb.statistics import Statistics

if TYPE_CHECKING:
    from bmdb.embedded import EmbeddedServer


_POOLING = {True: "expect", False: "refuse", None: "adapt"}


class Collected(NamedTuple):
    """What a collection removed."""

    sessions: int
    leases: int


class AsyncConnection(AsyncOperators):
    """A pool of connections to one database, the heartbeat of the sessions started on it, and their metrics.

    Made by `connect`. A context manager: leaving it closes it. May be shared by threads or tasks, but not with a forked
    child: there every call raises ConfigError, and a new connection has to be opened.
    """

    def __init__(self, core: _core.Connection, conninfo: str, server: EmbeddedServer | None) -> None:
        self._core = core
        self._batches = core.batches
        self._conninfo = conninfo
        self._server = server
        self._owner = os.getpid()
        self._listener = Listener(core)
        self._processes: frozenset[Process] = frozenset()
        self._declared: set[tuple[str, str]] = set()
        self._introduced: dict[Process, float] = {}
        track(self)
        if tracing.observer is not None:
            tracing.observer.opened(self)

    @classmethod
    async def connect(
        cls,
        conninfo: str | None = None,
        *,
        component: str,
        runtime_info: str | None = None,
        migrate: bool = False,
        pool_size: int = 10,
        isolation: str = "serializable",
        max_retries: int = 50,
        pooler: bool | None = False,
    ) -> Self:
        """Connects to a database.

        `conninfo`: a libpq URI or key=value string, "embedded:" (a throw-away PostgreSQL server for this connection
        alone), "embedded:PATH" (one that is kept there), or None for $BMDB_CONNINFO. What it leaves out comes from the
        PG* environment variables and libpq's files. `component` and `runtime_info` are for people who look at
        sessions; by default the latter names host, process and Python. `migrate` brings the schema up to date.
        `pool_size` bounds the connections (the heartbeat has one of its own); a transaction waits 30 s for a free one.
        `isolation` and `max_retries` are the defaults of transactions with a callback. `pooler`: whether a pooler such
        as PgBouncer may stand in between that gives each transaction another backend; then statements go unnamed, and
        nothing is left in the server's session. None finds out, and False refuses one.

        Raises ConfigError for settings that cannot be used or a pooler that is not allowed, ConnectionFailedError when
        no server can be reached or it refuses the user, MigrationError for a schema newer than this library.
        """
        if pooler not in _POOLING:
            raise ConfigError("pooler must be True, False or None")
        if not component or not isinstance(component, str):
            raise ConfigError("component must name this part of the fleet manager, for people who look at sessions")
        _check_settings(component, runtime_info, pool_size, isolation, max_retries)
        if "\0" in component or "\0" in (runtime_info or ""):
            raise ConfigError("component and runtime_info must not contain NUL characters")
        return await cls._open(
            conninfo,
            {
                "component": component,
                "runtime_info": runtime_info if runtime_info is not None else _runtime_info(),
                "pool_size": pool_size,
                "isolation": isolation,
                "max_retries": max_retries,
                "access": "read write",
                "pooling": _POOLING[pooler],
            },
            migrate,
        )

    @classmethod
    async def _reading(cls, conninfo: str | None, *, component: str, pool_size: int, weak: bool = False) -> Self:
        """Connects for looking only: the server refuses whatever writes, and ends a statement after a second.

        Every transaction is READ COMMITTED and READ ONLY, so it is in nobody's way. With `weak` it sees what the
        nearest replica of a CockroachDB knew some seconds ago.
        """
        return await cls._open(
            conninfo,
            {
                "component": component,
                "runtime_info": _runtime_info(),
                "pool_size": pool_size,
                "isolation": "read committed",
                "max_retries": 5,
                "access": "weak" if weak else "read only",
                "pooling": _POOLING[None],
            },
            False,
        )

    @classmethod
    async def _open(cls, conninfo: str | None, settings: Mapping[str, Any], migrate: bool) -> Self:
        given = _conninfo.given(conninfo)
        server: EmbeddedServer | None = None
        if _conninfo.is_embedded(given):
            from bmdb import embedded

            path = _conninfo.embedded_path(given)
            # async only
            server = await asyncio.to_thread(embedded.start, path)
            # end async only
            # sync only
            # server = embedded.start(path)
            # end sync only
            given = server.conninfo
        try:
            keywords = _conninfo.resolve(given)
            complete: Any = {**settings, "throwaway": server is not None and server.throwaway}
            core = await _core.Connection.open_async(list(keywords.items()), complete)
        except BaseException:
            if server is not None:
                server.stop()
            raise
        connection = cls(core, _conninfo.compose(keywords), server)
        try:
            if migrate:
                await connection.migrate()
            else:
                core.check_schema_version(await core.schema_version_async())
        except BaseException:
            await connection.close()
            raise
        return connection

    @property
    def conninfo(self) -> str:
        """A connection string for libpq (psycopg, psql) that leads to the same database. It may hold the password."""
        return self._conninfo

    async def migrate(self, to: int | None = None) -> int:
        """Brings the schema to version `to`, by default the latest, and returns the version reached.

        Going down drops data and is refused except on a throw-away server ("embedded:"). Safe to call from many
        processes at once, and again. Raises MigrationError; nothing of a migration that failed is kept.
        """
        with Nesting(self._core):
            return await self._core.migrate_async(to)

    async def schema_version(self) -> int:
        """The version of the database's schema; 0 when there is none."""
        with Nesting(self._core):
            return await self._core.schema_version_async()

    async def start_session(
        self,
        *,
        interval: float | timedelta = 5.0,
        processor: str = "unknown",
        warn_stall: float | timedelta | None = 1.0,
        max_stall: float | timedelta | None = None,
    ) -> AsyncSession:
        """Starts a session, which is renewed from now on without Python's help.

        `interval` is how long one renewal lasts, in seconds, rounded up to whole ones: shorter frees the machines of a
        lost worker sooner, longer rides out longer outages of the database. `processor` labels the metrics.

        The session lives on while something holds the GIL and no Python runs: a thread of the core asks for the GIL
        about four times a second, while sessions are open. When it has waited for `warn_stall` seconds, a warning of
        the logger `bmdb.interpreter` shows the main thread's stack, once there is a GIL to look with; when it waits for
        `max_stall` seconds the session is lost, even before that. Both are seconds or a timedelta; None: never.

        Raises ConfigError for an interval below 1 s, ValueError for a stall that is not above 0, MigrationError when
        the database has no schema.
        """
        stalls = positive_seconds("warn_stall", warn_stall), positive_seconds("max_stall", max_stall)
        with Nesting(self._core):
            # async only
            starting = asyncio.ensure_future(self._core.start_session_async(_seconds(interval), processor, stalls))
            try:
                return AsyncSession(self, await asyncio.shield(starting))
            except asyncio.CancelledError:
                starting.add_done_callback(self._end_unwanted)
                raise
            # end async only
            # sync only
            # return Session(self, self._core.start_session(_seconds(interval), processor, stalls))
            # end sync only

    # async only
    def _end_unwanted(self, started: asyncio.Future[_core.Session]) -> None:
        """Ends a session whose start was cancelled, so that nobody knows of it."""
        if not started.cancelled() and started.exception() is None:
            ending = asyncio.ensure_future(self._core.end_session_async(started.result()))
            ending.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    # end async only

    async def register(self, *processes: Process, replace: bool = False) -> None:
        """Stores the processes' exclusions, crash backoffs and quarantines, which then hold for every worker.

        Also what they ask of machines, which `explain` then tells.

        `work()` does it by itself the first time that it is given a Process, so this is for whoever wants it done
        before, or `replace`. In one transaction of its own; what is stored already costs no write, and what this
        connection has registered before no question.

        Only adds: exclusions that are stored stay, also those that a process declared in another version, and settings
        that are None change nothing. With `replace` the processes given are stored as they are, and what they had
        declared before is taken back; exclusions that other processes declared stay. Leases that are held already
        are left alone, and claims under way are judged as they began.

        Raises DatabaseError with the sqlstate 42501 when something has to be written and this role may not,
        MigrationError when the schema is too old, WorkStateError inside a transaction's callback.
        """
        for process in processes:
            if not isinstance(process, Process):
                raise TypeError(f"a Process is registered, not {type(process).__name__}")
        new = [process for process in processes if replace or process not in self._processes]
        if not new:
            return
        with Nesting(self._core):
            await self._core.register_async(new, replace)
        names = {process.name for process in new if replace}
        self._processes = frozenset(new).union(known for known in self._processes if known.name not in names)
        for process in new:
            await self._introduce(process)
            if process.eligible is not None:
                await self._declare(process.name, process.eligible)

    async def history_of(self, machine: UUID) -> list[HistoryEvent]:
        """Everything that happened to the machine, oldest first."""
        return await self._look(lambda q: q.history_of(machine))

    async def session_info(self, session_id: UUID) -> SessionInfo | None:
        """The session's row, live or expired; None once it is closed or collected."""
        return await self._look(lambda q: q.session(session_id))

    async def statistics(self) -> Statistics:
        """The fleet in numbers, from one snapshot."""

        async def count(q: AsyncQueries) -> Statistics:
            return Statistics(
                machines=await q.count_machines(),
                machines_provided=await q.count_provided(),
                machines_heartbeating=await q.count_heartbeating(),
                machines_pending_installation=await q.count_pending_installation(),
                machines_installed=await q.count_installed(),
                machines_pending_agent_start=await q.count_pending_agent_start(),
                machines_pending_agent_recovery=await q.count_pending_agent_recovery(),
                active_work={row.process: row.count for row in await q.count_active_work()},
                active_backoffs={row.process: row.count for row in await q.count_active_backoffs()},
            )

        return await self._look(count)

    async def collect(self) -> Collected:
        """Frees what expired sessions held, with a `Lost` event for each lease; returns how much.

        Every connection with a live session does this by itself. Never waits for a lock: a session whose holder is in
        the middle of a transaction is left for the next time.
        """
        began = 0 if tracing.observer is None else time.time_ns()
        with Nesting(self._core):
            collected = Collected(*await self._core.collect_async())
        if tracing.observer is not None:
            tracing.observer.collected(self, began, *collected)
        return collected

    async def tags(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """The tags in the database, from its catalogue: (name, table, [(field, type), …]), users' own included."""
        with Nesting(self._core):
            return await self._core.tags_async()

    async def tags_of(self, machines: Sequence[UUID]) -> dict[UUID, list[str]]:
        """The names of the tags that these machines have now; a machine without any is left out."""
        held: dict[UUID, list[str]] = {}
        with Nesting(self._core):
            for machine, tag in await self._core.tags_of_async(machines):
                held.setdefault(machine, []).append(tag)
        return held

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """A snapshot of this connection's metrics: [(name, kind, labels, value), …].

        `kind` is "counter" or "gauge" with a number, or "histogram" with ([(upper bound, cumulative count), …], sum) in
        seconds. Costs microseconds; `bmdb.metrics` exports it to Prometheus.
        """
        return self._core.metrics()

    @property
    def closed(self) -> bool:
        """True once closed."""
        return self._core.closed

    async def close(self) -> None:
        """Ends all sessions of this connection, then its connections and its embedded server. Idempotent.

        Raises WorkStateError inside a transaction's callback.
        """
        if self._owner != os.getpid():
            return
        with Nesting(self._core):
            untrack(self)
            await self._core.close_async()
        self._listener.stop(timeout=1.0)
        if self._server is not None:
            # async only
            await asyncio.to_thread(self._server.stop)
            # end async only
            # sync only
            # self._server.stop()
            # end sync only

    def _close_within(self, seconds: float) -> None:
        """Closes at interpreter exit, when nothing may take long. May be called again, to wait on."""
        self._core.close_within(seconds)
        self._listener.stop(timeout=min(seconds, 0.2))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None and self._owner == os.getpid() and not core.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            core.close_within(1.0)

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else "open"
        return f"<{type(self).__name__} to {_conninfo.redact(self._conninfo)}, {state}>"


def _check_settings(
    component: object, runtime_info: object, pool_size: object, isolation: object, max_retries: object
) -> None:
    """Refuses what the core would refuse in words of its own."""
    if not isinstance(component, str) or len(component) > 200:
        raise ConfigError("component must be a str of at most 200 characters")
    if runtime_info is not None and not isinstance(runtime_info, str):
        raise ConfigError(f"runtime_info must be a str, not {type(runtime_info).__name__}")
    if not isinstance(isolation, str):
        raise ConfigError("isolation must be 'serializable', 'repeatable read' or 'read committed'")
    for name, number in (("pool_size", pool_size), ("max_retries", max_retries)):
        if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**31:
            raise ConfigError(f"{name} must be a whole number, and no larger than makes sense")


def _seconds(interval: object) -> float:
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    if isinstance(interval, int | float) and not isinstance(interval, bool):
        return float(interval)
    raise TypeError(f"interval must be seconds or a timedelta, not {type(interval).__name__}")


def _runtime_info() -> str:
    return f"{socket.gethostname()}, pid {os.getpid()}, Python {platform.python_version()}"


# sync only
# connect = Connection.connect
# end sync only
