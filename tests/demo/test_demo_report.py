"""The demo's own judgement: facts that break an invariant are found, named, and make it exit with 1.

Each doctoring stands for what a faulty library would leave behind. The untouched facts break nothing, so a check that
were taken out would fail its case here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bmdb.demo import run, show
from bmdb.demo.facts import Facts, Killed, MachineFacts, Refusal, Stopped, WorkerFacts
from bmdb.demo.invariants import judge
from bmdb.demo.report import rendered, summary
from bmdb.model import HistoryEvent, WorkBackoff

BEGIN = datetime(2024, 6, 7, 12, tzinfo=UTC)
PROCESS = "ShepherdAgentStart"
SESSIONS = {worker: UUID(int=100 + worker) for worker in (1, 2, 3)}
ANOTHER_SESSION = UUID(int=200)
A, B, C, D = (UUID(int=number) for number in (1, 2, 3, 4))


def event(machine: UUID, seconds: float, kind: str, worker: int, token: int, cause: str | None = None) -> HistoryEvent:
    at = BEGIN + timedelta(seconds=seconds)
    return HistoryEvent(machine, PROCESS, kind, at, cause, SESSIONS[worker], f"worker {worker}", token)


def machine(which: UUID, history: Sequence[HistoryEvent], *, can_be_done: bool = True) -> MachineFacts:
    backoff = None if can_be_done else WorkBackoff(which, PROCESS, BEGIN, "connection refused", 2)
    tokens = [row.token for row in history if row.event == "Started" and row.token is not None]
    return MachineFacts(
        machine=which,
        provider="Equinix",
        provider_id=f"machine-{which.int}",
        can_be_done=can_be_done,
        history=history,
        backoff=backoff,
        tagged=can_be_done,
        tokens=tokens,
    )


def worker(number: int, finished: set[tuple[UUID, int]], failed: set[tuple[UUID, int]], status: int = 0) -> WorkerFacts:
    return WorkerFacts(
        number=number,
        pid=1000 + number,
        component=f"worker {number}",
        sessions=[SESSIONS[number]],
        finished=frozenset(finished),
        failed=frozenset(failed),
        refusals=[],
        status=status,
        complaint="",
    )


def facts() -> Facts:
    """Worker 1 is killed holding A, worker 2 is stopped holding B, worker 3 finishes both; C at once; D never."""
    histories = {
        A: [event(A, 5, "Started", 1, 1), event(A, 8, "Lost", 1, 1), event(A, 8.2, "Started", 3, 2),
            event(A, 8.5, "Finished", 3, 2)],
        B: [event(B, 5, "Started", 2, 1), event(B, 8, "Lost", 2, 1), event(B, 8.6, "Started", 3, 2),
            event(B, 9, "Finished", 3, 2)],
        C: [event(C, 1, "Started", 3, 1), event(C, 2, "Failed", 3, 1, "no answer within 1 s"),
            event(C, 3.1, "Started", 3, 2), event(C, 3.5, "Finished", 3, 2)],
        D: [event(D, 0, "Started", 3, 1), event(D, 0.5, "Failed", 3, 1, "connection refused"),
            event(D, 4, "Started", 3, 2), event(D, 4.5, "Failed", 3, 2, "connection refused")],
    }  # fmt: skip
    sleeper = replace(
        worker(2, set(), set()),
        sessions=[SESSIONS[2], ANOTHER_SESSION],
        refusals=[Refusal((B, 1), "finish", "SessionExpiredError", "session is gone")],
    )
    return Facts(
        machines=[machine(which, rows, can_be_done=which != D) for which, rows in histories.items()],
        workers=[
            worker(1, set(), set(), status=-9),
            sleeper,
            worker(3, {(A, 2), (B, 2), (C, 2)}, {(C, 1), (D, 1), (D, 2)}),
        ],
        killed=Killed(1, SESSIONS[1], BEGIN + timedelta(seconds=5.5)),
        stopped=Stopped(2, SESSIONS[2], (B, 1), BEGIN + timedelta(seconds=5.4), BEGIN + timedelta(seconds=9.5)),
        leases_left=0,
    )


def changed(which: UUID, change: Callable[[MachineFacts], MachineFacts]) -> Facts:
    original = facts()
    return replace(original, machines=[change(row) if row.machine == which else row for row in original.machines])


def with_history(which: UUID, change: Callable[[list[HistoryEvent]], list[HistoryEvent]]) -> Facts:
    return changed(which, lambda row: replace(row, history=change(list(row.history))))


def with_worker(number: int, **fields: Any) -> Facts:
    original = facts()
    return replace(
        original, workers=[replace(row, **fields) if row.number == number else row for row in original.workers]
    )


DOCTORED: dict[str, tuple[Callable[[], Facts], str, str]] = {
    "a second finish, by the stopped worker": (
        lambda: with_history(B, lambda rows: [*rows, event(B, 9.6, "Finished", 2, 1)]),
        "no machine is finished twice",
        "machine-2 was finished 2 times: by worker 3 (token 2), by worker 2 (token 1)",
    ),
    "a machine never finished": (
        lambda: with_history(C, lambda rows: rows[:2]),
        "every machine that can be done is done, the others are in backoff",
        "machine-3 was not finished",
    ),
    "a failure without a backoff": (
        lambda: changed(D, lambda row: replace(row, backoff=None)),
        "every machine that can be done is done, the others are in backoff",
        "machine-4 never answers, and is not in backoff",
    ),
    "two leases at once": (
        lambda: with_history(A, lambda rows: [rows[0], rows[2], rows[1], rows[3]]),
        "no two workers hold a machine at the same time",
        "machine-1: worker 3 (token 2) started while worker 1 (token 1) held it",
    ),
    "a token that does not rise": (
        lambda: with_history(A, lambda rows: [*rows[:2], *(replace(row, token=1) for row in rows[2:])]),
        "no two workers hold a machine at the same time",
        "machine-1: worker 3 (token 1) started after token 1",
    ),
    "a finish whose tag did not land": (
        lambda: changed(C, lambda row: replace(row, tagged=False)),
        "a machine has the agent-started tag exactly if it was finished",
        "machine-3 was finished, and has no tag",
    ),
    "a tag that landed with a failure": (
        lambda: changed(D, lambda row: replace(row, tagged=True)),
        "a machine has the agent-started tag exactly if it was finished",
        "machine-4 has the tag, without a finish",
    ),
    "a finish told that is not there": (
        lambda: with_worker(3, finished=frozenset({(A, 2), (B, 2), (C, 2), (D, 3)})),
        "workers and database agree on what was finished and what failed",
        "worker 3 finished machine-4 (token 3), which the database does not know",
    ),
    "a finish there that was not told": (
        lambda: with_worker(3, finished=frozenset({(A, 2), (C, 2)})),
        "workers and database agree on what was finished and what failed",
        "worker 3 finished machine-2 (token 2) without saying so",
    ),
    "a try too early": (
        lambda: with_history(C, lambda rows: [*rows[:2], replace(rows[2], timestamp=rows[1].timestamp), rows[3]]),
        "no machine is tried again before its backoff has passed",
        "machine-3 was tried again after 0.00 s of 1 s",
    ),
    "nothing taken from the killed worker": (
        lambda: with_history(A, lambda rows: rows[2:]),
        "others finish what the killed worker held",
        "nothing was taken from worker 1, which was killed while it held a lease",
    ),
    "the killed worker's machine forgotten": (
        lambda: with_history(A, lambda rows: rows[:2]),
        "others finish what the killed worker held",
        "machine-1 was lost with worker 1, and nobody finished it",
    ),
    "nobody killed": (
        lambda: replace(facts(), killed=None),
        "others finish what the killed worker held",
        "no worker was killed while it held a lease",
    ),
    "no refusal": (
        lambda: with_worker(2, refusals=[]),
        "the stopped worker's finish is refused",
        "worker 2 was stopped past its trust, and its finish was not refused",
    ),
    "something landed in the lost session": (
        lambda: with_history(C, lambda rows: [*rows[:3], event(C, 9.6, "Finished", 2, 2)]),
        "the stopped worker's finish is refused",
        "worker 2 Finished machine-3 in the session that it had before it was stopped",
    ),
    "nobody stopped": (
        lambda: replace(facts(), stopped=None),
        "the stopped worker's finish is refused",
        "no worker was stopped past its trust while it held a lease",
    ),
    "a lease left": (lambda: replace(facts(), leases_left=1), "no lease is left", "1 leases are left, and no worker"),
    "a worker that fell over": (
        lambda: with_worker(3, status=1, complaint="ValueError: no"),
        "no worker broke down",
        "worker 3 ended with status 1: ValueError: no",
    ),
}


def test_facts_without_fault_break_nothing() -> None:
    assert [invariant for invariant in judge(facts()) if not invariant.holds] == []


@pytest.mark.parametrize("case", DOCTORED)
def test_a_broken_invariant_is_named_and_makes_the_demo_exit_with_1(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doctored, name, violation = DOCTORED[case]
    monkeypatch.setattr(show, "_perform", lambda *_: doctored())
    assert run(machines=40, workers=4, json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    broken = {entry["name"]: entry["violations"] for entry in report["invariants"] if not entry["holds"]}
    assert violation in broken[name]
    assert run(machines=40, workers=4, json=False) == 1
    text = capsys.readouterr().out
    assert f"  BROKEN  {name}" in text
    assert "invariants are BROKEN" in text


def test_the_demo_exits_with_0_when_all_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "_perform", lambda *_: facts())
    assert run(machines=40, workers=4, json=False) == 0
    text = capsys.readouterr().out
    assert "All 10 invariants hold" in text and "BROKEN" not in text


def test_the_figures_come_from_the_history() -> None:
    report = summary(facts(), judge(facts()), seconds=12.34)
    assert json.loads(json.dumps(report)) == report
    assert report["seconds"] == 12.3
    assert report["machines"] == {
        "total": 4, "by_provider": {"Equinix": 4}, "can_be_done": 3, "done": 3, "done_after_failures": 1,
        "in_backoff": 1,
    }  # fmt: skip
    assert report["events"] == {
        "Started": 8, "Finished": 3, "Failed": 3, "Canceled": 0, "Lost": 2, "Quarantined": 0, "QuarantineReleased": 0,
        "Held": 0, "Released": 0, "BackoffCleared": 0,
    }  # fmt: skip
    assert report["failures"] == [
        {"cause": "connection refused", "times": 2, "machines": 1, "shortest_waits": [3.5]},
        {"cause": "no answer within 1 s", "times": 1, "machines": 1, "shortest_waits": [1.1]},
    ]
    (held,) = report["killed"]["held"]
    assert (held["provider_id"], held["freed_after"]) == ("machine-1", 2.5)
    assert (held["finished_by"], held["finished_token"], held["finished_after"]) == ("worker 3", 2, 3.0)
    stopped = report["stopped"]
    assert (stopped["stopped_for"], stopped["finished_by"], stopped["finished_after"]) == (4.1, "worker 3", 3.6)
    text = rendered(report)
    assert "worker 1 (SIGKILL), while it held machine-1 under token 1" in text
    assert "SessionExpiredError: session is gone" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_duplicate_finishes_are_counted() -> None:
    doctored = with_history(B, lambda rows: [*rows, event(B, 9.6, "Finished", 2, 1)])
    assert summary(doctored, judge(doctored), seconds=1)["duplicate_finishes"] == 1


def test_a_report_of_unfinished_scenes_can_be_shown() -> None:
    bare = replace(with_history(A, lambda rows: rows[:2]), stopped=None)
    text = rendered(summary(bare, judge(bare), seconds=1))
    assert "Nobody finished it" in text
    assert "stopped   " not in text
