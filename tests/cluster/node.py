"""One server of a cluster: it can be promoted, be made to follow another, be killed and be stopped."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from tests.database import EmbeddedServer
from tests.processes import suspend

SETTINGS: Mapping[str, str] = {
    "wal_level": "replica",
    "hot_standby": "on",
    "max_wal_senders": "10",
    "wal_keep_size": "128MB",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
}
WAIT_SECONDS = 30.0


class Node(EmbeddedServer):
    """A server that is a primary, or with `source` a standby that follows that one."""

    def __init__(self, source: Node | None = None) -> None:
        self._source = source
        super().__init__(SETTINGS)

    def _fill(self) -> None:
        if self._source is None:
            super()._fill()
            return
        self._run("pg_basebackup", "-D", self.data_directory, "-d", self._source.dsn(), "--checkpoint=fast",
                  "--wal-method=stream", "--no-sync")  # fmt: skip
        self._signal(self._source)

    def _signal(self, source: Node) -> None:
        """Note, for the next start, that it is a standby of `source`."""
        (self.data_directory / "standby.signal").touch()
        conninfo = make_conninfo(source.dsn(), application_name="standby")
        with (self.data_directory / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{conninfo}'\n")

    @contextlib.contextmanager
    def sql(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit mode that waits for no standby."""
        options = "-c synchronous_commit=local"
        with psycopg.connect(self.dsn(database, options=options), autocommit=True) as connection:
            yield connection

    def promote(self) -> None:
        """Make it a primary, and wait until it is one."""
        with self.sql() as sql:
            assert sql.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def follow(self, source: Node) -> None:
        """Stop it and start it again as a standby of `source`. It must not have written what that one lacks."""
        self.stop()
        self._signal(source)
        self.start()

    def set(self, **settings: str) -> None:
        """Change settings that a reload suffices for, and wait until they are in force."""
        with self.sql() as sql:
            for name, value in settings.items():
                sql.execute(f"ALTER SYSTEM SET {name} = '{value}'")  # type: ignore[arg-type]
            sql.execute("SELECT pg_reload_conf()")
            for name, value in settings.items():
                wait(lambda name=name, value=value: self._setting(name) == value)  # type: ignore[misc]

    def _setting(self, name: str) -> str:
        with self.sql() as sql:
            row = sql.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])

    def disconnect(self) -> None:
        """Follow nobody any more, without being promoted: what is written from now on does not arrive here."""
        self.set(primary_conninfo="")
        wait(lambda: not self._receivers())

    def _receivers(self) -> list[psutil.Process]:
        found = []
        for process in self._processes():
            # It may end while it is looked at.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "walreceiver" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self) -> None:
        """SIGKILL all its processes, as when the machine loses its power."""
        self.freeze()
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(WAIT_SECONDS)
        self._process = None
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP all its processes: it answers nothing, and its sockets stay open."""
        # The postmaster first: a backend that it makes meanwhile would go on to answer.
        suspend(self.postmaster)
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """SIGCONT all its processes."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.postmaster)
        return [postmaster, *postmaster.children(recursive=True)]

    def stop(self, mode: Any = "fast") -> None:
        if self._process is not None and psutil.pid_exists(self.postmaster):
            self.thaw()
        super().stop(mode)


def wait(done: Any, seconds: float = WAIT_SECONDS) -> None:
    """Wait until it is so. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.02)
