"""Row 28: two servers both believe that they are the primary.

Promised: whoever has seen the new one (a higher WAL timeline) refuses the old one: its other connections to the old
one are not used any more, and no new one is made. Sessions go on, on the new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

import bmdb
from tests.cluster import Cluster
from tests.faults.conftest import Connect
from tests.faults.figures import Figure


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


def end_backends(of: psycopg.Connection) -> None:
    of.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'bmdb%'")


@pytest.mark.one_twin
def test_a_client_that_saw_the_new_primary_never_goes_back(connect: Connect, cluster: Cluster, figure: Figure) -> None:
    with connect(cluster.conninfo, component="test") as connection:
        session = connection.start_session(interval=16)
        cluster.first.freeze()  # so that what the clients have open to it stays open
        cluster.second.promote()
        began = time.monotonic()
        session.transact(lambda q: q.count_machines())
        figure("a stopped primary kept a worker waiting for", time.monotonic() - began, "s")
        cluster.first.thaw()
        with cluster.first.sql() as first, cluster.second.sql() as second:
            # It would take the writes of whoever asks.
            assert first.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
            for _ in range(10):
                end_backends(second)
                session.transact(lambda q: q.new_machine())
        with cluster.first.sql(cluster.database) as first, cluster.second.sql(cluster.database) as second:
            assert first.execute("SELECT count(*) FROM machines").fetchone() == (0,)
            assert second.execute("SELECT count(*) FROM machines").fetchone() == (10,)
        figure("writes that went to the old primary", 0, of=10)
        assert not session.expired
        cluster.second.stop("immediate")
        with pytest.raises(bmdb.Error, match="primary of the past"):
            session.transact(lambda q: q.new_machine())
        cluster.second.start()
        session.transact(lambda q: q.count_machines())
        session.close()


def test_a_transaction_that_is_open_on_the_old_one_is_run_again_on_the_new_one(
    connect: Connect, cluster: Cluster
) -> None:
    """Another thread has met the new primary meanwhile: the old one would commit, and nobody would ever see it."""
    with connect(cluster.conninfo, component="test") as connection, connection.start_session(interval=60) as session:
        servers: list[int] = []

        def write(q: bmdb.Queries) -> None:
            q.new_machine()
            servers.append(q.fetch_value("SELECT current_setting('port')::int"))
            if len(servers) == 1:
                meet_the_new_primary()

        def meet_the_new_primary() -> None:
            cluster.catch_up()
            cluster.second.promote()
            with cluster.first.sql() as first:
                first.execute("ALTER DATABASE fleet ALLOW_CONNECTIONS false")
                first.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle'")
            other = threading.Thread(target=connection.collect)
            other.start()
            other.join()

        session.transact(write)
        assert servers == [cluster.first.port, cluster.second.port]
        assert not session.expired
        with cluster.second.sql(cluster.database) as second:
            assert second.execute("SELECT count(*) FROM machines").fetchone() == (1,)
