"""The whole demo at a small size: what it reports about itself fits together, and it leaves nothing behind."""

from __future__ import annotations

import json
import re
import shlex
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.processes import WorkerProcess, eventually, spawning

from bmdb.cli import main
from bmdb.demo import run
from bmdb.demo.rack import read_rack
from bmdb.demo.report import rendered
from bmdb.errors import ConfigError

MACHINES, WORKERS = 40, 4
SOURCE = f"""
import sys, pathlib, bmdb.demo
keep = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None
sys.exit(bmdb.demo.run(machines={MACHINES}, workers={WORKERS}, json=True, keep=keep))
"""


def processes(lines: list[str]) -> list[int]:
    """The process ids of the server and the workers, from the lines of progress."""
    return [int(pid) for line in lines for found in re.findall(r"\(pids? ([\d ]+)\)", line) for pid in found.split()]


def gone(pid: int) -> bool:
    """Whether there is no such process; one that nobody has waited for is none."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def left(before: set[int], mark: str) -> list[psutil.Process]:
    """The processes that were not there before and have this text in their environment."""
    found = psutil.process_iter(["pid", "environ"])
    return [one for one in found if one.pid not in before and mark in str(one.info["environ"])]


def said(demo: WorkerProcess, text: str) -> bool:
    return any(text in line for line in list(demo.errors))


@dataclass
class Done:
    status: int
    report: dict[str, Any]
    progress: list[str]


@pytest.fixture(scope="module")
def done() -> Iterator[Done]:
    with spawning() as spawn, tempfile.TemporaryDirectory(prefix="bmdb-kept-") as directory:
        # The user who runs root's servers has to get there, too.
        Path(directory).chmod(0o711)
        demo = spawn(SOURCE, f"{directory}/demo")
        status = demo.wait(60)
        yield Done(status, json.loads("\n".join(demo.lines)), demo.errors)


@pytest.mark.slow
class TestReport:
    def test_every_invariant_holds(self, done: Done) -> None:
        assert [entry for entry in done.report["invariants"] if not entry["holds"]] == []
        assert len(done.report["invariants"]) >= 10
        assert (done.status, done.report["ok"]) == (0, True)
        assert done.report["duplicate_finishes"] == 0
        assert done.report["leases_left"] == 0

    def test_every_machine_that_can_be_done_is_and_the_others_are_in_backoff(self, done: Done) -> None:
        rack = read_rack(None, MACHINES)
        machines = done.report["machines"]
        assert machines["total"] == MACHINES
        assert machines["done"] == sum(machine.can_be_done for machine in rack) < MACHINES
        assert {entry["provider_id"] for entry in done.report["in_backoff"]} == {
            machine.provider_id for machine in rack if not machine.can_be_done
        }
        assert set(machines["by_provider"]) == {"Equinix", "Lumen"}

    def test_every_lease_that_began_has_ended(self, done: Done) -> None:
        events = done.report["events"]
        ends = events["Finished"] + events["Failed"] + events["Canceled"] + events["Lost"]
        assert events["Started"] == ends
        assert events["Finished"] == done.report["machines"]["done"]
        told = sum(worker["finished"] for worker in done.report["workers"])
        # A worker that is killed between its commit and telling of it is the only one that may tell of fewer.
        assert events["Finished"] - 1 <= told <= events["Finished"]

    def test_failures_have_their_cause_and_the_periods_grow(self, done: Done) -> None:
        causes = {failure["cause"]: failure for failure in done.report["failures"]}
        assert set(causes) == {"connection refused", "no answer within 1 s"}
        assert sum(failure["times"] for failure in causes.values()) == done.report["events"]["Failed"]
        for failure in causes.values():
            floors = [1, 2, 4, 8, 8, 8, 8]
            assert all(wait > floor - 0.1 for wait, floor in zip(failure["shortest_waits"], floors, strict=False))
        assert {entry["period"] for entry in done.report["in_backoff"]} <= {1, 2, 4, 8}

    def test_another_worker_finished_what_the_killed_one_held(self, done: Done) -> None:
        killed = done.report["killed"]
        assert len(killed["held"]) == 1
        (held,) = killed["held"]
        assert held["finished_by"] != f"worker {killed['worker']}"
        assert held["finished_token"] > held["token"]
        # The last renewal may be one beat old when the worker dies.
        assert 0.5 < held["freed_after"] < held["finished_after"] < 30
        statuses = {worker["worker"]: worker["status"] for worker in done.report["workers"]}
        assert statuses.pop(killed["worker"]) == -signal.SIGKILL
        assert set(statuses.values()) == {0}

    def test_the_stopped_worker_was_refused(self, done: Done) -> None:
        stopped = done.report["stopped"]
        assert (stopped["refused"], stopped["outcome_refused"]) == (True, "finish")
        assert stopped["error"] in ("SessionExpiredError", "LeaseLostError")
        assert stopped["stopped_for"] >= 2
        assert stopped["finished_token"] > stopped["token"]
        assert stopped["worker"] != done.report["killed"]["worker"]
        worker = done.report["workers"][stopped["worker"] - 1]
        assert len(worker["sessions"]) >= 2 and worker["refused"] >= 1

    def test_the_kept_database_tells_why_a_machine_is_not_worked_on(
        self, done: Done, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By the very commands that the report ends with."""
        report = rendered(done.report)
        commands = [shlex.split(line) for line in report.splitlines() if line.startswith("  bmdb ")]
        assert [command[1] for command in commands] == ["machines", "explain", "history", "release"]
        told = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BMDB_CONNINFO", done.report["kept"]["conninfo"])
            for _, *arguments in commands:
                assert main(arguments) == 0
                told[arguments[0]] = capsys.readouterr().out
        held = done.report["kept"]["held"]
        assert held in told["machines"]
        assert "the demo keeps every process away" in told["explain"]
        assert "it never answered: see whether it has power" in told["explain"]
        assert f"    bmdb release {held}\n" in told["explain"]
        assert "no worker" not in told["explain"]
        assert "Failed" in told["history"] and "Held" in told["history"]

    def test_progress_was_told_and_nothing_is_left(self, done: Done) -> None:
        told = processes(done.progress)
        assert len(told) == WORKERS + 1
        assert {worker["pid"] for worker in done.report["workers"]} == set(told[1:])
        assert all(gone(pid) for pid in told)
        assert any("was killed (SIGKILL)" in line for line in done.progress)
        assert re.search(r"\d+ of \d+ done, \d+ leased, \d+ in backoff, \d+ waiting", "\n".join(done.progress))


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_the_server_even_while_one_is_stopped() -> None:
    with spawning() as spawn:
        demo = spawn(SOURCE)
        eventually(lambda: said(demo, "was stopped (SIGSTOP)"), 30)
        told = processes(demo.errors)
        assert len(told) == WORKERS + 1
        directory = Path(psutil.Process(told[0]).cwd())
        assert directory.exists()
        demo.interrupt()
        assert demo.wait(10) == 130
        assert all(gone(pid) for pid in told)
        assert not directory.exists()
        assert demo.lines == []
        assert "Traceback" not in "\n".join(demo.errors)


def test_ctrl_c_while_the_server_starts_leaves_none_behind(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    with spawning() as spawn:
        demo = spawn(SOURCE, env={"BMDB_DEMO_TEST": str(tmp_path)})
        eventually(lambda: said(demo, "need an agent"), 30)
        demo.interrupt()
        assert demo.wait(30) == 130
        # A program of the server's that was being started may see a little later that its directory is gone.
        eventually(lambda: left(before, str(tmp_path)) == [], 10)


@pytest.mark.slow
def test_a_demo_that_is_killed_takes_all_with_it_even_a_stopped_worker() -> None:
    with spawning() as spawn:
        demo = spawn(SOURCE)
        eventually(lambda: said(demo, "was stopped (SIGSTOP)"), 30)
        told = processes(demo.errors)
        demo.kill()
        eventually(lambda: all(gone(pid) for pid in told), 20)


def test_a_place_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="is there already"):
        run(json=True, keep=tmp_path)
    with pytest.raises(ConfigError, match="is there already"):
        run(json=True, keep=tmp_path / "precious")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(("machines", "workers", "complaint"), [(40, 1, "2 workers"), (9, 2, "10 machines")])
def test_too_small_a_demo_is_refused_before_anything_starts(machines: int, workers: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        run(machines=machines, workers=workers, json=True)
