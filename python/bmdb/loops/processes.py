"""Loops in OS processes of their own, started by spawn, watched, and started again when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from bmdb import logs
from bmdb.loops.bell import Bell
from bmdb.loops.loop import Loop, imported
from bmdb.loops.state import Snapshot

_LOGGER = logs.logger("bmdb.loops")

# Seconds: before another process is started in place of one that died, doubling up to the second; one that lived for
# so long as the third says begins anew.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_SETTLED = 60.0
# How often a process tells how it does, and how long it may take to give back and exit.
_TELL = 0.5
_EXIT = 8.0


@dataclass(frozen=True)
class Settings:
    """What each process is started with: its loops, the database, a Runner's settings, what to call first."""

    references: tuple[str, ...]
    conninfo: str
    runner: dict[str, Any]
    setup: Callable[[], object] | None


class Worker:
    """One of the processes: a thread watches it. Told "stop" or "now" through a pipe, whose end also means stop."""

    def __init__(self, loops: Sequence[Loop[Any]], serve: Callable[[Settings, Pipe], None]) -> None:
        self._loops = loops
        self._serve = serve
        self._bell = Bell()
        self._pipe: Pipe | None = None
        self._wish: str | None = None
        self._process: Any = None
        self._lock = threading.Lock()
        self._told: tuple[list[Snapshot], list[Any]] | None = None
        self._without = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self, settings: Settings) -> None:
        """Begins."""
        name = f"bmdb-watch-{self._loops[0].name}"
        self._thread = threading.Thread(target=self._watch, args=(settings,), name=name, daemon=True)
        self._thread.start()

    def stop(self, *, now: bool) -> None:
        """Asks it to stop, with its grace or without."""
        with self._lock:
            self._wish = "now" if now else "stop"
            self._tell_wish()
        self._bell.stop()

    def _tell_wish(self) -> None:
        if self._pipe is not None and self._wish is not None:
            # It may be gone already.
            with contextlib.suppress(OSError):
                self._pipe.send(self._wish)

    def join(self, seconds: float) -> bool:
        """Waits for its end, so long at most; whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Ends it at once; what it held goes with its sessions."""
        if self._process is not None:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None or self._process.exitcode is not None else self._process.pid

    def states(self) -> list[Snapshot]:
        """What its loops do, as it told last."""
        told = self._told
        if told is not None:
            return told[0]
        without = round(time.monotonic() - self._without, 3)
        return [Snapshot(loop.name, loop.process.name, without_session_for=without) for loop in self._loops]

    def metrics(self) -> list[Any]:
        """Its metrics, as it told last."""
        told = self._told
        return [] if told is None else told[1]

    def _watch(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        pause = _PAUSE
        while not self._bell.stopped:
            began = time.monotonic()
            try:
                process, ours = self._start(context, settings)
            except Exception as error:
                _LOGGER.error(
                    "process of %s cannot be started, trying again in %.0f s: %s",
                    ", ".join(loop.name for loop in self._loops),
                    pause,
                    error,
                )
                self._bell.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            with self._lock:
                self._pipe, self._process = ours, process
                self._tell_wish()
            self._listen(ours)
            process.join()
            with self._lock:
                self._pipe = None
                ours.close()
            if not self._bell.stopped:
                # What one told last that was to end stays: it is the last word.
                self._told, self._without = None, time.monotonic()
            if time.monotonic() - began > _SETTLED:
                pause = _PAUSE
            if not self._bell.stopped:
                _LOGGER.warning(
                    "process %s of %s ended with status %s, another is started in %.0f s",
                    process.pid,
                    ", ".join(loop.name for loop in self._loops),
                    process.exitcode,
                    pause,
                )
            self._bell.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _start(self, context: SpawnContext, settings: Settings) -> tuple[SpawnProcess, Pipe]:
        ours, theirs = context.Pipe()
        try:
            # Not a daemon in multiprocessing's sense: functions may start processes.
            process = context.Process(target=self._serve, args=(settings, theirs), name=self._loops[0].name)
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours

    def _listen(self, pipe: Pipe) -> None:
        while True:
            try:
                self._told = pipe.recv()
            except (EOFError, OSError):
                return


class Processes:
    """All processes that a runner has started."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[Loop[Any]], int]], serve: Callable[[Settings, Pipe], None]
    ) -> None:
        for loops, _ in groups:
            for loop in loops:
                if imported(loop.reference) is not loop:
                    raise ValueError(f"{loop.reference} is another loop than the one to be run in processes of its own")
        self._groups = [(loops, [Worker(loops, serve) for _ in range(count)]) for loops, count in groups]

    @property
    def workers(self) -> list[Worker]:
        """Each of them."""
        return [worker for _, workers in self._groups for worker in workers]

    def start(self, conninfo: str, runner: dict[str, Any], setup: Callable[[], object] | None) -> None:
        """Begins."""
        for loops, workers in self._groups:
            settings = Settings(tuple(loop.reference for loop in loops), conninfo, runner, setup)
            for worker in workers:
                worker.start(settings)

    def stop(self, *, now: bool) -> None:
        """Asks all to stop."""
        for worker in self.workers:
            worker.stop(now=now)

    def end(self, seconds: float, hurry: Callable[[], bool]) -> None:
        """Waits until all have ended, for so long and the time to exit; less when in a hurry. Kills what is left."""
        began = time.monotonic()
        for worker in self.workers:
            while not worker.join(0.05):
                if time.monotonic() - began > (2.0 if hurry() else seconds + _EXIT):
                    _LOGGER.error("process %s did not end in time and is killed", worker.pid)
                    worker.kill()
                    worker.join(5.0)
                    break


def obey(pipe: Pipe, stop: Callable[[bool], object], told: Callable[[], object]) -> Callable[[], None]:
    """The other end of the pipe: obeys what comes through it, and tells how it goes.

    Returns at once; what it returns tells a last time.
    """
    ended = threading.Event()

    def listen() -> None:
        while True:
            try:
                stop(pipe.recv() == "now")
            except (EOFError, OSError):
                # Whoever started this process has died.
                stop(False)
                return

    def tell() -> None:
        while True:
            last = ended.is_set()
            try:
                pipe.send(told())
            except (OSError, ValueError):
                return
            except Exception:
                _LOGGER.exception("could not tell how the loops do")
            if last:
                return
            ended.wait(_TELL)

    def tell_last() -> None:
        ended.set()
        teller.join(_TELL)

    threading.Thread(target=listen, name="bmdb-listen", daemon=True).start()
    teller = threading.Thread(target=tell, name="bmdb-tell", daemon=True)
    teller.start()
    return tell_last
