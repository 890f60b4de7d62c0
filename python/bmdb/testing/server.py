"""The server of a test run, and a fresh database for each test.

One embedded server for the whole run, also for all processes of pytest-xdist: the first that needs it starts it, each
holds a lock that the kernel gives up with the process, and a small process of our own waits for that, stops what
still runs and removes the directory, whatever way the others ended. It lives in memory where there is room, without
fsync.

Databases are copies of one that is migrated once. A thread makes the next ones while a test runs, so that a test
rarely waits for its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

import bmdb
from bmdb import _core, embedded

__all__ = ["Server"]

# A directory in memory, if there is one with this much room: elsewhere copying a database takes a second on a busy
# disk.
_MEMORY = Path("/dev/shm")  # noqa: S108
_ROOM = 1 << 30  # bytes

_SETTINGS = {
    "deadlock_timeout": "200ms",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "shared_buffers": "64MB",
}

# How many databases are made ahead: as many as short tests use up before the next one is there.
_AHEAD = 2
_ATTEMPTS = 3
_TEMPLATE = "bmdb_template"

_STATEMENTS = dict(_core.testing_statements())

# Waits until nobody holds the server any more, then stops it if the last one could not, and removes its directory.
_UNDERTAKER = """
import fcntl, os, shutil, signal, sys, time
home = sys.argv[1]
try:
    alone = os.open(home + "/.bmdb-undertaker", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(os.open(home + "/.bmdb-handles", os.O_RDWR), fcntl.LOCK_EX)
except OSError:
    sys.exit()
pidfile = home + "/data/postmaster.pid"
try:
    os.kill(int(open(pidfile).readline()), signal.SIGQUIT)
except (OSError, ValueError):
    pass
for _ in range(200):
    if not os.path.exists(pidfile):
        break
    time.sleep(0.05)
shutil.rmtree(home, ignore_errors=True)
"""


class Server:
    """Makes databases on one PostgreSQL server; a context manager.

    `Server(run)` is embedded and shared by all processes that name the same `run`; `Server(conninfo=…)` is one that
    runs already, whose user may create databases. The fixtures make one for each process of the run.

    Raises ConfigError where embedded servers cannot run, ConnectionFailedError when the server does not start.
    """

    def __init__(self, run: str | None = None, *, conninfo: str | None = None) -> None:
        self._own: embedded.EmbeddedServer | None = None
        self._closing = threading.Event()
        self._spare: queue.Queue[str | Exception] = queue.Queue(maxsize=_AHEAD)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._template = _TEMPLATE
        if conninfo is None:
            self._own = _start(f"bmdb-testing-{os.getuid()}-{run or uuid.uuid4().hex}")
            self._conninfo = self._own.conninfo
        else:
            self._conninfo = conninfo
            self._template = f"{_TEMPLATE}_{uuid.uuid4().hex}"
        self._control = psycopg.connect(self._conninfo, autocommit=True, application_name="bmdb.testing")
        self._keep_template()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def conninfo(self) -> str:
        """A connection string for the server's maintenance database."""
        return self._conninfo

    def create(self) -> str:
        """The connection string of a fresh database with bmdb's newest schema. Drop it when it has served."""
        if self._thread is None:
            # The first one does not wait for those made ahead.
            name = self._copy()
            self._thread = threading.Thread(target=self._make_ahead, name="bmdb-testing-databases", daemon=True)
            self._thread.start()
            return make_conninfo(self._conninfo, dbname=name)
        made = self._spare.get(timeout=60.0)
        if isinstance(made, Exception):
            raise made
        return make_conninfo(self._conninfo, dbname=made)

    def drop(self, conninfo: str) -> None:
        """Drop a database that `create` made, ending whatever is connected to it."""
        name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
        self._execute("drop_database", name=str(name))

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The connection string of a fresh database, which is dropped at the end."""
        conninfo = self.create()
        try:
            yield conninfo
        finally:
            self.drop(conninfo)

    def close(self) -> None:
        """Drop what is left, and give the server up; the last one that does stops it."""
        self._closing.set()
        if self._thread is not None:
            while self._thread.is_alive():
                self._drain()
                self._thread.join(0.05)
            self._drain()
        if self._own is None:
            self._execute("drop_database", name=self._template)
        self._control.close()
        if self._own is not None:
            self._own.stop()

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                made = self._spare.get_nowait()
                # Databases of a server of our own go with it.
                if self._own is None and isinstance(made, str):
                    self._execute("drop_database", name=made)

    def _make_ahead(self) -> None:
        while not self._closing.is_set():
            try:
                made: str | Exception = self._copy()
            except Exception as error:
                made = error
            while True:
                try:
                    self._spare.put(made, timeout=0.1)
                    break
                except queue.Full:
                    if self._closing.is_set():
                        if self._own is None and isinstance(made, str):
                            self._execute("drop_database", name=made)
                        return

    def _copy(self) -> str:
        name = f"bmdb_test_{uuid.uuid4().hex}"
        self._execute("create_database", name=name, template=self._template)
        return name

    def _execute(self, statement: str, **names: str) -> None:
        identifiers = {key: sql.Identifier(name) for key, name in names.items()}
        with self._lock:
            self._control.execute(sql.SQL(_STATEMENTS[statement]).format(**identifiers))

    def _keep_template(self) -> None:
        """Make the database to copy, unless another process of the run has."""
        if self._own is None:
            self._make_template()
            return
        descriptor = os.open(self._own.path / ".bmdb-template", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not self._ask("templates"):
                self._make_template()
        finally:
            os.close(descriptor)

    def _make_template(self) -> None:
        # One that another process left half made is no good.
        self._execute("drop_database", name=self._template)
        self._execute("create_template", name=self._template)
        conninfo = make_conninfo(self._conninfo, dbname=self._template)
        with bmdb.connect(conninfo, component="bmdb.testing", migrate=True, pool_size=1):
            pass
        self._ask("end_connections")
        self._execute("close_template", name=self._template)

    def _ask(self, statement: str) -> list[tuple[object, ...]]:
        text = _STATEMENTS[statement].replace("$1", "%s")
        with self._lock:
            return self._control.execute(text, [self._template]).fetchall()


def _start(name: str) -> embedded.EmbeddedServer:
    home = _directory() / name
    for attempt in range(_ATTEMPTS):
        try:
            server = embedded.start(str(home), settings=_SETTINGS)
        except (bmdb.Error, OSError):
            # The undertaker of those before may be removing the directory.
            if attempt + 1 == _ATTEMPTS:
                raise
            threading.Event().wait(0.5)
            continue
        if (home / "data").exists():
            _bury(home)
            return server
        server.stop()
    raise bmdb.ConnectionFailedError(f"the server in {home} does not stay")


def _bury(home: Path) -> None:
    """See to it that the server ends with those who use it, even if all of them are killed."""
    command = [sys.executable, "-I", "-S", "-c", _UNDERTAKER, str(home)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True)
    # It outlives this process on purpose, so nobody here waits for it.
    process.returncode = 0


def _directory() -> Path:
    roomy = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    return _MEMORY if roomy else Path(tempfile.gettempdir())
