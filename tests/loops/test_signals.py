"""SIGTERM and SIGINT to real `bmdb run` processes: exit statuses, and who has the machine then."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops import fleet
from tests.loops.conftest import PROCESS, Start, agent_started, waiting
from tests.loops.test_outcomes import Events
from tests.processes import Spawn, WorkerProcess, eventually

PROGRAM = "import sys; from bmdb.cli import main; sys.exit(main())"

# Starts `bmdb run` on the database with such loops and options, and functions that hold so many seconds.
RunLoops = Callable[..., WorkerProcess]


@pytest.fixture
def run_loops(spawn: Spawn, database: str) -> RunLoops:
    """A function that starts `bmdb run` in a process of its own."""

    def run(target: str, *options: str, hold: float = 0.0) -> WorkerProcess:
        environment = {"BMDB_CONNINFO": database, "FLEET_HOLD": str(hold)}
        return spawn(PROGRAM, "run", f"tests.loops.fleet:{target}", *options, env=environment)

    return run


def terminate(process: WorkerProcess, number: int = signal.SIGTERM) -> float:
    """Sends the signal; when."""
    import psutil

    at = time.monotonic()
    psutil.Process(process.pid).send_signal(number)
    return at


KINDS = pytest.mark.parametrize("kind", ["hold", "hold_as_task"])


@KINDS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_work_may_end_and_the_exit_status_is_0(
    run_loops: RunLoops,
    provided: MakeMachines,
    sql: psycopg.Connection[Any],
    events: Events,
    kind: str,
    number: int,
) -> None:
    provided(2)
    process = run_loops(kind, hold=1.0)
    process.expect("holding")
    terminate(process, number)
    assert process.wait() == 0
    assert events() == [("Finished", None)]
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)
    assert [line for line in process.errors if "Traceback" in line] == []


@pytest.mark.parametrize("options", [[], ["--processes", "1"]], ids=["here", "in a process of its own"])
def test_at_the_end_it_says_what_each_loop_has_done(
    run_loops: RunLoops, provided: MakeMachines, options: list[str]
) -> None:
    provided(1)
    process = run_loops("hold", "--json", *options, hold=0.5)
    process.expect("holding")
    terminate(process)
    assert process.wait() == 0
    document = json.loads("\n".join(process.lines[process.lines.index("{") :]))
    (loop,) = document["loops"]
    assert (loop["name"], loop["process"]) == ("hold", PROCESS)
    assert (loop["leased"], loop["running"], loop["ended"]) == (1, 0, {"finished": 1})


@KINDS
def test_what_has_not_ended_within_the_grace_is_given_back(
    run_loops: RunLoops, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events, kind: str
) -> None:
    provided(1)
    process = run_loops(kind, "--grace", "0.3", hold=60.0)
    process.expect("holding")
    at = terminate(process)
    assert process.wait() == 0
    assert time.monotonic() - at < 10
    assert events() == [("Canceled", None)]
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)
    # A task is told; a thread cannot be, and goes with its process.
    assert bool([line for line in process.lines if line.startswith("cancelled")]) is (kind == "hold_as_task")


@KINDS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_gives_back_at_once(
    run_loops: RunLoops, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events, kind: str, number: int
) -> None:
    provided(1)
    process = run_loops(kind, "--grace", "1h", hold=60.0)
    process.expect("holding")
    terminate(process, signal.SIGTERM)
    eventually(lambda: any("stopping" in line for line in process.errors))
    at = terminate(process, number)
    assert process.wait() == 128 + number
    assert time.monotonic() - at < 10
    assert events() == [("Canceled", None)]
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)


def test_others_have_the_machine_within_half_a_second_of_the_signal(
    run_loops: RunLoops, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(1)
    taken: list[float] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0)
    def take(work: bmdb.Work) -> Any:
        taken.append(time.monotonic())
        return agent_started(work)

    process = run_loops("hold", "--grace", "0", hold=60.0)
    process.expect("holding")
    heir = start(take)
    # By now it would look again in three seconds at the earliest, without a hint.
    eventually(lambda: heir._crews and heir._crews[0].idle.vain >= 5 and heir.listening)
    at = terminate(process)
    eventually(lambda: events() == [("Canceled", None), ("Finished", None)])
    # 0.5 s is what is promised, and 0.05 s what it takes; more than that is the neighbours on this machine.
    assert taken[0] - at < 1.0
    assert process.wait() == 0


def test_signals_are_handled_within_run_only(database: str) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    within: list[Any] = []

    def stop() -> None:
        eventually(lambda: signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM])
        within.append(signal.getsignal(signal.SIGTERM))
        signal.raise_signal(signal.SIGTERM)

    # A signal sent to this process runs its handler in the main thread, wherever it was raised.
    stopper = threading.Thread(target=stop)
    stopper.start()
    bmdb.run(fleet.hold, database)
    stopper.join()
    assert within[0] not in before.values()
    assert {number: signal.getsignal(number) for number in before} == before


def test_run_off_the_main_thread_leaves_signals_alone(
    database: str, monkeypatch: pytest.MonkeyPatch, sql: psycopg.Connection[Any]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    runners: list[bmdb.Runner] = []
    start = bmdb.Runner.start

    def noted(self: bmdb.Runner) -> bmdb.Runner:
        runners.append(self)
        return start(self)

    monkeypatch.setattr(bmdb.Runner, "start", noted)
    thread = threading.Thread(target=bmdb.run, args=(fleet.hold, database))
    thread.start()
    eventually(lambda: sql.execute("SELECT count(*) FROM sessions").fetchone() == (1,))
    assert signal.getsignal(signal.SIGTERM) is before
    runners[0].stop()
    thread.join(10)
    assert not thread.is_alive()
