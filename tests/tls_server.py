"""A server that speaks TLS, with certificates that a local authority signs, and one user who needs her password."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb
from bmdb import embedded
from tests.certificates import Authority
from tests.tls_front import Seen, TlsFront

CANARY = "c4n4ry"


class TlsServer:
    """An embedded server behind a front that speaks TLS for it; the role ann needs her password."""

    def __init__(self) -> None:
        self.authority = Authority("bmdb tests")
        self._server = embedded.start()
        with psycopg.connect(self._server.conninfo, autocommit=True) as admin:
            admin.execute(f"CREATE ROLE ann LOGIN SUPERUSER PASSWORD '{CANARY}'")
            rules = "local all postgres trust\nlocal all all scram-sha-256\n"
            (self._server.path / "data" / "pg_hba.conf").write_text(rules)
            admin.execute("SELECT pg_reload_conf()")
        self.local = self._server.conninfo
        self.socket = socket_path(self.local)
        self.front = TlsFront(self.socket)
        self.reset()

    def reset(self) -> None:
        """A good certificate, anybody let in, nothing seen."""
        self.front.policy = "both"
        self.front.show(self.authority.server("localhost"))
        self.front.seen.clear()

    def close(self) -> None:
        self.front.close()
        self._server.stop()

    def conninfo(self, **parameters: str) -> str:
        stated = {"host": "localhost", "hostaddr": "127.0.0.1", "port": str(self.front.port), "user": "ann"}
        stated |= {"password": CANARY, "dbname": "postgres", "connect_timeout": "10"}
        return make_conninfo("", **{**stated, **parameters})

    def session(self, **parameters: str) -> Seen:
        """Connect with these parameters and make a transaction; how all its connections were seen."""
        self.front.seen.clear()
        with (
            bmdb.connect(self.conninfo(**parameters), component="test_tls", migrate=True) as connection,
            connection.start_session() as session,
        ):
            assert session.transact(lambda q: q.fetch_value("SELECT current_user::text")) == "ann"
        ways = set(self.front.seen)
        assert len(ways) == 1
        return ways.pop()

    def failure(self, kind: type[bmdb.Error] = bmdb.ConnectionFailedError, **parameters: str) -> str:
        """What the refusal to connect says. Nothing was passed on to the server, unless it asked for a password."""
        with pytest.raises(kind) as caught:
            bmdb.connect(self.conninfo(**parameters), component="test_tls").close()
        assert CANARY not in f"{caught.value} {caught.value!r}"
        return str(caught.value)


def socket_path(conninfo: str) -> str:
    """The path of the socket that libpq would use."""
    with psycopg.connect(conninfo) as connection:
        return f"{connection.info.host}/.s.PGSQL.{connection.info.port}"
