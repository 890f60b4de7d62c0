"""Worker processes for the tests, and signals to them or to a backend of PostgreSQL, always by process id.

Everything here cleans up after itself: a stopped process is continued, a worker is killed, its pipes and threads end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

import psutil

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 20.0


def suspend(pid: int) -> None:
    """SIGSTOP a process and wait until it has stopped. Raises psutil.NoSuchProcess, and TimeoutError after 5 s."""
    process = psutil.Process(pid)
    process.suspend()
    deadline = time.monotonic() + 5
    while process.status() != psutil.STATUS_STOPPED:
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} did not stop")
        time.sleep(0.001)


def resume(pid: int) -> None:
    """SIGCONT a process; one that is gone is no error."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).resume()


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Keep a process (a worker, a backend, the postmaster) stopped within the block."""
    try:
        suspend(pid)
        yield
    finally:
        resume(pid)


def kill(pid: int) -> None:
    """SIGKILL a process and wait until it is gone. Raises psutil.TimeoutExpired if that takes too long."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        process.wait(WAIT_SECONDS)


class WorkerProcess:
    """A Python process whose output is read line by line as it comes.

    `lines` and `errors` hold what it wrote so far to its standard output and standard error, without line ends.
    """

    def __init__(self, source: str | Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        program = [str(source)] if isinstance(source, Path) else ["-c", textwrap.dedent(source)]
        search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-u", *program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": search, **(env or {})},
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), name=f"worker-{self.pid}", daemon=True)
            for stream, lines in ((self._process.stdout, self.lines), (self._process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended (a stopped process has not)."""
        return self._process.poll() is None

    def expect(self, text: str, timeout: float = WAIT_SECONDS) -> str:
        """The first line of standard output that contains `text`, once it is there.

        Raises TimeoutError after `timeout` seconds, or AssertionError when the process ended without it; both show the
        output so far.
        """

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._open == 0, timeout)
            line, ended = found(), self._open == 0
        if line is not None:
            return line
        story = f"no line with {text!r} in {self.lines}, standard error: {self.errors}"
        if ended:
            raise AssertionError(f"the worker ended: {story}")
        raise TimeoutError(story)

    def send(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def suspend(self) -> None:
        """SIGSTOP it, and wait until it has stopped."""
        suspend(self.pid)

    def resume(self) -> None:
        """SIGCONT it."""
        resume(self.pid)

    def suspended(self) -> contextlib.AbstractContextManager[None]:
        """Keep it stopped within the block."""
        return suspended(self.pid)

    def interrupt(self) -> None:
        """SIGINT, as Ctrl-C sends it."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL it and wait for its end."""
        self._process.kill()
        self.wait()

    def wait(self, timeout: float = WAIT_SECONDS) -> int:
        """Its exit status (negative: the signal that ended it), once it and its output have ended.

        Raises subprocess.TimeoutExpired.
        """
        status = self._process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return status

    def close(self) -> None:
        """End it, whatever its state, and the processes that it started."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
        resume(self.pid)
        self._process.kill()
        for child in children:
            kill(child.pid)
        self.wait()
        if self._process.stdin is not None:
            # Closing flushes, and nobody reads any more.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


class Spawn(Protocol):
    """Starts a worker process: Python source text (indented as it may be) or a file, arguments, environment on top."""

    def __call__(self, source: str | Path, *arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess: ...


@contextlib.contextmanager
def spawning() -> Iterator[Spawn]:
    """A `Spawn` whose workers all end with the block."""
    with contextlib.ExitStack() as stack:

        def spawn(source: str | Path, *arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
            return stack.enter_context(contextlib.closing(WorkerProcess(source, *arguments, env=env)))

        yield spawn


def eventually(condition: Callable[[], object], timeout: float = WAIT_SECONDS, *, every: float = 0.02) -> None:
    """Wait until `condition` answers something true. Raises TimeoutError; the condition may be called many times."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        time.sleep(every)


async def eventually_async(
    condition: Callable[[], object], timeout: float = WAIT_SECONDS, *, every: float = 0.02
) -> None:
    """The same, letting the event loop run meanwhile; the condition may be an `async def`."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        await asyncio.sleep(every)
