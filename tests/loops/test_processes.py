"""Loops in OS processes of their own: each with its session, watched, started again, stopped with the runner."""

from __future__ import annotations

import errno
import signal
import time
from multiprocessing.context import SpawnProcess
from typing import Any

import psutil
import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops import fleet
from tests.loops.conftest import PROCESS, Start, agent_started, waiting
from tests.loops.test_outcomes import Events
from tests.loops.test_signals import RunLoops, run_loops, terminate
from tests.processes import eventually, kill

__all__ = ["run_loops"]

pytestmark = pytest.mark.slow


def pids(runner: bmdb.Runner) -> set[int]:
    """The processes that have told how they do."""
    return {state.pid for state in runner.states() if state.pid is not None and state.session}


def test_each_process_has_a_session_of_its_own(
    start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, has_leases: Any
) -> None:
    monkeypatch.setenv("FLEET_HOLD", "60")
    provided(5)
    runner = start(fleet.hold_in_processes, listen="127.0.0.1:0", grace=0.0)
    has_leases(2)
    assert sql.execute("SELECT count(DISTINCT session_id) FROM work").fetchone() == (2,)
    eventually(lambda: len(pids(runner)) == 2)
    assert all(psutil.Process(pid).ppid() == psutil.Process().pid for pid in pids(runner))
    eventually(lambda: [state.running for state in runner.states()] == [1, 1])
    eventually(lambda: runner.health()[0])
    started = sum(value for name, _, _, value in runner.metrics() if name == "bmdb_work_started")
    assert started == 2
    ours = pids(runner)
    runner.stop()
    assert runner.wait(20.0)
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)
    assert not any(psutil.pid_exists(pid) for pid in ours)


def test_a_process_that_dies_is_followed_by_another(
    start: Start, provided: MakeMachines, events: Events, monkeypatch: pytest.MonkeyPatch, has_leases: Any
) -> None:
    monkeypatch.setenv("FLEET_HOLD", "0")
    runner = start(fleet.hold_as_task_in_a_process)
    eventually(lambda: len(pids(runner)) == 1)
    (first,) = pids(runner)
    kill(first)
    eventually(lambda: [state.pid for state in runner.states()] == [None])
    eventually(lambda: len(pids(runner)) == 1)
    assert pids(runner) != {first}
    provided(2)
    eventually(lambda: [event for event, _ in events()] == ["Finished"] * 2)


def test_a_process_that_cannot_be_started_is_tried_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the system has no process or file descriptor left; only that refusal is played."""
    monkeypatch.setenv("FLEET_HOLD", "0")
    begin = SpawnProcess.start
    refusals = [OSError(errno.EAGAIN, "no more processes")]

    def refused_once(process: SpawnProcess) -> None:
        if refusals:
            raise refusals.pop()
        begin(process)

    monkeypatch.setattr(SpawnProcess, "start", refused_once)
    runner = start(fleet.hold_as_task_in_a_process)
    eventually(lambda: len(pids(runner)) == 1)
    assert refusals == [] and "no more processes" in caplog.text


def test_all_loops_in_several_processes(
    run_loops: RunLoops, provided: MakeMachines, sql: psycopg.Connection[Any], has_leases: Any
) -> None:
    provided(5)
    process = run_loops("hold", "--processes", "3", "--grace", "0", hold=60.0)
    has_leases(3)
    children = psutil.Process(process.pid).children(recursive=True)
    at = terminate(process)
    assert process.wait() == 0
    assert time.monotonic() - at < 10.0
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)
    psutil.wait_procs(children, timeout=5)
    assert [child for child in children if child.is_running()] == []
    assert [line for line in process.errors if "Traceback" in line] == []


def test_a_second_signal_reaches_the_processes(run_loops: RunLoops, provided: MakeMachines, has_leases: Any) -> None:
    provided(2)
    process = run_loops("hold", "--processes", "2", "--grace", "1h", hold=60.0)
    has_leases(2)
    terminate(process)
    eventually(lambda: any("stopping" in line for line in process.errors))
    at = terminate(process)
    assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - at < 10.0
    assert has_leases(0)


def test_processes_stop_when_whoever_started_them_is_killed(
    run_loops: RunLoops, provided: MakeMachines, has_leases: Any, sql: psycopg.Connection[Any]
) -> None:
    provided(2)
    process = run_loops("hold", "--processes", "2", "--grace", "0", hold=60.0)
    has_leases(2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    psutil.wait_procs(children, timeout=15)
    assert [child for child in children if child.is_running()] == []
    # Given back, not lost: long before their sessions would have expired.
    assert {event for (event,) in sql.execute("SELECT event FROM work_history")} == {"Started", "Canceled"}


def test_a_loop_that_cannot_be_imported_is_refused(database: str) -> None:
    @bmdb.loop(PROCESS, retrieve=waiting, executor="process")
    def hidden(work: bmdb.Work) -> Any:
        return agent_started(work)

    with pytest.raises(ValueError, match="is no loop: one that runs in processes of its own must be found there"):
        bmdb.Runner(hidden, database)
    with pytest.raises(ValueError, match="processes must be a number"):
        bmdb.Runner(fleet.hold, database, processes=-1)
