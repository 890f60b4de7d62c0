"""Runs loops in this OS process, from connecting to giving everything back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Any, Self

from bmdb import logs
from bmdb.errors import ConnectionFailedError
from bmdb.identity import Unique
from bmdb.janitor import Janitor
from bmdb.loops.bell import Bell
from bmdb.loops.health import Health
from bmdb.loops.loop import Loop, imported
from bmdb.loops.plan import checked_grace, divided, listed
from bmdb.loops.processes import Processes, Settings, obey
from bmdb.loops.signals import attend
from bmdb.loops.state import Snapshot
from bmdb.loops.tasks import Tasks
from bmdb.loops.threads import Threads
from bmdb.loops.wakeup import Wakeup
from bmdb.statistics import Statistic, checked_statistics

__all__ = ["Runner", "run"]

_LOGGER = logs.logger("bmdb.loops")

# Seconds. Between two looks at what the heartbeat has collected and whether to stop.
_TICK = 0.5
# What the first connection waits after a failure, doubling up to the second.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# How long giving back may take before it is left to the sessions' expiry, and how long after a second signal.
_RELEASE = 5.0
_RELEASE_NOW = 1.0


class Runner(Unique):
    """Loops that run in the background: `start`, `stop`, `wait`, or a `with` block, which does all three.

    `bmdb.run` explains the settings. An outage of the database, at the start too, is waited out.
    """

    def __init__(
        self,
        loops: Loop[Any] | Iterable[Loop[Any]],
        conninfo: str | None = None,
        *,
        component: str | None = None,
        grace: float = 30.0,
        listen: str | None = None,
        wakeup: bool = True,
        migrate: bool = False,
        processes: int | None = None,
        setup: Callable[[], object] | None = None,
        statistics: Iterable[Statistic[Any]] | None = (),
        statistics_every: float = 60.0,
        _all_here: bool = False,
    ) -> None:
        self._loops = listed(loops)
        self._conninfo = conninfo
        self._component = component or ", ".join(loop.name for loop in self._loops)[:200]
        self._grace = checked_grace(grace)
        self._listen = listen
        self._setup = setup
        self._statistics = None if statistics is None else checked_statistics(statistics)
        self._statistics_every = statistics_every
        self._janitor: Janitor | None = None
        self._here, groups = divided(self._loops, 0 if _all_here else processes)
        self._processes = Processes(groups, _serve)
        self._wants_hints = wakeup
        self._migrate = migrate
        self._news = Bell()
        self._stopping = False
        self._now = False
        self._ready = False
        self._executors: list[Threads | Tasks] = []
        self._wakeup: Wakeup | None = None
        self._health: Health | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bmdb-runner", daemon=True)

    def start(self) -> Self:
        """Begins, without waiting for the database.

        Raises RuntimeError when it was started before, ConfigError when it cannot listen where it should.
        """
        if self._listen is not None and self._health is None:
            self._health = Health(self._listen, self)
        self._thread.start()
        return self

    def stop(self, *, now: bool = False) -> None:
        """Leases nothing more, lets running work end for the grace, then gives back what is left; returns at once.

        With `now` there is no grace, also when it stops already.
        """
        self._stopping = True
        self._now = self._now or now
        for crew in self._crews:
            crew.bell.stop()
        self._processes.stop(now=self._now)
        self._news.ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, for so many seconds at most; whether it has.

        Raises what ended it unasked: ConfigError, or MigrationError when the database has no schema, or one too new.
        """
        ended = self._ended.wait(timeout)
        if self._error is not None:
            raise self._error
        return ended

    def states(self) -> list[Snapshot]:
        """What each loop does just now, in each OS process; empty before the database has been reached."""
        if not self._ready:
            return []
        told = [state for worker in self._processes.workers for state in worker.states()]
        return [crew.state.snapshot() for crew in self._crews] + told

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether every loop has a session, or has been without for a moment only, and what /healthz says.

        Not before the database has been reached, and no more once it stops.
        """
        states = self.states()
        well = bool(states) and all(state.well for state in states) and not self._stopping
        status = "stopping" if self._stopping else "starting" if not states else "ok" if well else "unwell"
        document = {"status": status, "hints": self.listening, "loops": [state.document() for state in states]}
        return well, document

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """A snapshot of the metrics of all its connections, for `bmdb.metrics.Collector`."""
        told = [sample for worker in self._processes.workers for sample in worker.metrics()]
        return [sample for executor in self._executors for sample in executor.metrics()] + told

    @property
    def janitor(self) -> Janitor | None:
        """Who reads statistics of the database for /metrics; None before the database has been reached."""
        return self._janitor

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the health page listens: host and port."""
        return None if self._health is None else self._health.address

    @property
    def listening(self) -> bool:
        """Whether hints from the database are heard just now."""
        return self._wakeup is not None and self._wakeup.listening

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(now=error is not None)
        self.wait()

    @property
    def _crews(self) -> list[Any]:
        return [crew for executor in self._executors for crew in executor.crews]

    def _run(self) -> None:
        try:
            conninfo = self._open()
            if conninfo is not None and not self._stopping:
                self._work(conninfo)
        except BaseException as error:
            self._error = error
        finally:
            try:
                self._close()
            finally:
                if self._health is not None:
                    self._health.stop()
                self._ended.set()

    def _open(self) -> str | None:
        """Connects what the loops need; a connection string for others. None when it was stopped before."""
        conninfo = self._conninfo
        plain = [loop for loop in self._here if not loop.asynchronous]
        tasks = [loop for loop in self._here if loop.asynchronous]
        for kind, loops in ((Threads, plain), (Tasks, tasks)):
            # Without a loop here it finds out for the other processes whether the database can be used, and where.
            if not loops and (kind is Tasks or self._here):
                continue
            executor: Threads | Tasks = kind(loops)
            self._executors.append(executor)
            opened = self._opened(executor, conninfo)
            if opened is None:
                return None
            conninfo = opened
        return conninfo

    def _opened(self, executor: Threads | Tasks, conninfo: str | None) -> str | None:
        pause = _PAUSE
        while not self._stopping:
            try:
                return executor.open(conninfo, self._component, self._migrate, self._news.ring)
            except ConnectionFailedError as error:
                _LOGGER.warning("the database cannot be reached, trying again in %.0f s: %s", pause, error)
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return None

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._news.wait(self._news.rings, min(left, _TICK))

    def _work(self, conninfo: str) -> None:
        settings = {"component": self._component, "grace": self._grace, "wakeup": self._wants_hints}
        self._processes.start(conninfo, settings, self._setup)
        if self._listen is not None and self._statistics is not None:
            # Connects only when /metrics is asked for.
            self._janitor = Janitor(conninfo, self._statistics, every=self._statistics_every)
        if self._wants_hints and self._here:
            self._wakeup = Wakeup(conninfo, self._hear)
            self._wakeup.start()
        for executor in self._executors:
            executor.start()
        self._ready = True
        collected = 0
        while True:
            seen = self._news.rings
            if self._stopping:
                break
            self._news.wait(seen, _TICK)
            # What this process has collected may be work for it: not every database sends hints.
            if (now := self._collected()) > collected:
                collected = now
                self._hear(None)
        self._let_end()

    def _collected(self) -> int:
        return sum(
            int(value)
            for executor in self._executors
            for name, _, _, value in executor.metrics()
            if name == "bmdb_collected_leases"
        )

    def _hear(self, process: str | None) -> None:
        for crew in self._crews:
            of_interest = (crew.loop.process.name, *crew.loop.process.excludes)
            if process is None or process in of_interest:
                crew.wake()

    def _let_end(self) -> None:
        """Waits for running work, as long as the grace lasts."""
        # It may have begun to lease while the stop was asked for.
        for crew in self._crews:
            crew.bell.stop()
        self._processes.stop(now=self._now)
        end = time.monotonic() + self._grace
        while not self._now:
            seen = self._news.rings
            running = sum(crew.state.running for crew in self._crews)
            left = end - time.monotonic()
            if not running:
                return
            if left <= 0:
                _LOGGER.warning("work on %d machines has not ended within %g s: it is given back", running, self._grace)
                return
            if not self._now:
                self._news.wait(seen, left)

    def _close(self) -> None:
        done = self._within([executor.release for executor in self._executors])
        for executor, released in zip(self._executors, done, strict=True):
            if not released:
                _LOGGER.warning("leases could not be given back in time: they end with their sessions")
                executor.give_up()
        if self._wakeup is not None:
            self._wakeup.stop(0.2)
        if self._janitor is not None:
            self._janitor.close()
        self._processes.end(self._grace, lambda: self._now)
        self._within([executor.close for executor, released in zip(self._executors, done, strict=True) if released])

    def _within(self, actions: Sequence[Callable[[], object]]) -> list[bool]:
        """Does all of it at the same time; whether each came to its end in time."""
        threads = [threading.Thread(target=action, name="bmdb-closing", daemon=True) for action in actions]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and time.monotonic() - began < (_RELEASE_NOW if self._now else _RELEASE):
                thread.join(0.05)
        return [not thread.is_alive() for thread in threads]


def run(
    loops: Loop[Any] | Iterable[Loop[Any]],
    conninfo: str | None = None,
    *,
    component: str | None = None,
    grace: float = 30.0,
    listen: str | None = None,
    wakeup: bool = True,
    migrate: bool = False,
    processes: int | None = None,
    setup: Callable[[], object] | None = None,
    statistics: Iterable[Statistic[Any]] | None = (),
    statistics_every: float = 60.0,
) -> list[Snapshot]:
    """Runs loops until SIGTERM or SIGINT, then returns what each has done, in each OS process.

    The first signal ends leasing. Running work may end for `grace` seconds; then tasks are cancelled and all leases
    left are given back, so that others have them at once, even while a plain function still runs: what that one wants
    to finish later is refused. A second signal gives back at once and raises SystemExit (128 + the signal's number).
    Handlers are set in the main thread only, and the ones before come back at the end; off it, use a `Runner`.

    * `conninfo`: as for `bmdb.connect`; `component` names this part of the fleet manager in sessions and history, by
      default by its loops.
    * `listen`: HOST:PORT for /healthz (JSON; 200 while every loop has a session, else 503) and /metrics (extra
      `metrics`).
    * `wakeup`: listen for hints (`q.notify`, leases given back) on a connection of its own.
    * `migrate`: bring the schema up to date first.
    * `processes`: run all loops in so many OS processes, started by spawn, each with connections, sessions and
      `parallelism` of its own, and started again when it dies. By default only loops with executor="process" are, each
      in its own ones. Such loops must be found in their module by the name of their function. `setup` is called first
      in each of these processes, to set up logging and the like; it must be importable too.
    * `statistics`: gauges of your own, by `bmdb.statistic`, for /metrics beside those of the fleet, which are read when
      they are asked for, and at most once in `statistics_every` seconds; None: neither.

    The database may be unreachable for as long as it likes, at the start too. Raises ConfigError for settings that
    cannot be used, MigrationError when the database has no schema, or one too new.
    """
    runner = Runner(
        loops,
        conninfo,
        component=component,
        grace=grace,
        listen=listen,
        wakeup=wakeup,
        migrate=migrate,
        processes=processes,
        setup=setup,
        statistics=statistics,
        statistics_every=statistics_every,
    )
    attend(runner)
    return runner.states()


def _serve(settings: Settings, pipe: Pipe) -> None:
    """The life of a process of its own."""
    if settings.setup is not None:
        settings.setup()
    loops = [imported(reference) for reference in settings.references]
    runner = Runner(loops, settings.conninfo, **settings.runner, _all_here=True)
    tell_last = obey(pipe, lambda now: runner.stop(now=now), lambda: (runner.states(), runner.metrics()))
    attend(runner)
    tell_last()
