"""Row 27: the primary is lost, and its standby, which had not got everything, takes over.

Promised: on the first contact with the new primary each session whose renewals, claims or ends may be lost expires,
and says so; nothing that it writes lands. A session goes on if all that it was told of is there, as after a planned
switchover.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.cluster import Cluster
from tests.faults.conftest import Connect
from tests.faults.figures import Figure

FAILED_OVER = r"failed over \(timeline 1 to 2\)"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def connection(connect: Connect, cluster: Cluster) -> Iterator[bmdb.Connection]:
    with connect(cluster.conninfo, component="test") as opened:
        yield opened


def make_machine(cluster: Cluster) -> UUID:
    with cluster.first.sql(cluster.database) as sql:
        row = sql.execute("INSERT INTO machines (machine_id) VALUES (gen_random_uuid()) RETURNING 1, machine_id")
        machine: UUID = row.fetchall()[0][1]
    return machine


def holder_of(cluster: Cluster, machine: UUID) -> UUID | None:
    with cluster.second.sql(cluster.database) as sql:
        row = sql.execute("SELECT session_id FROM work WHERE machine_id = %s", [machine]).fetchone()
    return row and row[0]


@pytest.mark.parametrize("fate", ["killed", "stopped"])
@pytest.mark.one_twin
def test_a_claim_that_did_not_come_along_ends_its_session(
    cluster: Cluster, connection: bmdb.Connection, fate: Literal["killed", "stopped"], figure: Figure,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "bmdb")
    machine = make_machine(cluster)
    cluster.catch_up()
    session = connection.start_session(interval=20)
    cluster.catch_up()
    cluster.second.disconnect()
    work = session.work("install", lambda q: [machine])
    if fate == "killed":
        cluster.first.kill()
    else:
        cluster.first.freeze()
    cluster.second.promote()
    promoted = time.monotonic()
    # The new primary lacks the claim, so a rival gets the machine.
    with bmdb.connect(cluster.second.dsn(cluster.database), component="rival") as other, other.start_session() as rival:
        theirs = rival.work("install", lambda q: [machine])
        with pytest.raises(bmdb.Error) as refused:
            session.transact(lambda q: q.execute("INSERT INTO machines (machine_id) VALUES (gen_random_uuid())"))
        assert isinstance(refused.value, bmdb.SessionExpiredError), refused.value
        assert refused.match(FAILED_OVER)
        figure("told after the promotion within", time.monotonic() - promoted, "s")
        with pytest.raises(bmdb.Error):
            work.finish()
        assert session.expired
        assert holder_of(cluster, machine) == rival.uuid
        theirs.finish()
    with cluster.second.sql(cluster.database) as sql:
        written = sql.execute("SELECT count(*) FROM machines").fetchone()
    assert written == (1,)
    figure("writes of stale holders", 0, of=1)
    assert any("failed over" in record.getMessage() for record in caplog.records)


def test_after_a_switchover_sessions_of_30_s_go_on_with_their_work(
    cluster: Cluster, connection: bmdb.Connection, figure: Figure
) -> None:
    machines = [make_machine(cluster) for _ in range(3)]
    with connection.start_session(interval=30) as session, connection.start_session(interval=30) as idle:
        ended = session.work("install", lambda q: [machines[0]])
        ended.finish()
        held = session.work("install", lambda q: [machines[1]])
        began = time.monotonic()
        cluster.switch_over()
        new = session.work("install", lambda q: [machines[2]])
        figure("a switchover kept a worker waiting for", time.monotonic() - began, "s")
        held.finish()
        new.finish()
        idle.transact(lambda q: q.count_machines())
        assert not session.expired
        assert not idle.expired
    with cluster.second.sql(cluster.database) as sql:
        events = sql.execute("SELECT event::text, count(*) FROM work_history GROUP BY 1 ORDER BY 1").fetchall()
    assert events == [("Finished", 3), ("Started", 3)]


@pytest.mark.one_twin
def test_a_transaction_after_the_last_beat_ends_its_session_and_no_other(
    cluster: Cluster, connection: bmdb.Connection
) -> None:
    """Nobody can tell by the database whether it is there."""
    with connection.start_session(interval=30) as busy, connection.start_session(interval=30) as idle:
        busy.transact(lambda q: q.new_machine())
        cluster.switch_over()
        with pytest.raises(bmdb.SessionExpiredError, match=FAILED_OVER + ".* a transaction was committed"):
            busy.transact(lambda q: q.new_machine())
        idle.transact(lambda q: q.count_machines())
        assert busy.expired
        assert not idle.expired


@pytest.mark.one_twin
def test_a_transaction_before_the_last_beat_that_came_along_costs_nothing(
    cluster: Cluster, connection: bmdb.Connection
) -> None:
    with connection.start_session(interval=4) as session:
        machine = session.transact(lambda q: q.new_machine())
        deadline = session_deadline(cluster, session.uuid)
        while session_deadline(cluster, session.uuid) == deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # until the beat is answered
        cluster.switch_over()
        found = session.transact(lambda q: q.fetch_value("SELECT count(*) FROM machines"))
        assert found == 1
        assert machine


def session_deadline(cluster: Cluster, session: UUID) -> Any:
    with cluster.first.sql(cluster.database) as sql:
        row = sql.execute("SELECT session_deadline FROM sessions WHERE session_id = %s", [session]).fetchone()
    return row and row[0]


@pytest.mark.one_twin
def test_a_heartbeat_that_did_not_come_along_ends_its_session(cluster: Cluster, connection: bmdb.Connection) -> None:
    with connection.start_session(interval=8) as session:
        cluster.catch_up()
        cluster.second.disconnect()
        deadline = session_deadline(cluster, session.uuid)
        while session_deadline(cluster, session.uuid) == deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        cluster.first.kill()
        cluster.second.promote()
        with pytest.raises(bmdb.SessionExpiredError, match=FAILED_OVER + ".*its last heartbeat is not there"):
            session.transact(lambda q: q.count_machines())


@pytest.mark.one_twin
def test_psycopg_on_a_new_primary_waits_for_the_session_to_be_judged(
    cluster: Cluster, connection: bmdb.Connection
) -> None:
    """The user's connection may get there before any of bmdb's own."""
    with connection.start_session(interval=30) as session:
        cluster.switch_over()
        with psycopg.connect(cluster.second.dsn(cluster.database)) as pg:
            try:
                session.transact(lambda q: q.count_machines(), connection=pg)
            except bmdb.ConnectionFailedError as refused:
                assert "new primary (timeline 2)" in str(refused)
            session.transact(lambda q: q.count_machines())
            assert session.transact(lambda q: q.count_machines(), connection=pg) == 0
