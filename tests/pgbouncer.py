"""A PgBouncer in front of the test server, as Debian packages it (1.18), in one of its modes.

    with PgBouncer(server, "transaction") as pooler:
        bmdb.connect(pooler.dsn(database), component="test", pooler=True)

It is started as an unprivileged user, which it insists on, and deleted afterwards. Tests that need it skip without it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb.conninfo
from bmdb._async import connection as async_connection
from bmdb._sync import connection as sync_connection
from tests.database import Server

Mode = Literal["transaction", "session"]

START_SECONDS = 10.0
CONFIGURATION = """\
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {root}/users
auth_user = postgres
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
admin_users = postgres
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
server_idle_timeout = 5
autodb_idle_timeout = 5
{more}
"""


def mode_of_the_run() -> Mode | None:
    """The mode that `make test POOLER=…` asks for, if it does."""
    mode = os.environ.get("BMDB_TEST_POOLER") or None
    if mode not in ("transaction", "session", None):
        raise ValueError(f"BMDB_TEST_POOLER must be transaction or session, not {mode!r}")
    return cast("Mode | None", mode)


@contextlib.contextmanager
def led_through(server: Server) -> Iterator[None]:
    """While it lasts, what bmdb opens to `server` goes through a pooler, if the run asks for one, with `pooler=True`.

    Connections of psycopg, which tests look at the truth with, stay direct.
    """
    mode = mode_of_the_run()
    if mode is None:
        yield
        return
    resolve = bmdb.conninfo.resolve
    with PgBouncer(server, mode) as pooler, pytest.MonkeyPatch.context() as patch:

        def resolved(conninfo: str) -> dict[str, str]:
            keywords = dict(resolve(conninfo))
            if pooler.leads_to(keywords):
                keywords.update(host="127.0.0.1", port=str(pooler.port))
            return keywords

        patch.setattr(bmdb.conninfo, "resolve", resolved)
        for module in (async_connection, sync_connection):
            patch.setitem(module._POOLING, False, "expect")
        yield


def program() -> str | None:
    """Where pgbouncer is, if it is installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def require() -> str:
    """The same; skips the test without it."""
    found = program()
    if found is None:
        pytest.skip("pgbouncer is not installed")
    return found


class PgBouncer:
    """One that leads to all databases of `server`, with at most `size` backends for each."""

    def __init__(self, server: Server, mode: Mode, *, size: int = 30, more: str = "") -> None:
        self.mode = mode
        self._server = server
        self._root = Path(tempfile.mkdtemp(prefix="bmdb-pgbouncer-"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = int(listening.getsockname()[1])
        host, port = server.address
        settings = CONFIGURATION.format(
            host=host, port=port, listen=self.port, root=self._root, mode=mode, size=size, more=more
        )
        (self._root / "ini").write_text(settings)
        (self._root / "users").write_text('"postgres" ""\n')
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self._root, self._root / "ini", self._root / "users"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.log = self._root / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [require(), self._root / "ini"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **user,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.log.read_text()
                self.close()
                raise RuntimeError(f"pgbouncer did not start:\n{log}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dsn(self, conninfo: str, **parameters: str | int) -> str:
        """The connection string that leads to the same database through it."""
        return make_conninfo(conninfo, host="127.0.0.1", hostaddr="", port=self.port, **parameters)

    def leads_to(self, keywords: Mapping[str, str]) -> bool:
        """Whether these connection keywords name the server behind it."""
        host, port = self._server.address
        return keywords.get("host") == host and keywords.get("port", "5432") == str(port)

    def show(self, what: str) -> list[dict[str, Any]]:
        """What its console tells: `show("servers")`."""
        with psycopg.connect(
            f"host=127.0.0.1 port={self.port} user=postgres dbname=pgbouncer", autocommit=True, prepare_threshold=None
        ) as console:
            cursor = psycopg.ClientCursor(console, row_factory=psycopg.rows.dict_row)
            return cursor.execute(f"SHOW {what.upper()}").fetchall()  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends it, and what goes through it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
