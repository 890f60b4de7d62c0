# Generated from tests/behaviour/async_/test_connect.py by tools/generate_sync.py: do not edit.
"""Connecting: what fails says where, why and what helps, in bounded time; lists of servers; kinds of servers."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb
from bmdb import embedded

CANARY = "c4n4ry"
RULES = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass
class Tcp:
    """An embedded server that listens on loopback and asks for the password of the role ann."""

    server: embedded.EmbeddedServer
    port: int

    def conninfo(self, **parameters: str | int) -> str:
        stated: dict[str, str | int] = {"host": "127.0.0.1", "port": self.port, "user": "ann", "dbname": "postgres"}
        return make_conninfo("", **{**stated, "password": CANARY, "connect_timeout": 10, **parameters})

    @property
    def process(self) -> int:
        return int((self.server.path / "data" / "postmaster.pid").read_text().split()[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def start(path: Path | None = None, **settings: str) -> Tcp:
    port = free_port()
    wanted = {"listen_addresses": "127.0.0.1", "port": str(port), **settings}
    server = embedded.start(str(path) if path else None, settings=wanted)
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        if admin.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f"CREATE ROLE ann LOGIN SUPERUSER PASSWORD '{CANARY}'")
        (server.path / "data" / "pg_hba.conf").write_text(RULES)
        admin.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            psycopg.connect(Tcp(server, port).conninfo()).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            break
    return Tcp(server, port)


@pytest.fixture(scope="session")
def primary() -> Iterator[Tcp]:
    running = start()
    with running.server:
        yield running


@pytest.fixture(scope="session")
def read_only() -> Iterator[Tcp]:
    """A primary whose transactions are read-only unless they say otherwise."""
    running = start(default_transaction_read_only="on")
    with running.server:
        yield running


@pytest.fixture(scope="session")
def standby() -> Iterator[Tcp]:
    """A server in recovery that accepts connections."""
    with tempfile.TemporaryDirectory(prefix="bmdb-standby-") as directory:
        # Of all users, the one that root runs servers as must get in.
        Path(directory).chmod(0o711)
        home = Path(directory) / "server"
        start(home).server.stop()
        (home / "data" / "standby.signal").touch()
        running = start(home)
        with running.server:
            yield running


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections for as long as the test runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def value(conninfo: str, query: str) -> object:
    """What one query answers on a connection made for it."""
    with (
        bmdb.connect(conninfo, component="test_connect", migrate=True) as connection,
        connection.start_session() as session,
    ):
        return session.transact(lambda q: q.fetch_value(query))


def failure(conninfo: str) -> str:
    """What the refusal to connect says; no message has the password."""
    with pytest.raises(bmdb.ConnectionFailedError) as caught:
        bmdb.connect(conninfo, component="test_connect").close()
    assert CANARY not in f"{caught.value} {caught.value!r}"
    return str(caught.value)


def list_of(*servers: Tcp | int, **parameters: str) -> str:
    """One connection string that names several servers, or ports, in order."""
    ports = [str(server if isinstance(server, int) else server.port) for server in servers]
    known = next(server for server in servers if isinstance(server, Tcp))
    return known.conninfo(host=",".join(["127.0.0.1"] * len(ports)), port=",".join(ports), **parameters)


def test_a_server_is_reached_over_tcp_with_a_password(primary: Tcp) -> None:
    assert value(primary.conninfo(), "SELECT current_setting('port')") == str(primary.port)


def test_a_refused_connection_names_server_and_remedy(primary: Tcp, closed_port: int) -> None:
    message = failure(primary.conninfo(port=closed_port))
    assert f"127.0.0.1:{closed_port}" in message
    assert "check that the server runs" in message


def test_a_missing_socket_names_the_directory(primary: Tcp) -> None:
    message = failure(primary.conninfo(host="/nonexistent"))
    assert "/nonexistent/.s.PGSQL" in message
    assert "socket directory" in message


def test_a_name_that_nobody_knows_is_told(primary: Tcp) -> None:
    message = failure(primary.conninfo(host="no-such-server.invalid", connect_timeout=3))
    assert "no-such-server.invalid" in message


def test_a_server_that_never_answers_is_given_up_in_time(primary: Tcp, silent_port: int) -> None:
    began = time.monotonic()
    message = failure(primary.conninfo(port=silent_port, connect_timeout=1))
    assert 0.9 < time.monotonic() - began < 3
    assert "within 1 s" in message
    assert "connect_timeout" in message


def test_a_stopped_postmaster_is_given_up_in_time() -> None:
    running = start()
    with running.server:
        os.kill(running.process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            failure(running.conninfo(connect_timeout=1))
            assert time.monotonic() - began < 3
        finally:
            os.kill(running.process, signal.SIGCONT)
        assert value(running.conninfo(), "SELECT 1") == 1


def test_a_wrong_password_names_the_user(primary: Tcp) -> None:
    message = failure(primary.conninfo(password=f"{CANARY}-wrong"))
    assert '"ann"' in message
    assert "PGPASSWORD" in message


def test_a_missing_password_says_where_to_give_one(primary: Tcp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    message = failure(primary.conninfo(password=""))
    assert "asks for a password" in message
    assert "PGPASSWORD" in message


def test_an_unknown_database_is_named(primary: Tcp) -> None:
    message = failure(primary.conninfo(dbname="atlantis"))
    assert '"atlantis"' in message
    assert "create the database" in message


def test_an_unknown_role_is_named(primary: Tcp) -> None:
    message = failure(make_conninfo(primary.server.conninfo, user="nemo"))
    assert '"nemo"' in message
    assert "pg_hba.conf" in message


def test_the_password_file_is_used(primary: Tcp, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{primary.port}:postgres:ann:{CANARY}\n")
    passwords.chmod(0o600)
    assert value(primary.conninfo(password="", passfile=str(passwords)), "SELECT current_user::text") == "ann"


def test_a_setting_that_cannot_be_honoured_is_refused(primary: Tcp) -> None:
    with pytest.raises(bmdb.ConfigError, match="require_auth"):
        bmdb.connect(primary.conninfo(require_auth="scram-sha-256"), component="test_connect")


def test_no_conninfo_at_all_names_both_ways_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BMDB_CONNINFO", raising=False)
    with pytest.raises(bmdb.ConfigError, match=r"conninfo.*BMDB_CONNINFO"):
        bmdb.connect(component="test_connect")


def test_the_second_server_is_used_when_the_first_refuses(primary: Tcp, closed_port: int) -> None:
    assert value(list_of(closed_port, primary), "SELECT current_setting('port')") == str(primary.port)


def test_the_second_server_is_used_when_the_first_is_silent(primary: Tcp, silent_port: int) -> None:
    conninfo = list_of(silent_port, primary, connect_timeout="1")
    assert value(conninfo, "SELECT current_setting('port')") == str(primary.port)


def test_when_all_servers_fail_each_is_named(primary: Tcp, closed_port: int, silent_port: int) -> None:
    ports = f"{closed_port},{silent_port}"
    message = failure(primary.conninfo(host="127.0.0.1,127.0.0.1", port=ports, connect_timeout=1))
    assert f"127.0.0.1:{closed_port}" in message
    assert f"127.0.0.1:{silent_port}" in message


def test_a_refused_log_in_ends_the_search(primary: Tcp, closed_port: int) -> None:
    message = failure(list_of(primary, closed_port, password="wrong"))
    assert str(closed_port) not in message


def test_read_write_passes_over_a_read_only_server(primary: Tcp, read_only: Tcp) -> None:
    conninfo = list_of(read_only, primary, target_session_attrs="read-write")
    assert value(conninfo, "SELECT current_setting('port')") == str(primary.port)


def test_read_write_refuses_a_list_of_read_only_servers(read_only: Tcp) -> None:
    message = failure(read_only.conninfo(target_session_attrs="read-write"))
    assert "read-only" in message
    assert "target_session_attrs=read-write" in message


@pytest.mark.parametrize("wish", ["primary", "read-write"])
def test_a_primary_is_found_behind_a_standby(wish: str, primary: Tcp, standby: Tcp) -> None:
    conninfo = list_of(standby, primary, target_session_attrs=wish)
    assert value(conninfo, "SELECT current_setting('port')") == str(primary.port)


def test_a_standby_is_refused_where_a_primary_is_wanted(standby: Tcp) -> None:
    assert "standby" in failure(standby.conninfo(target_session_attrs="primary"))


def test_a_primary_is_refused_where_a_standby_is_wanted(primary: Tcp) -> None:
    assert "primary" in failure(primary.conninfo(target_session_attrs="standby"))


def test_prefer_standby_is_content_with_a_primary(primary: Tcp) -> None:
    conninfo = primary.conninfo(target_session_attrs="prefer-standby")
    assert value(conninfo, "SELECT current_setting('port')") == str(primary.port)


def test_no_representation_has_the_password(primary: Tcp) -> None:
    with bmdb.connect(primary.conninfo(), component="test_connect", migrate=True) as connection:
        assert CANARY not in f"{connection!r} {connection}"
        with connection.start_session() as session:
            assert CANARY not in f"{session!r} {session}"
        # It is there for libpq, on request.
        with psycopg.connect(connection.conninfo) as same:
            assert same.info.port == primary.port
