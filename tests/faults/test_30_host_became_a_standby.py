"""Row 30: the primary changes places with its standby (25006 from whoever writes to the old one).

Promised: a worker that knows both reconnects to the new primary within one retry, its session goes on; one that was
connected to a standby leaves it after the first refusal.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

import bmdb
from tests.cluster import Cluster
from tests.faults.conftest import Connect
from tests.faults.figures import Figure


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


def test_it_reconnects_within_one_retry_and_back_again(connect: Connect, cluster: Cluster, figure: Figure) -> None:
    first, second = cluster.first, cluster.second
    with connect(cluster.conninfo, component="test") as connection:
        with connection.start_session() as other:
            machine = other.transact(lambda q: q.new_machine())
        session = connection.start_session(interval=30)
        for old, new in ((first, second), (second, first)):
            old.stop()
            new.promote()
            old.follow(new)
            ran: list[int] = []

            def write(q: bmdb.Queries, ran: list[int] = ran) -> None:
                ran.append(1)
                q.new_machine()

            # Its claims are found again; a transaction without a beat after it would not be.
            work = session.work("install", lambda q: [machine])
            work.finish(write)
            figure("runs of the callback", len(ran))
            assert len(ran) <= 2
            cluster.catch_up(new, old)
        assert not session.expired
        session.close()


@pytest.mark.one_twin
def test_who_was_led_to_a_standby_leaves_it_after_its_first_refusal(connect: Connect, cluster: Cluster) -> None:
    """One address, behind which another server stands later."""
    first, second = cluster.first, cluster.second
    with connect(second.dsn(cluster.database), component="test") as connection:
        with pytest.raises(bmdb.Error, match="read-only|standby|recovery"):
            connection.start_session(interval=30)
        first.stop()
        second.promote()
        with connection.start_session(interval=30) as session:
            session.transact(lambda q: q.new_machine())


@pytest.mark.one_twin
def test_of_several_hosts_a_standby_is_passed_over(connect: Connect, cluster: Cluster) -> None:
    standby_first = make_conninfo(cluster.conninfo, port=f"{cluster.second.port},{cluster.first.port}")
    with connect(standby_first, component="test") as connection, connection.start_session() as session:
        session.transact(lambda q: q.new_machine())
    only_to_look = make_conninfo(cluster.second.dsn(cluster.database), target_session_attrs="standby")
    with connect(only_to_look, component="test") as connection:
        assert connection.statistics()
