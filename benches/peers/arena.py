"""Where peers are measured: one server for all, a new database for each run, workers in processes of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from benches.peers.contract import Entry
from benches.python.server import Server

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
PEERS_PYTHON = FOLDER / ".venv" / "bin" / "python"
ACT = FOLDER / "act.py"


class Failed(Exception):
    """A peer did not do what was asked of it; the text says what it wrote last."""


class Process:
    """An act of an adapter, and what it tells line by line."""

    def __init__(self, server: Server, entry: Entry, *arguments: str) -> None:
        python = str(PEERS_PYTHON) if entry.runs_on == "peers" else sys.executable
        self._act = subprocess.Popen(
            [python, str(ACT), *arguments],
            cwd=ROOT,
            env=os.environ | {"PEERS_PROGRAMS": str(server.programs.directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._act.pid
        self._told: queue.Queue[tuple[str, float] | None] = queue.Queue()
        self.complaints: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_complaints, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._act.stdout is not None
        for line in self._act.stdout:
            word, _, at = line.strip().partition(" ")
            try:
                self._told.put((word, float(at)))
            except ValueError:
                self.complaints.append(line.rstrip())  # a library that prints
        self._told.put(None)

    def _read_complaints(self) -> None:
        assert self._act.stderr is not None
        for line in self._act.stderr:
            self.complaints.append(line.rstrip())
            del self.complaints[:-200]

    def next(self, word: str, seconds: float) -> float:
        """The time of the next such word, others skipped. Raises TimeoutError, and Failed after its end."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                told = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no {word!r} within {seconds:g} s; {self.last_words()}") from None
            if told is None:
                self._told.put(None)
                raise Failed(self.last_words())
            if told[0] == word:
                return told[1]

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._act.stdin is not None
        self._act.stdin.write(line + "\n")
        self._act.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, seconds: float) -> None:
        """Until it has ended well. Raises Failed."""
        try:
            code = self._act.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"not done within {seconds:g} s; {self.last_words()}") from None
        if code != 0:
            raise Failed(self.last_words())

    def kill(self) -> None:
        """End it and all that it started."""
        self.signal(signal.SIGKILL)
        self._act.wait()

    def last_words(self) -> str:
        """The last lines that it wrote to standard error."""
        time.sleep(0.05)
        return " / ".join(self.complaints[-3:]) or "it said nothing"


@dataclass
class Arena:
    """The server, and a connection to it for the harness, to a database in which nothing is measured."""

    server: Server
    sql: psycopg.Connection
    postmaster: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    @contextlib.contextmanager
    def on(cls, server: Server) -> Iterator[Arena]:
        """An arena on a running server."""
        with psycopg.connect(server.conninfo, autocommit=True) as sql:
            row = sql.execute("SELECT current_setting('data_directory')").fetchone()
            assert row is not None
            pid = int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0])
            yield cls(server, sql, pid)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new, empty database. What was before is on disk: no checkpoint falls into the run."""
        name = f"peer_{next(self._numbers)}"
        self.sql.execute(f"CREATE DATABASE {name}")
        self.sql.execute("CHECKPOINT")
        try:
            yield name
        finally:
            self.sql.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def address(self, database: str) -> str:
        """How drivers of all kinds reach a database."""
        return f"postgresql://postgres@127.0.0.1:{self.server.port}/{database}"

    def prepare(self, entry: Entry, database: str, count: int) -> None:
        """Have the adapter install its schema and enqueue units, and the server gather its statistics of them."""
        act = Process(self.server, entry, "prepare", entry.module, entry.variant, self.address(database), str(count))
        act.wait(60 + count / 200)
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def feeder(self, entry: Entry, database: str) -> Process:
        """A process that enqueues a unit for each line."""
        return Process(self.server, entry, "feed", entry.module, entry.variant, self.address(database))

    def worker(self, entry: Entry, database: str, mode: str, count: int = 0, short: bool = False) -> Process:
        """A worker."""
        address = self.address(database)
        return Process(
            self.server, entry, "serve", entry.module, entry.variant, address, mode, str(count), "1" if short else "0"
        )

    def alone(self, database: str) -> None:
        """Wait until nobody is connected to the database, so that its counters are complete."""
        end = time.monotonic() + 10
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        while time.monotonic() < end:
            row = self.sql.execute(asked, [database]).fetchone()
            if row is not None and row[0] == 0:
                return
            time.sleep(0.02)


def missing(entry: Entry) -> str | None:
    """Why an entry cannot be measured here, or None."""
    if entry.tool is not None and shutil.which(entry.tool) is None:
        return f"{entry.name}: left out, {entry.tool} is not installed"
    if not (FOLDER / entry.built).exists():
        return f"{entry.name}: left out, {entry.tool} could not make {entry.built}"
    return None
