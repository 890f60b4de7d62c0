"""Fixtures of every suite: a server for the whole run; a database, a connection, a session for each test."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import hypothesis
import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo

import bmdb
from tests import pgbouncer
from tests.cockroachdb import rows
from tests.database import EmbeddedServer, Server, open_server, theirs
from tests.processes import Spawn, spawning
from tests.proxy import Proxy
from tests.tls_server import TlsServer

# How long one example takes depends on what else the machine does; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("bmdb", deadline=None)
hypothesis.settings.load_profile("bmdb")

# Started in the background of a script, this process ignores SIGINT, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeMachines = Callable[[int], list[UUID]]
MakeRole = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs the server itself, where a pooler leads the suite, and what cannot hold on CockroachDB."""
    skip_what_cannot_hold(items)
    if pgbouncer.mode_of_the_run() is None:
        return
    for item in items:
        for mark in item.iter_markers("direct"):
            item.add_marker(pytest.mark.skip(reason=f"not through a pooler: {mark.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skips what takes another role than the one that BMDB_TEST_ROLE asks for, by what the server refuses it."""
    try:
        return (yield)
    except Exception as error:
        refusal = theirs(error)
        if refusal is not None:
            pytest.skip(f"not for a {os.environ['BMDB_TEST_ROLE']}: {refusal}")
        raise


def skip_what_cannot_hold(items: list[pytest.Item]) -> None:
    """On a CockroachDB named by BMDB_TEST_CONNINFO, what cannot hold there is skipped with the reason."""
    conninfo = os.environ.get("BMDB_TEST_CONNINFO")
    if not conninfo or not Server(conninfo).is_cockroachdb:
        return
    for item in items:
        why = rows.reason(item.nodeid, tuple(getattr(item, "fixturenames", ())))
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=f"CockroachDB: {why}"))


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops to run an async test on: asyncio's own, and uvloop's if it has the mark."""
    if item.get_closest_marker("uvloop") is None:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this run: embedded, or the one that BMDB_TEST_CONNINFO names. Must survive the test."""
    with open_server() as running, pgbouncer.led_through(running):
        yield running


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """An embedded server for this test alone, which may be stopped, crashed and restarted. It takes seconds to make."""
    with EmbeddedServer() as running:
        yield running


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """Name of a migrated database on `server` that is there to be copied."""
    with server.template() as name:
        yield name


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """Connection string of a database without any tables, dropped after the test."""
    with server.temporary_database() as dsn:
        yield dsn


@pytest.fixture
def database(server: Server, template: str) -> Iterator[str]:
    """Connection string of a migrated database, dropped after the test."""
    with server.temporary_database(template) as dsn:
        yield server.as_login(dsn)


@pytest.fixture
def sql(server: Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection to `database` in autocommit mode, for looking at the truth."""
    with psycopg.connect(server.as_owner(database), autocommit=True, application_name="test") as connection:
        yield connection


@pytest.fixture
def connection(database: str) -> Iterator[bmdb.Connection]:
    """An open bmdb connection to `database`, component "test"."""
    with bmdb.connect(database, component="test") as opened:
        yield opened


@pytest.fixture
def session(connection: bmdb.Connection) -> Iterator[bmdb.Session]:
    """A session of `connection`, interval 5 s."""
    with connection.start_session(interval=5.0) as started:
        yield started


@pytest.fixture
def machines(sql: psycopg.Connection[Any]) -> MakeMachines:
    """A function that inserts so many machines, without any tags, and answers their ids."""

    def make(count: int) -> list[UUID]:
        rows = sql.execute(
            "INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, %s)"
            " RETURNING machine_id",
            [count],
        )
        return [machine for (machine,) in rows]

    return make


@pytest.fixture
def role(database: str, sql: psycopg.Connection[Any]) -> Iterator[MakeRole]:
    """A function that makes a role that may use the tables, with settings; its connection string."""
    made: list[str] = []

    def make(*settings: str) -> str:
        name = f"bmdb_role_{uuid.uuid4().hex[:12]}"
        sql.execute(f"CREATE ROLE {name} LOGIN")  # type: ignore[arg-type]
        made.append(name)
        sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")  # type: ignore[arg-type]
        for setting in settings:
            sql.execute(f"ALTER ROLE {name} SET {setting}")  # type: ignore[arg-type]
        return make_conninfo(database, user=name)

    yield make
    for name in made:
        sql.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = %s", [name])
        sql.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
        sql.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy in front of `server`; `proxy.conninfo(database)` leads through it."""
    with Proxy(*server.address) as running:
        yield running


@pytest.fixture(scope="session")
def tls_server() -> Iterator[TlsServer]:
    """An embedded server behind a front that speaks TLS for it."""
    server = TlsServer()
    yield server
    server.close()


@pytest.fixture
def tls(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TlsServer:
    """The server with a good certificate, and a client without any files in the usual place."""
    monkeypatch.setenv("HOME", str(tmp_path))
    tls_server.reset()
    return tls_server


@pytest.fixture
def root(tls: TlsServer, tmp_path: Path) -> str:
    """The authority's certificate, as a file for sslrootcert."""
    path = tmp_path / "root.pem"
    path.write_bytes(tls.authority.certificate)
    return str(path)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """A function that starts worker processes, which end with the test at the latest."""
    with spawning() as start:
        yield start
