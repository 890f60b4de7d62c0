"""Row 11: a stopped postmaster accepts at the level of TCP, and then says nothing.

Promised: connecting ends within its time-out.
"""

from __future__ import annotations

import time

import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import suspended


def test_connecting_ends_in_time_and_open_connections_go_on(
    figure: Figure, own_server: EmbeddedServer, connect: Connect
) -> None:
    dsn = own_server.dsn(own_server.create_database("bmdb").split("dbname=")[1].split()[0], connect_timeout=1)
    with connect(dsn, component="patient", migrate=True) as connection:
        session = connection.start_session(interval=1)
        # The first beat opens the heartbeat's connection.
        assert not session.wait_expired(0.6)
        with suspended(own_server.postmaster):
            began = time.monotonic()
            with pytest.raises(bmdb.ConnectionFailedError, match="connect_timeout"):
                connect(dsn, component="hasty")
            assert 0.9 < time.monotonic() - began < 1.5
            figure("with connect_timeout=1, ended within", time.monotonic() - began, "s")
            # Backends that exist serve on, the heartbeat's and the pool's.
            assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
            assert not session.wait_expired(0.6)
        connect(dsn, component="hasty").close()
