"""The server that everything is measured on, its database, and what puts it back to where it began."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

import bmdb
from bmdb import embedded
from bmdb._programs import Account, Programs

MACHINES = 100_000

# Everything that makes a commit durable stays as PostgreSQL has it. Checkpoints are asked for between the measurements,
# so that none falls into one of them.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
}

# The state that lease cycles leave behind. Machines stay.
LEFT_BEHIND = "machine_agent_started, work, work_backoff, work_history, work_token"


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL with a migrated database that holds MACHINES machines without tags."""

    conninfo: str
    port: int
    account: Account
    programs: Programs
    version: str
    durability: str

    def reset(self) -> None:
        """Forget all work and tags, and write everything to disk, so that each measurement finds the same."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {LEFT_BEHIND}")
            connection.execute("DELETE FROM sessions")
            connection.execute("VACUUM ANALYZE sessions, machines")
            connection.execute("CHECKPOINT")

    def pgbench(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pgbench on the database, prepared statements on, without its own tables. Raises RuntimeError."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "postgres"]
        command = [str(self.programs.directory / "pgbench"), "-n", "-M", "prepared", "-f", str(script), *arguments]
        done = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"pgbench failed:\n{done.stderr}")
        return done


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A new server on a port of the loopback interface, with its data on disk; stopped and removed at the end.

    `settings` are lines of its postgresql.conf beside those that all measurements share.
    """
    # Made by the one who starts the server, and given to whoever runs it, which is not root.
    home = Path(tempfile.gettempdir()) / f"bmdb-bench-{uuid4().hex}"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    try:
        with embedded.start(str(home), settings={**SETTINGS, **settings, "port": str(port)}) as server:
            _admit_loopback(home, server.conninfo)
            conninfo = make_conninfo(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
            with bmdb.connect(conninfo, component="benchmark", migrate=True):
                pass
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("INSERT INTO machines SELECT FROM generate_series(1, %s)", [MACHINES])
                connection.execute("VACUUM ANALYZE")
                version = _shown(connection, "server_version")
                names = ("fsync", "synchronous_commit", "full_page_writes")
                durability = ", ".join(f"{name} = {_shown(connection, name)}" for name in names)
            account = Account.to_run_as()
            programs = Programs.find(account, home)
            yield Server(conninfo, port, account, programs, version, durability)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _admit_loopback(home: Path, conninfo: str) -> None:
    """An embedded server listens on a socket only; here both sides of each comparison use TCP."""
    access = home / "data" / "pg_hba.conf"
    access.write_text("host all postgres 127.0.0.1/32 trust\n" + access.read_text())
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")


def _shown(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])
