"""Two servers that Patroni looks after, with etcd as its memory. Both programs have to be installed: see `missing`."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

import bmdb
from tests.cluster.node import wait
from tests.database import programs

TTL = 20
LOOP_WAIT = 2
RETRY_TIMEOUT = 3


def program(name: str) -> str | None:
    """Where it is: BMDB_PATRONI names the folder of Patroni's, else PATH is searched."""
    folder = os.environ.get("BMDB_PATRONI")
    found = shutil.which(name, path=folder) if folder else None
    return found or shutil.which(name)


def missing() -> str | None:
    """What is not installed here, if anything."""
    absent = [name for name in ("etcd", "patroni") if program(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Member:
    """One server with its Patroni."""

    def __init__(self, name: str, root: Path, etcd: int, user: dict[str, Any], *, synchronous: bool) -> None:
        self.name = name
        self.port = free_port()
        self.api = free_port()
        self._user = user
        self._log = root / f"{name}.log"
        self._configuration = root / f"{name}.json"
        trust = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
        configuration = {
            "scope": "fleet",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self.api}", "connect_address": f"127.0.0.1:{self.api}"},
            "etcd3": {"hosts": f"127.0.0.1:{etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": LOOP_WAIT,
                    "retry_timeout": RETRY_TIMEOUT,
                    "maximum_lag_on_failover": 1 << 30,
                    "synchronous_mode": synchronous,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 100, "fsync": "off"}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(root / name),
                "bin_dir": str(programs()),
                "pg_hba": trust,
                "authentication": {role: {"username": "postgres"} for role in ("superuser", "replication", "rewind")},
                "parameters": {"unix_socket_directories": str(root), "shared_buffers": "32MB"},
                "pgpass": str(root / f"{name}.pgpass"),
            },
        }
        # JSON is YAML.
        self._configuration.write_text(json.dumps(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Patroni, which starts the server."""
        command = program("patroni")
        assert command is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [command, self._configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **self._user,
            )  # fmt: skip

    def everything(self) -> list[psutil.Process]:
        """Patroni, the server and all their children."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            found = [root, *root.children(recursive=True)]
            with contextlib.suppress(OSError, psutil.NoSuchProcess, ValueError):
                lines = Path(json.loads(self._configuration.read_text())["postgresql"]["data_dir"]) / "postmaster.pid"
                postmaster = psutil.Process(int(lines.read_text().splitlines()[0]))
                found += [postmaster, *postmaster.children(recursive=True)]
            return found
        return []

    def send(self, sign: signal.Signals) -> None:
        """The same signal to all of them."""
        for process in self.everything():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sign)

    def reap(self) -> None:
        """Wait for the end of Patroni, which has been killed."""
        if self._process is not None:
            self._process.wait(20)

    def role(self) -> str | None:
        """What Patroni says of it: "primary", "replica"; None when it does not answer."""
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.api}/patroni", timeout=2) as answer,
        ):
            told = json.load(answer)
            return str(told["role"]) if told.get("state") in ("running", "streaming") else None
        return None

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


class PatroniCluster:
    """etcd and two members; bmdb's schema is in the database "fleet"."""

    database = "fleet"

    def __init__(self, *, synchronous: bool = False) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="bmdb-patroni-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("embedded_postgres")
            os.chown(self._root, user.pw_uid, user.pw_gid)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": self._root}
        client, peer = free_port(), free_port()
        command = program("etcd")
        assert command is not None
        here = f"http://127.0.0.1:{client}"
        there = f"http://127.0.0.1:{peer}"
        with (self._root / "etcd.log").open("wb") as log:
            self._etcd = subprocess.Popen(
                [command, "--data-dir", self._root / "etcd", "--listen-client-urls", here, "--advertise-client-urls",
                 here, "--listen-peer-urls", there, "--initial-advertise-peer-urls", there, "--initial-cluster",
                 f"default={there}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._user,
            )  # fmt: skip
        self.members = [Member(n, self._root, client, self._user, synchronous=synchronous) for n in ("one", "two")]
        try:
            for member in self.members:
                member.start()
            wait(lambda: sorted(str(member.role()) for member in self.members) == ["primary", "replica"], 90)
            with psycopg.connect(self.dsn("postgres"), autocommit=True) as sql:
                sql.execute("CREATE DATABASE fleet")
            # A replica that does not know the database yet would end the search for the primary.
            wait(lambda: all(self._knows_the_database(member) for member in self.members))
            with bmdb.connect(self.conninfo, component="tests", migrate=True):
                pass
        except BaseException as error:
            error.add_note("\n".join(member.log[-2000:] for member in self.members))
            self.close()
            raise

    def dsn(self, database: str) -> str:
        ports = ",".join(str(member.port) for member in self.members)
        return make_conninfo(
            host="127.0.0.1,127.0.0.1", port=ports, user="postgres", dbname=database, connect_timeout=2,
            target_session_attrs="read-write",
        )  # fmt: skip

    def _knows_the_database(self, member: Member) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=member.port, user="postgres", dbname=self.database).close()
            return True
        return False

    @property
    def conninfo(self) -> str:
        """Names both servers; the primary is wanted."""
        return self.dsn(self.database)

    @property
    def primary(self) -> Member:
        return next(member for member in self.members if member.role() == "primary")

    def switch_over(self) -> None:
        """As planned, through Patroni's own interface; returns when the other one is the primary."""
        old = self.primary
        new = next(member for member in self.members if member is not old)
        body = json.dumps({"leader": old.name, "candidate": new.name}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{old.api}/switchover", body, method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        wait(lambda: new.role() == "primary", 60)

    def wait_for_another(self, old: Member) -> None:
        """Until Patroni has promoted the other one."""
        new = next(member for member in self.members if member is not old)
        wait(lambda: new.role() == "primary", 90)

    def close(self) -> None:
        for member in self.members:
            member.send(signal.SIGCONT)
            member.send(signal.SIGKILL)
            member.reap()
        self._etcd.kill()
        self._etcd.wait()
        time.sleep(0.2)
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
