"""A worker in a process of its own, which can be killed and stopped as real ones are."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

__all__ = ["Child"]

_WAIT = 20.0  # seconds


class Child:
    """A process that runs `command`; a Path or a module ("-m", "name", …) is run by this Python. A context manager.

    `env` comes on top of this process's environment. Leaving the block continues it if it is stopped, and kills it.
    `lines` and `errors` are what it has written so far to its standard output and error, without line ends.

    Raises OSError if it cannot be started.
    """

    def __init__(self, command: Path | Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        words = [str(command)] if isinstance(command, Path) else [*command]
        if isinstance(command, Path) or words[0] in ("-m", "-c"):
            words = [sys.executable, "-u", *words]
        quiet = subprocess.PIPE
        self._process = subprocess.Popen(
            words, stdin=quiet, stdout=quiet, stderr=quiet, text=True, env={**os.environ, **(env or {})}
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), name=f"child-{self.pid}", daemon=True)
            for stream, lines in ((self._process.stdout, self.lines), (self._process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def __repr__(self) -> str:
        return f"<Child {self.pid}, {'running' if self.running else 'ended'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended; one that is stopped has not."""
        return self._process.poll() is None

    def wait(self, timeout: float = _WAIT) -> int:
        """Wait for its end; its exit status (-9: killed). Raises TimeoutError after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} runs on after {timeout} s: {self._story()}") from None

    def expect(self, text: str, timeout: float = _WAIT) -> str:
        """The first line of its standard output that contains `text`, once it is there.

        Raises TimeoutError after `timeout` seconds, AssertionError when it has ended without; both show its output.
        """

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._open == 0, timeout)
            line, ended = found(), self._open == 0
        if line is not None:
            return line
        if ended:
            raise AssertionError(f"the process ended without a line with {text!r}: {self._story()}")
        raise TimeoutError(f"no line with {text!r} within {timeout} s: {self._story()}")

    def send(self, line: str = "") -> None:
        """Write a line to its standard input. Raises BrokenPipeError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL: it ends in the middle of whatever it does. Returns when it is gone."""
        self._process.kill()
        self._process.wait(_WAIT)

    def terminate(self, timeout: float = _WAIT) -> int:
        """SIGTERM, and wait for its end; its exit status. Raises TimeoutError after `timeout` seconds."""
        self._process.terminate()
        return self.wait(timeout)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP within the block, heartbeat and all, as in a virtual machine that is paused; SIGCONT afterwards.

        Raises TimeoutError if it does not stop, ProcessLookupError if it has ended.
        """
        try:
            os.kill(self.pid, signal.SIGSTOP)
            end = time.monotonic() + 5
            while self._state() != "T":
                if time.monotonic() > end:
                    raise TimeoutError(f"process {self.pid} did not stop")
                time.sleep(0.001)
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it runs, and wait until all that it wrote is here."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(_WAIT)
        for reader in self._readers:
            # A grandchild may hold the pipes open; nobody waits for that for long.
            reader.join(1.0)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _state(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            raise ProcessLookupError(f"process {self.pid} has ended") from None

    def _story(self) -> str:
        return f"it wrote {self.lines}, and to standard error {self.errors}"

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()
