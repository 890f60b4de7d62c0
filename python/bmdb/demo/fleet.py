"""The worker processes: starting them, hearing from them, and ending them in every way there is."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any, Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker said: an event, which machine and lease it is about, and the rest as it came."""

    worker: Worker
    event: str
    at: datetime
    machine: UUID | None = None
    token: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One worker process, and what it has told about itself so far."""

    def __init__(self, number: int, process: subprocess.Popen[str]) -> None:
        self.number = number
        self.name = component(number)
        self.process = process
        self.sessions: list[UUID] = []
        self.reports: list[Report] = []
        self.complaints: deque[str] = deque(maxlen=30)
        self.killed = False
        self.stopped = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def __str__(self) -> str:
        return self.name


def component(number: int) -> str:
    """The component name under which a worker's sessions appear in the database."""
    return f"worker {number}"


class Fleet:
    """All workers. Leaving the block kills those that still run.

    A worker's standard input is a pipe from this process, so it ends when this process does, however that happens. Each
    is a process group of its own, so Ctrl-C in a terminal reaches this process only; and one that is stopped when this
    process dies gets the SIGHUP that the kernel sends to stopped groups left without a parent.
    """

    def __init__(self, conninfo: str, count: int, *, interval: float, limit: int, providers: Sequence[str]) -> None:
        self.workers: list[Worker] = []
        self._conninfo = conninfo
        self._count = count
        self._options = [f"--interval={interval:g}", f"--limit={limit}", *(f"--provider={name}" for name in providers)]
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            for number in range(1, self._count + 1):
                self._start(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, number: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "bmdb.demo.worker", f"--name={component(number)}", *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "BMDB_CONNINFO": self._conninfo},
            process_group=0,
        )
        worker = Worker(number, process)
        self.workers.append(worker)
        for read, stream in ((self._hear, process.stdout), (self._note, process.stderr)):
            reader = threading.Thread(target=read, args=(worker, stream), name=f"demo-worker-{number}", daemon=True)
            reader.start()
            self._readers.append(reader)

    def _hear(self, worker: Worker, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                # The last line of a killed worker may be cut off.
                if not line.endswith("\n"):
                    break
                said = json.loads(line)
                machine = said.pop("machine", None)
                report = Report(
                    worker=worker,
                    event=said.pop("event"),
                    at=datetime.now(UTC),
                    machine=None if machine is None else UUID(machine),
                    token=said.pop("token", None),
                    fields=said,
                )
                if report.event == "session":
                    worker.sessions.append(UUID(said["session"]))
                worker.reports.append(report)
                self._reports.put(report)
        self._reports.put(Report(worker, "ended", datetime.now(UTC)))

    def _note(self, worker: Worker, stream: IO[str]) -> None:
        with stream:
            worker.complaints.extend(line.rstrip() for line in stream)

    def heard(self, seconds: float) -> list[Report]:
        """What was said since the last call; waits so long for the first of it."""
        found: list[Report] = []
        try:
            found.append(self._reports.get(timeout=seconds))
            while True:
                found.append(self._reports.get_nowait())
        except queue.Empty:
            return found

    def stop(self, worker: Worker) -> None:
        """SIGSTOP: the worker freezes, its heartbeat with it."""
        worker.process.send_signal(signal.SIGSTOP)
        worker.stopped = True

    def resume(self, worker: Worker) -> None:
        """SIGCONT: the worker goes on as if nothing had happened."""
        worker.process.send_signal(signal.SIGCONT)
        worker.stopped = False

    def kill(self, worker: Worker) -> None:
        """SIGKILL: the worker is gone at once, without a word to anybody. It may be stopped."""
        worker.killed = True
        worker.process.kill()
        worker.process.wait()

    def end(self, seconds: float) -> None:
        """Has the workers end their work and their sessions; who has not after so many seconds is killed."""
        for worker in self.workers:
            if worker.stopped:
                self.resume(worker)
            self._hang_up(worker)
        deadline = time.monotonic() + seconds
        for worker in self.workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.complaints.append(f"it did not end within {seconds:g} s")
                worker.process.kill()
                worker.process.wait()
        self._join()

    def close(self) -> None:
        """Kills whoever still runs. Idempotent."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
            self._hang_up(worker)
        self._join()

    @staticmethod
    def _hang_up(worker: Worker) -> None:
        if worker.process.stdin is not None:
            worker.process.stdin.close()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(5.0)
