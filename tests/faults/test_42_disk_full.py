"""Row 42: the server's disk is full (53100).

Promised: a clear error, nothing half written, no spinning; sessions and connections go on once there is room.

The disk is a small tmpfs with a tablespace on it. The log is elsewhere: a server that cannot write that ends itself,
which is row 13.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer, Server
from tests.faults.conftest import Connect, Metric
from tests.faults.figures import Figure

MEGABYTES = 48


@pytest.fixture(scope="module")
def small_disk(server: Server) -> Iterator[Path]:
    """Where the tablespace `small` is, with room for one database and some more."""
    if not isinstance(server, EmbeddedServer):
        pytest.skip("needs a server on this machine")
    folder = Path(server.data_directory).parent / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("a small disk cannot be mounted here: that takes root")
    owner = Path(server.data_directory).stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    folder.chmod(0o700)
    try:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")  # type: ignore[arg-type]
        yield folder
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture
def cramped(server: Server, template: str, small_disk: Path) -> Iterator[str]:
    """Connection string of a database on the small disk."""
    name = "bmdb_cramped"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE small")  # type: ignore[arg-type]
        try:
            yield server.dsn(name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """The disk without any room in the block: somebody else's file takes it."""
    ballast = folder / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        yield
    finally:
        ballast.unlink()


def test_a_write_says_so_and_the_session_goes_on(
    cramped: str, small_disk: Path, connect: Connect, metric: Metric, figure: Figure
) -> None:
    with psycopg.connect(cramped, autocommit=True) as sql:
        sql.execute("CREATE TABLE writes (what text)")
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('before')"))
        q.execute("INSERT INTO writes SELECT repeat(md5(random()::text), 60) FROM generate_series(1, 4000)")

    with connect(cramped, component="cramped") as connection, connection.start_session(interval=2) as session:
        with filled(small_disk):
            before = metric(connection, "bmdb_heartbeats")
            began = time.monotonic()
            with pytest.raises(bmdb.DatabaseError, match="could not extend file|No space left") as caught:
                session.transact(write)
            took = time.monotonic() - began
            assert caught.value.sqlstate == "53100"
            assert len(runs) <= 10, "a full disk is not asked again and again"
            assert took < 10
            time.sleep(max(0.0, began + 2 - time.monotonic()))
            # Two a second would be a beat in each quarter of the interval, with which failed ones are made up for.
            assert metric(connection, "bmdb_heartbeats") - before < 4 * (time.monotonic() - began) + 2
        figure("told within", took, "s")
        figure("runs of the callback", len(runs))
        expired = session.expired
        with connection.start_session(interval=2) if expired else contextlib.nullcontext(session) as living:
            living.transact(lambda q: q.execute("INSERT INTO writes VALUES ('after')"))
    with psycopg.connect(cramped, autocommit=True) as sql:
        assert sql.execute("SELECT what FROM writes").fetchall() == [("after",)]


def test_a_database_that_is_read_only_by_default_is_written_to_all_the_same(
    database: str, sql: psycopg.Connection[Any], connect: Connect, writes: str
) -> None:
    """bmdb says that it writes; what really cannot write is a standby, which is row 30."""
    (name,) = sql.execute("SELECT current_database()").fetchone() or ("",)
    with connect(database, component="writer") as connection:
        session = connection.start_session(interval=1)
        sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # type: ignore[arg-type]
        sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bmdb writer'")
        session.transact(lambda q: q.execute("INSERT INTO writes VALUES ('written')"))
        assert not session.wait_expired(2)
        work = session.work("Written", lambda q: [q.new_machine().machine_id])
        work.finish()
    assert sql.execute("SELECT what FROM writes").fetchall() == [("written",)]
