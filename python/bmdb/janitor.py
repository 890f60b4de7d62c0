"""Reads statistics from the database now and then, and keeps what it read for whoever asks meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bmdb import conninfo as _conninfo
from bmdb import logs
from bmdb._async.connection import AsyncConnection
from bmdb._sync.connection import Connection
from bmdb._sync.queries import Queries
from bmdb.errors import ConfigError, ConnectionFailedError, MigrationError
from bmdb.identity import Unique
from bmdb.statistics import Statistic, checked_statistics, series_of

__all__ = ["BACKLOG", "BUILT_IN", "Janitor", "Kind", "Reading"]

_LOGGER = logs.logger("bmdb.statistics")

Series = dict[tuple[str, ...], float]

# Seconds: how long one statement may take, how long whoever asks waits for a reading that is under way, and for how
# long a label value that has vanished reads 0.
STATEMENT_LIMIT = 3.0
PATIENCE = 5.0
FORGET = 3600.0
_MOST_SERIES = 1000


@dataclass(frozen=True)
class Kind:
    """What is counted: `name` without its prefix, a help text, names of labels, how many label values at most."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    prefix: str = "bmdb_stats_"
    max_series: int = _MOST_SERIES

    @property
    def metric(self) -> str:
        """The gauge's name."""
        return self.prefix + self.name


@dataclass(frozen=True)
class Reading:
    """How one statistic stands.

    `process` is that of a backlog, else empty. `series` are numbers by label values, empty while the statistic
    fails; `error` then says why. `at` is when it succeeded last, on the janitor's clock, and None before; `seconds` how
    long the last reading took; `dropped` how many label values there were too many.
    """

    kind: Kind
    process: str = ""
    series: Series = field(default_factory=dict)
    at: float | None = None
    seconds: float = 0.0
    error: str | None = None
    failures: int = 0
    dropped: int = 0


def _by_process(rows: Iterable[Any]) -> dict[str, int]:
    return {row.process: row.count for row in rows}


def _called(name: str) -> Callable[[Queries], Any]:
    return lambda q: {row[0]: row[1] for row in q._core.call(name, ())}


_PROCESS = ("process",)
# The nine of the original first.
BUILT_IN: Mapping[Kind, Callable[[Queries], Any]] = {
    Kind("machines", "All machines"): lambda q: q.count_machines(),
    Kind("machines_provided", "Machines that some provider has"): lambda q: q.count_provided(),
    Kind("machines_heartbeating", "Machines whose agent was heard from within 10 minutes"): (
        lambda q: q.count_heartbeating()
    ),
    Kind("machines_pending_installation", "Machines whose OS installation is requested and not reported on"): (
        lambda q: q.count_pending_installation()
    ),
    Kind("machines_installed", "Machines whose requested OS installation succeeded"): lambda q: q.count_installed(),
    Kind("machines_pending_agent_start", "Machines that need their agent started"): (
        lambda q: q.count_pending_agent_start()
    ),
    Kind("machines_pending_agent_recovery", "Machines whose agent fell silent and needs recovery"): (
        lambda q: q.count_pending_agent_recovery()
    ),
    Kind("active_work", "Leases", _PROCESS): lambda q: _by_process(q.count_active_work()),
    Kind("active_backoffs", "Backoffs that keep their process off a machine now", _PROCESS): (
        lambda q: _by_process(q.count_active_backoffs())
    ),
    Kind("sessions", "Sessions that live, and expired ones that are not collected yet", ("state",)): (
        lambda q: {"live": 0, "expired": 0} | _called("statistics_count_sessions")(q)
    ),
    Kind("collection_lag_seconds", "For how long the longest expired session has waited for its collection"): (
        lambda q: q._core.call("statistics_collection_lag", ())
    ),
    Kind("quarantines", "Machines in quarantine", _PROCESS): _called("statistics_count_quarantines"),
    Kind("holds", "Holds in force; an empty process is one for all", _PROCESS): (
        lambda q: {"": 0} | _called("statistics_count_holds")(q)
    ),
}
BACKLOG = Kind("backlog", "Machines that some worker could lease now", _PROCESS)
# Those that read 0 for each registered process, from the first time on.
_FOR_EACH = frozenset({"active_work", "active_backoffs", "quarantines"})


class Janitor(Unique):
    """Statistics of one database, read on a thread of its own: not before somebody asks, and not again for `every`.

    Each is read in a read-only transaction of its own, on one snapshot, whose statements may take 3 s each, over one
    connection (a second one for statistics that are `async def`). A statistic that fails has no numbers until it
    succeeds again; the others have theirs. Connects when first asked, and again after an outage. Any number of
    janitors may read the same database.

    `conninfo` as for `bmdb.connect`, but no embedded server. `every` is in seconds.

    Raises TypeError for what is no statistic, ValueError for two of one name, ConfigError for a database that cannot be
    shared.
    """

    def __init__(
        self,
        conninfo: str | None = None,
        statistics: Iterable[Statistic[Any]] = (),
        *,
        every: float = 60.0,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        given = _conninfo.given(conninfo)
        if _conninfo.is_embedded(given):
            raise ConfigError("statistics are read over a connection of their own: give the server's own conninfo")
        self._conninfo = _read_only(given)
        self._users = {
            Kind(one.name, one.help, one.labels, "bmdb_user_", one.max_series): one
            for one in checked_statistics(statistics)
        }
        self._every = every
        self._patience = patience
        self.clock = clock
        self._news = threading.Condition()
        self._readings: dict[tuple[Kind, str], Reading] = {}
        self._seen: dict[tuple[str, str], dict[tuple[str, ...], float]] = {}
        self._registered: list[str] = []
        # What the log has said that it cannot be read; None for all of them.
        self._told: set[tuple[str, str] | None] = set()
        self._begun: float | None = None
        self._wanted = self._reading = self._closed = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._asynchronous: AsyncConnection | None = None

    @property
    def kinds(self) -> Sequence[Kind]:
        """What it counts."""
        return (*BUILT_IN, BACKLOG, *self._users)

    def read(self) -> list[Reading]:
        """How all statistics stand. Has them read anew if the last time is `every` ago, and waits a while for that."""
        with self._news:
            if not self._closed and not self._reading and self._due():
                self._reading = self._wanted = True
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="bmdb-statistics", daemon=True)
                    self._thread.start()
                self._news.notify_all()
            self._news.wait_for(lambda: not self._reading or self._closed, self._patience)
            return list(self._readings.values())

    def close(self, timeout: float = 1.0) -> None:
        """Ends its thread and its connections. What was read last stays readable."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _due(self) -> bool:
        return self._begun is None or self.clock() - self._begun >= self._every

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._wanted or self._closed)
                    if self._closed:
                        break
                    self._wanted = False
                    self._begun = self.clock()
                try:
                    self._read_all(runner)
                except Exception:
                    _LOGGER.exception("statistics could not be read")
                finally:
                    with self._news:
                        self._reading = False
                        self._news.notify_all()
            self._disconnect(runner)

    def _read_all(self, runner: asyncio.Runner) -> None:
        unreachable: Exception | None = None
        try:
            connection = self._connected()
            self._registered = [known.process for known in connection.registered()]
        except (ConnectionFailedError, ConfigError, MigrationError) as error:
            unreachable = error
        except Exception as error:
            _LOGGER.warning("the registered processes could not be listed: %s", error)
        for kind, process, read in self._sources(runner):
            if self._closed:
                return
            began = time.monotonic()
            try:
                if unreachable is not None:
                    raise unreachable
                answer = read()
                if answer is None:
                    self._forget_reading(kind, process)
                    continue
                series = series_of(answer, len(kind.labels))
            except Exception as error:
                if isinstance(error, ConnectionFailedError) and kind not in self._users:
                    # The others would only wait for the same. Users may mean another server.
                    unreachable = error
                told = f"{type(error).__name__}: {error}"
                self._failed(kind, process, told, time.monotonic() - began)
                self._tell(None if error is unreachable else (kind.metric, process), told)
            else:
                self._succeeded(kind, process, series, time.monotonic() - began)
        self._forget_processes()

    def _sources(self, runner: asyncio.Runner) -> Iterable[tuple[Kind, str, Callable[[], Any]]]:
        for kind, count in BUILT_IN.items():
            yield kind, "", lambda count=count: self._connected()._look(count, seconds=STATEMENT_LIMIT)  # type: ignore[misc]
        for process in self._registered:
            yield BACKLOG, process, lambda process=process: self._backlog(process)  # type: ignore[misc]
        for kind, own in self._users.items():
            if own.asynchronous:
                yield kind, "", lambda own=own: runner.run(self._read_async(own))  # type: ignore[misc]
            else:
                yield kind, "", lambda own=own: _counted(self._connected()._look(own.fn, seconds=STATEMENT_LIMIT))  # type: ignore[misc]

    def _backlog(self, process: str) -> Any:
        backlog = self._connected().backlog(process)
        return None if backlog is None else {process: backlog}

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection.connect(self._conninfo, component="bmdb statistics", pool_size=1, pooler=None)
        return self._connection

    async def _read_async(self, own: Statistic[Any]) -> Any:
        if self._asynchronous is None:
            self._asynchronous = await AsyncConnection.connect(
                self._conninfo, component="bmdb statistics", pool_size=1, pooler=None
            )
        return _counted(await self._asynchronous._look(own.fn, seconds=STATEMENT_LIMIT))

    def _disconnect(self, runner: asyncio.Runner) -> None:
        with contextlib.suppress(Exception):
            if self._connection is not None:
                self._connection.close()
        with contextlib.suppress(Exception):
            if self._asynchronous is not None:
                runner.run(self._asynchronous.close())

    def _succeeded(self, kind: Kind, process: str, series: Series, seconds: float) -> None:
        now = self.clock()
        kept, dropped = self._with_vanished(kind, process, series, now)
        with self._news:
            before = self._readings.get((kind, process))
            failures = before.failures if before else 0
            self._readings[kind, process] = Reading(kind, process, kept, now, seconds, None, failures, dropped)
        for known in self._told & {None, (kind.metric, process)}:
            self._told.discard(known)
            _LOGGER.info("%s can be read again", "statistics" if known is None else " ".join(known).strip())

    def _tell(self, what: tuple[str, str] | None, why: str) -> None:
        """Once, until it can be read again."""
        if what not in self._told:
            self._told.add(what)
            _LOGGER.warning("%s cannot be read: %s", "statistics" if what is None else " ".join(what).strip(), why)

    def _failed(self, kind: Kind, process: str, told: str, seconds: float) -> None:
        with self._news:
            before = self._readings.get((kind, process), Reading(kind, process))
            self._readings[kind, process] = replace(
                before, series={}, seconds=seconds, error=told, failures=before.failures + 1, dropped=0
            )

    def _with_vanished(self, kind: Kind, process: str, series: Series, now: float) -> tuple[Series, int]:
        """With 0 for each label value that was there within the last hour; and how many there were too many."""
        if not kind.labels:
            return series, 0
        if kind.name in _FOR_EACH:
            series = {(name,): 0.0 for name in self._registered} | series
        of = (kind.metric, process)
        seen = {key: last for key, last in self._seen.get(of, {}).items() if key in series or now - last < FORGET}
        # Those that are known already first, so that it is always the same that are left out.
        keys = sorted(series, key=lambda key: key not in seen)
        kept = {key: series[key] for key in keys[: kind.max_series]}
        vanished = [key for key in seen if key not in series]
        kept.update(dict.fromkeys(vanished[: kind.max_series - len(kept)], 0.0))
        self._seen[of] = {key: now if key in series else seen[key] for key in kept}
        return kept, max(0, len(keys) - kind.max_series)

    def _forget_reading(self, kind: Kind, process: str) -> None:
        with self._news:
            self._readings.pop((kind, process), None)

    def _forget_processes(self) -> None:
        """A process that is not registered any more has a backlog of 0 for a while, and then none."""
        now = self.clock()
        with self._news:
            for (kind, process), reading in list(self._readings.items()):
                if not process or process in self._registered:
                    continue
                if reading.at is None or now - reading.at >= FORGET:
                    del self._readings[kind, process]
                    self._seen.pop((kind.metric, process), None)
                else:
                    self._readings[kind, process] = replace(reading, series={(process,): 0.0}, error=None)


def _counted(answer: Any) -> Any:
    if answer is None:
        raise TypeError("the statistic returned None, not what it counted")
    return answer


def _read_only(given: str) -> str:
    """The same database, for looking only."""
    keywords = _conninfo.resolve(given)
    limits = f"-c default_transaction_read_only=on -c statement_timeout={int(STATEMENT_LIMIT * 1000)}"
    # The last one wins.
    keywords["options"] = " ".join(filter(None, (keywords.get("options"), limits)))
    return _conninfo.compose(keywords)
