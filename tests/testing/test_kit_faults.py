"""Each fault of the kit does what it says, to a worker that is not told of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import bmdb
from bmdb import testing

PROCESS = "Install"


def test_frozen_heartbeats_end_trust_while_the_rest_works(
    bmdb_faults: testing.Faults, bmdb_connection: bmdb.Connection, bmdb_fleet: testing.Fleet
) -> None:
    [machine] = bmdb_fleet(1)
    with bmdb_connection.start_session(interval=2) as session, bmdb_faults.freeze_heartbeats():
        began = time.monotonic()
        work = session.work(PROCESS, lambda q: [machine])
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
        assert session.wait_expired(4)
        assert time.monotonic() - began < 3
        with pytest.raises(bmdb.SessionExpiredError):
            work.finish()
    # A new session beats again.
    with bmdb_connection.start_session(interval=1) as session:
        assert not session.wait_expired(1.5)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_is_cut(
    bmdb_faults: testing.Faults, bmdb_session: bmdb.Session, bmdb_fleet: testing.Fleet, when: str
) -> None:
    with bmdb_faults.cut_at_commit(when) as cut, pytest.raises(bmdb.AmbiguousCommitError) as caught:  # type: ignore[arg-type]
        bmdb_session.transact(lambda q: q.new_machine())
    cut.wait()
    assert cut.hits == 1
    assert caught.value.resolve(5) is (when == "after")
    assert bmdb_fleet.write(lambda q: q.count_machines()) == (1 if when == "after" else 0)
    bmdb_session.transact(lambda q: q.new_machine())


def test_a_cut_commit_is_chosen_by_its_number(
    bmdb_faults: testing.Faults, bmdb_session: bmdb.Session, bmdb_fleet: testing.Fleet
) -> None:
    with bmdb_faults.cut_at_commit("after", skip=1) as cut:
        bmdb_session.transact(lambda q: q.new_machine())
        assert cut.hits == 0
        with pytest.raises(bmdb.AmbiguousCommitError):
            bmdb_session.transact(lambda q: q.new_machine())
        cut.wait()
        assert cut.hits == 1
    with pytest.raises(ValueError, match="before"):
        bmdb_faults.cut_at_commit("amid")  # type: ignore[arg-type]


def test_conflicts_are_raised_so_many_times_and_the_callback_runs_once_more(
    bmdb_faults: testing.Faults, bmdb_session: bmdb.Session, bmdb_fleet: testing.Fleet
) -> None:
    runs: list[int] = []

    def count(q: bmdb.Queries) -> None:
        q.new_machine()
        runs.append(1)

    with bmdb_faults.conflicts(3) as conflict:
        bmdb_session.transact(count)
    assert (conflict.hits, len(runs)) == (3, 4)
    assert bmdb_fleet.write(lambda q: q.count_machines()) == 1
    with bmdb_faults.conflicts(None), pytest.raises(bmdb.RetriesExhaustedError):
        bmdb_session.transact(count, max_retries=2)
    with (
        bmdb_faults.conflicts(1, at="INSERT INTO machines", sqlstate="23514"),
        pytest.raises(bmdb.DatabaseError) as failed,
    ):
        bmdb_session.transact(count)
    assert failed.value.sqlstate == "23514"


def test_a_black_hole_tells_nobody(bmdb_faults: testing.Faults, bmdb_connection: bmdb.Connection) -> None:
    session = bmdb_connection.start_session(interval=2)
    with bmdb_faults.black_hole():
        began = time.monotonic()
        with pytest.raises(bmdb.Error):
            session.transact(lambda q: q.fetch_value("SELECT 1"))
        assert session.wait_expired(5)
        assert 0.1 < time.monotonic() - began < 5
    with bmdb_connection.start_session() as session:
        assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1


def test_an_outage_says_so_at_once(bmdb_faults: testing.Faults, bmdb_session: bmdb.Session) -> None:
    with bmdb_faults.outage():
        with pytest.raises(bmdb.ConnectionFailedError):
            bmdb.connect(bmdb_faults.conninfo, component="late")
        assert not bmdb_session.expired
    assert bmdb_session.transact(lambda q: q.fetch_value("SELECT 1")) == 1


def test_latency_delays_what_is_sent(bmdb_faults: testing.Faults, bmdb_session: bmdb.Session) -> None:
    with bmdb_faults.latency(0.1):
        began = time.monotonic()
        bmdb_session.transact(lambda q: q.fetch_value("SELECT 1"))
        assert time.monotonic() - began > 0.2
    with pytest.raises(ValueError, match="0 or more"):
        bmdb_faults.latency(-1)


def test_several_hosts_are_refused() -> None:
    with pytest.raises(bmdb.ConfigError, match="several"):
        testing.Faults("host=a,b")


def test_the_gil_is_held_and_the_session_lives_on(bmdb_connection: bmdb.Connection) -> None:
    import threading

    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        with bmdb_connection.start_session(interval=1, warn_stall=None) as session:
            began = time.monotonic()
            testing.hold_gil(1.5)
            ended = time.monotonic()
            assert ended - began >= 1.49
            # No other thread ran, and the session was renewed all the same.
            assert not [at for at in ticks if began + 0.2 < at < began + 1.45]
            assert not session.expired
            assert session.transact(lambda q: q.fetch_value("SELECT 1")) == 1
    finally:
        stop.set()
        ticker.join()
    with pytest.raises(ValueError, match="0 to 86400"):
        testing.hold_gil(-1)


WORKER = """
import sys, time
import bmdb

with bmdb.connect(component="child") as connection:
    session = connection.start_session(interval=1)
    work = session.work("Install", lambda q: q.fetch("SELECT machine_id FROM machines"))
    print("holds", work.machine, flush=True)
    sys.stdin.readline()
    try:
        work.finish()
    except bmdb.Error as error:
        print("refused", type(error).__name__, flush=True)
    else:
        print("finished", flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


def test_a_killed_child_loses_its_lease_to_the_next_one(
    worker: Path, bmdb_spawn: object, bmdb_fleet: testing.Fleet, bmdb_connection: bmdb.Connection
) -> None:
    [machine] = bmdb_fleet(1)
    child = bmdb_spawn(worker)  # type: ignore[operator]
    child.expect(f"holds {machine}")
    child.kill()
    assert child.wait() == -9 and not child.running
    with bmdb_connection.start_session() as session:
        work = testing.eventually(lambda: _taken(session, machine))
        work.finish()
    assert bmdb_fleet.events(machine) == ["Started", "Lost", "Started", "Finished"]


def _taken(session: bmdb.Session, machine: object) -> bmdb.Work | None:
    try:
        return session.work(PROCESS, lambda q: [machine])
    except (bmdb.NothingToDo, bmdb.WorkConflictError):
        return None


def test_a_stopped_child_is_refused_when_it_goes_on(
    worker: Path, bmdb_spawn: object, bmdb_fleet: testing.Fleet, bmdb_clock: testing.Clock, bmdb_database: str
) -> None:
    [machine] = bmdb_fleet(1)
    child = bmdb_spawn([*_python(), str(worker)])  # type: ignore[operator]
    child.expect("holds")
    [holder] = bmdb_fleet.holders(machine)
    with testing.assert_no_zombie_writes(bmdb_database):
        with child.stopped():
            assert child.running
            bmdb_clock.expire(holder.session_id)
            child.send()
        assert "Error" in child.expect("refused")
    assert child.wait() == 0
    assert bmdb_fleet.events(machine) == ["Started", "Lost"]
    with pytest.raises(ProcessLookupError), child.stopped():
        pass


def _python() -> list[str]:
    import sys

    return [sys.executable, "-u"]


def test_a_child_that_ends_without_saying_it_is_told_with_its_output(bmdb_spawn: object) -> None:
    child = bmdb_spawn(["-c", "import sys; print('one'); sys.exit('two')"])  # type: ignore[operator]
    assert child.wait() == 1
    with pytest.raises(AssertionError, match=r"ended without.*one.*two"):
        child.expect("three")
    silent = bmdb_spawn(["-c", "input()"])  # type: ignore[operator]
    with pytest.raises(TimeoutError, match="no line"):
        silent.expect("three", 0.1)
    with pytest.raises(TimeoutError, match="runs on"):
        silent.wait(0.1)
    assert silent.terminate() == -15
