"""What the kit does to time, and the fleet that it makes."""

from __future__ import annotations

import time

import pytest

import bmdb
from bmdb import testing

REBOOT = bmdb.Process("Reboot", backoff=bmdb.Backoff(60, 3600, 2))


def test_a_fleet_is_made_and_looked_at(bmdb_fleet: testing.Fleet, bmdb_session: bmdb.Session) -> None:
    bare = bmdb_fleet(2, provider=None)
    provided = bmdb_fleet(3, agents=True)
    assert bmdb_fleet.tags(bare[0]) == set()
    assert bmdb_fleet.tags(provided[0]) == {"provided", "agent_started"}
    assert provided == sorted(provided)
    work = bmdb_session.work(REBOOT, lambda q: provided)
    [holder] = bmdb_fleet.holders(work.machine)
    assert (holder.process, holder.session_id, holder.token) == ("Reboot", bmdb_session.uuid, work.token)
    assert holder.session_component_name == "test"
    work.finish()
    assert bmdb_fleet.holders(work.machine) == []
    assert bmdb_fleet.events(work.machine) == ["Started", "Finished"]


def test_an_expired_session_is_a_zombie_that_is_not_told_and_not_believed(
    bmdb_fleet: testing.Fleet, bmdb_clock: testing.Clock, bmdb_connection: bmdb.Connection
) -> None:
    [machine] = bmdb_fleet(1)
    with bmdb_connection.start_session(interval=60) as session:
        work = session.work(REBOOT, lambda q: [machine])
        assert bmdb_clock.expire(session)
        assert not session.expired and not work.lost
        assert bmdb_fleet.holders(machine) == []
        assert bmdb_fleet.events(machine) == ["Started", "Lost"]
        with pytest.raises((bmdb.LeaseLostError, bmdb.SessionExpiredError)):
            work.finish()
        with pytest.raises(bmdb.SessionExpiredError):
            session.transact(lambda q: q.new_machine())
        assert not bmdb_clock.expire(session)


def test_the_holder_is_told_at_its_next_beat(bmdb_clock: testing.Clock, bmdb_connection: bmdb.Connection) -> None:
    told: list[bmdb.Session] = []
    session = bmdb_connection.start_session(interval=1)
    session.on_expired(told.append)
    bmdb_clock.expire(session.uuid)
    assert session.wait_expired(2)
    testing.eventually(lambda: told == [session])


def test_without_collecting_the_machine_stays_taken_until_somebody_does(
    bmdb_fleet: testing.Fleet, bmdb_clock: testing.Clock, bmdb_connection: bmdb.Connection
) -> None:
    [machine] = bmdb_fleet(1)
    with bmdb_connection.start_session(interval=60) as session:
        session.work(REBOOT, lambda q: [machine])
        assert bmdb_clock.expire(session, collect=False)
        assert [held.session_live for held in bmdb_fleet.holders(machine)] == [False]
        assert bmdb_connection.collect() == (1, 1)


def test_a_suspension_ends_the_trust_of_the_connections_sessions(bmdb_connection: bmdb.Connection) -> None:
    with bmdb_connection.start_session(interval=60) as session:
        testing.Clock.suspend(bmdb_connection, 10)
        assert not session.expired
        testing.Clock.suspend(bmdb_connection, 60)
        assert session.expired
    with pytest.raises(ValueError, match="0 or more"):
        testing.Clock.suspend(bmdb_connection, -1)


def test_backoffs_pass_and_the_next_one_grows_all_the_same(
    bmdb_fleet: testing.Fleet, bmdb_clock: testing.Clock, bmdb_session: bmdb.Session
) -> None:
    one, other = bmdb_fleet(2)

    def fail(machine: object) -> int | None:
        work = bmdb_session.work(REBOOT, lambda q: q.fetch(
            "SELECT machine_id FROM machines WHERE machine_id = $1 AND NOT EXISTS (SELECT 1 FROM work_backoff AS b"
            " WHERE b.machine_id = machines.machine_id AND until > clock_timestamp())", machine))  # fmt: skip
        work.fail("did not come back")
        return work.previous_backoff

    assert (fail(one), fail(other)) == (None, None)
    with pytest.raises(bmdb.NothingToDo):
        fail(one)
    assert bmdb_clock.pass_backoffs(one, REBOOT) == 1
    assert fail(one) == 60
    with pytest.raises(bmdb.NothingToDo):
        fail(other)
    assert bmdb_clock.pass_backoffs(process="Another") == 0
    assert bmdb_clock.pass_backoffs() == 2
    assert fail(one) == 120


def test_a_declared_eligibility_is_told_when_backoffs_pass(
    bmdb_fleet: testing.Fleet, bmdb_clock: testing.Clock, bmdb_session: bmdb.Session
) -> None:
    process = bmdb.Process("Wire", backoff=bmdb.Backoff(600), eligible=bmdb.eligible(having=("provided",)))
    bmdb_fleet(1)
    bmdb_session.work(process).fail("not today")
    with pytest.raises(bmdb.NothingToDo):
        bmdb_session.work(process)
    assert bmdb_clock.pass_backoffs() == 1
    assert testing.eventually(lambda: claimed(bmdb_session, process)).previous_backoff == 600


def claimed(session: bmdb.Session, process: bmdb.Process) -> bmdb.Work | None:
    try:
        return session.work(process)
    except bmdb.NothingToDo:
        return None


def test_waiting_ends() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="pigs fly within 0.05 s"):
        testing.eventually(lambda: False, 0.05, "pigs fly")
    assert time.monotonic() - began < 5
    assert testing.eventually(lambda: 7) == 7
