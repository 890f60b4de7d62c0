"""What a worker does on CockroachDB, played by the stand-in: sessions, claims, ends, backoffs, collection, history."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.cockroachdb.stand_in import StandIn
from tests.proxy import Proxy

PROCESS = "Mend"
NewMachines = Callable[[int], list[UUID]]


@pytest.fixture
def truth(empty_database: str, roach: bmdb.Connection) -> Any:
    """A look at what is stored, past the stand-in."""
    with psycopg.connect(empty_database, autocommit=True) as opened:
        yield opened


def all_machines(q: bmdb.Queries) -> Any:
    return q.fetch("SELECT machine_id FROM machines ORDER BY machine_id")


def events(connection: bmdb.Connection, machine: UUID) -> list[str]:
    return [event.event for event in connection.history_of(machine)]


def test_many_may_migrate_and_again(roach_proxy: Proxy, empty_database: str) -> None:
    dsn = roach_proxy.conninfo(empty_database)
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            with bmdb.connect(dsn, component="migrator") as connection:
                # PostgreSQL's CREATE TABLE IF NOT EXISTS races, so one after the other is what can be shown here.
                connection.migrate()
        except BaseException as error:
            failures.append(error)

    for _ in range(2):
        thread = threading.Thread(target=migrate)
        thread.start()
        thread.join()
    assert failures == []
    with bmdb.connect(dsn, component="look") as connection:
        assert connection.schema_version() == connection.migrate()
        with pytest.raises(bmdb.MigrationError, match="CockroachDB"):
            connection.migrate(to=1)


def test_a_migration_that_was_interrupted_is_gone_on_with(roach_proxy: Proxy, empty_database: str) -> None:
    dsn = roach_proxy.conninfo(empty_database)
    with bmdb.connect(dsn, component="migrator") as connection:
        with (
            roach_proxy.injecting("XX000", "CREATE TABLE IF NOT EXISTS work_loss"),
            pytest.raises(bmdb.MigrationError, match="goes on from there"),
        ):
            connection.migrate()
        assert connection.schema_version() == 2
        assert connection.migrate() > 2


@pytest.mark.parametrize("version", ["v22.1.9", "v21.2.0"])
def test_one_without_skip_locked_is_refused(server: Any, empty_database: str, version: str) -> None:
    with (
        Proxy(*server.address, interpreter=StandIn(version)) as proxy,
        pytest.raises(bmdb.ConfigError, match=r"22\.2"),
    ):
        bmdb.connect(proxy.conninfo(empty_database), component="old")


def test_a_session_is_renewed_and_ends(roach: bmdb.Connection, truth: psycopg.Connection[Any]) -> None:
    with roach.start_session(interval=1) as session:
        time.sleep(2.5)
        assert not session.expired
        assert session.transact(lambda q: q.fetch_value("SELECT 7")) == 7
    assert truth.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    assert truth.execute("SELECT count(*) FROM session_fence").fetchone() == (0,)


def test_a_session_that_is_gone_lets_nothing_be_written(roach: bmdb.Connection, truth: psycopg.Connection[Any]) -> None:
    session = roach.start_session(interval=60)
    truth.execute("DELETE FROM sessions")
    with pytest.raises(bmdb.SessionExpiredError):
        session.transact(lambda q: q.new_machine())
    assert truth.execute("SELECT count(*) FROM machines").fetchone() == (0,)


def test_work_is_claimed_and_ended_in_each_way(roach: bmdb.Connection, new_machines: NewMachines) -> None:
    (machine,) = new_machines(1)
    with roach.start_session(interval=60) as session:
        work = session.work(PROCESS, all_machines)
        assert work.machine == machine
        with pytest.raises(bmdb.WorkConflictError):
            session.work(PROCESS, lambda q: [machine])
        work.cancel()
        again = session.work(PROCESS, all_machines)
        assert again.token > work.token
        again.fail("no answer", bmdb.Backoff(initial=60))
        assert roach.history_of(machine)[-1].failed_cause == "no answer"
        backoff = session.transact(lambda q: q.work_backoff_of(machine, PROCESS))
        assert backoff is not None and backoff.last_interval_seconds == 60
        third = session.work(PROCESS, all_machines)
        assert third.previous_backoff is not None
        third.finish(lambda q: q.machine_set_agent_heartbeat(machine, datetime.now(UTC)))
        assert session.transact(lambda q: q.work_backoff_of(machine, PROCESS)) is None
    assert events(roach, machine) == ["Started", "Canceled", "Started", "Failed", "Started", "Finished"]


def test_eight_claim_sixty_machines_once_each(roach: bmdb.Connection, new_machines: NewMachines) -> None:
    machines = new_machines(60)
    eligibility = bmdb.eligible(lacking=["agent_heartbeat"])
    session = roach.start_session(interval=60)
    got: list[UUID] = []

    def claim() -> None:
        with contextlib.suppress(bmdb.NothingToDo):
            while True:
                for work in session.work_many(PROCESS, 5, eligibility):
                    got.append(work.machine)
                    work.finish(bmdb.set_tag("agent_heartbeat", agent_heartbeat_at=datetime.now(UTC)))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(machines)
    assert all(events(roach, machine) == ["Started", "Finished"] for machine in machines)


def test_excluding_processes_never_share_a_machine(roach: bmdb.Connection, new_machines: NewMachines) -> None:
    (machine,) = new_machines(1)
    roach.register(bmdb.Process("One", excludes=["Other"]))
    with roach.start_session(interval=60) as session:
        session.work("One", all_machines)
        with pytest.raises(bmdb.WorkConflictError):
            session.work("Other", lambda q: [machine])
        with pytest.raises(bmdb.DatabaseError) as caught:
            session.transact(lambda q: q.start_work(machine, session.uuid, "Other"))
        assert caught.value.constraint == "work_exclusion"


def test_what_an_expired_session_held_is_lost_and_free_again(
    roach: bmdb.Connection, new_machines: NewMachines, truth: psycopg.Connection[Any]
) -> None:
    (machine,) = new_machines(1)
    roach.register(bmdb.Process(PROCESS, crash_backoff=bmdb.Backoff(initial=30), quarantine_after=2))
    for losses in (1, 2):
        session = roach.start_session(interval=60)
        session.work(PROCESS, lambda q: [machine])
        truth.execute("UPDATE sessions SET session_deadline = now() - interval '1 second'")
        collected = roach.collect()
        assert (collected.sessions, collected.leases) == (1, 1)
        assert truth.execute("SELECT losses FROM work_loss").fetchone() == (losses,)
        with pytest.raises((bmdb.SessionExpiredError, bmdb.LeaseLostError)):
            session.transact(lambda q: None)
    assert events(roach, machine) == ["Started", "Lost", "Started", "Lost", "Quarantined"]
    with roach.start_session(interval=60) as session, pytest.raises(bmdb.WorkConflictError):
        session.work(PROCESS, lambda q: [machine])


def test_holds_and_releases_by_people(roach: bmdb.Connection, new_machines: NewMachines) -> None:
    (machine,) = new_machines(1)
    with roach.start_session(interval=60) as session:
        session.transact(lambda q: q.hold(machine, PROCESS, "me", "a look"))
        with pytest.raises(bmdb.WorkConflictError):
            session.work(PROCESS, lambda q: [machine])
        session.transact(lambda q: q.release_hold(machine, PROCESS))
        session.work(PROCESS, lambda q: [machine]).cancel()
    assert events(roach, machine)[:2] == ["Held", "Released"]


async def test_the_async_twin_does_it_too(roach_dsn: str, new_machines: NewMachines) -> None:
    (machine,) = new_machines(1)
    async with await bmdb.AsyncConnection.connect(roach_dsn, component="roach") as connection:
        async with await connection.start_session(interval=60) as session:
            work = await session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
            await work.finish()
        assert [event.event for event in await connection.history_of(machine)] == ["Started", "Finished"]
