"""What must hold at the end of the demo, whatever happened to the workers. Each is judged from the facts alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bmdb.demo.facts import Facts, MachineFacts
from bmdb.demo.worker import BACKOFF
from bmdb.model import Event, HistoryEvent

_ENDS = {Event.FINISHED, Event.FAILED, Event.CANCELED, Event.LOST}
# The period runs from a moment of the statement that also writes the history, which takes longer than no time.
_CLOCK_SLACK = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True)
class Invariant:
    """One of them, with what speaks against it: nothing if it holds."""

    name: str
    violations: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.violations


def judge(facts: Facts) -> list[Invariant]:
    """All invariants, in the order in which a reader would ask for them."""
    return [Invariant(name, list(check(facts))) for name, check in _CHECKS.items()]


def finishes(machine: MachineFacts) -> list[HistoryEvent]:
    """The machine's finishes, oldest first."""
    return [event for event in machine.history if event.event == Event.FINISHED]


def _done(facts: Facts) -> Iterator[str]:
    for machine in facts.machines:
        if machine.can_be_done and not finishes(machine):
            yield f"{machine.provider_id} was not finished"
        if not machine.can_be_done and machine.backoff is None:
            yield f"{machine.provider_id} never answers, and is not in backoff"


def _finished_once(facts: Facts) -> Iterator[str]:
    for machine in facts.machines:
        if len(found := finishes(machine)) > 1:
            times = ", ".join(f"by {event.component} (token {event.token})" for event in found)
            yield f"{machine.provider_id} was finished {len(found)} times: {times}"


def _one_at_a_time(facts: Facts) -> Iterator[str]:
    for machine in facts.machines:
        held: HistoryEvent | None = None
        last = 0
        for event in machine.history:
            who = f"{machine.provider_id}: {event.component} (token {event.token})"
            if event.event == Event.STARTED:
                if held is not None:
                    yield f"{who} started while {held.component} (token {held.token}) held it"
                if event.token is None or event.token <= last:
                    yield f"{who} started after token {last}"
                held, last = event, event.token or last
            elif event.event in _ENDS:
                if held is None or (held.token, held.session_id) != (event.token, event.session_id):
                    yield f"{who} {event.event} what it did not hold"
                held = None


def _tags_agree(facts: Facts) -> Iterator[str]:
    for machine in facts.machines:
        if machine.tagged != bool(finishes(machine)):
            state = "has the tag, without a finish" if machine.tagged else "was finished, and has no tag"
            yield f"{machine.provider_id} {state}"


def _reports_agree(facts: Facts) -> Iterator[str]:
    for event, told in ((Event.FINISHED, "finished"), (Event.FAILED, "failed")):
        for worker in facts.workers:
            recorded = {
                (row.machine_id, row.token)
                for machine in facts.machines
                for row in machine.history
                if row.event == event and row.component == worker.component and row.token is not None
            }
            said: frozenset[tuple[object, int]] = getattr(worker, told)
            for lease in said - recorded:
                yield f"worker {worker.number} {told} {_lease(facts, lease)}, which the database does not know"
            # Killed between its commit and its report it could not tell any more.
            if facts.killed is None or worker.number != facts.killed.worker:
                for lease in recorded - said:
                    yield f"worker {worker.number} {told} {_lease(facts, lease)} without saying so"


def _backoff_kept(facts: Facts) -> Iterator[str]:
    for machine in facts.machines:
        for failed, started, number in waits(machine):
            period = timedelta(seconds=BACKOFF.schedule(number)[-1])
            waited = started.timestamp - failed.timestamp
            if waited < period - _CLOCK_SLACK:
                seconds = f"{waited.total_seconds():.2f} s of {period.seconds} s"
                yield f"{machine.provider_id} was tried again after {seconds}"


def waits(machine: MachineFacts) -> Iterator[tuple[HistoryEvent, HistoryEvent, int]]:
    """Each failure that was followed by another try, that try, and which failure in a row it was, from 1."""
    failed: HistoryEvent | None = None
    number = 0
    for event in machine.history:
        if event.event == Event.FAILED:
            failed, number = event, number + 1
        elif event.event == Event.STARTED and failed is not None:
            yield failed, event, number
            failed = None
        elif event.event == Event.FINISHED:
            failed, number = None, 0


def _killed_succeeded(facts: Facts) -> Iterator[str]:
    killed = facts.killed
    if killed is None:
        yield "no worker was killed while it held a lease"
        return
    lost = [
        (machine, event)
        for machine in facts.machines
        for event in machine.history
        if event.event == Event.LOST and event.session_id == killed.session
    ]
    if not lost:
        yield f"nothing was taken from worker {killed.worker}, which was killed while it held a lease"
    for machine, event in lost:
        if not any(finish.timestamp > event.timestamp for finish in finishes(machine)):
            yield f"{machine.provider_id} was lost with worker {killed.worker}, and nobody finished it"


def _stopped_refused(facts: Facts) -> Iterator[str]:
    stopped = facts.stopped
    if stopped is None:
        yield "no worker was stopped past its trust while it held a lease"
        return
    who = f"worker {stopped.worker}"
    refusals = [
        refusal
        for worker in facts.workers
        if worker.number == stopped.worker
        for refusal in worker.refusals
        if refusal.lease == stopped.lease and refusal.outcome == "finish"
    ]
    if not refusals:
        yield f"{who} was stopped past its trust, and its finish was not refused"
    for machine in facts.machines:
        for event in machine.history:
            if event.event != Event.LOST and event.session_id == stopped.session and event.timestamp > stopped.at:
                yield f"{who} {event.event} {machine.provider_id} in the session that it had before it was stopped"


def _nothing_left(facts: Facts) -> Iterator[str]:
    if facts.leases_left:
        yield f"{facts.leases_left} leases are left, and no worker"


def _all_ended_well(facts: Facts) -> Iterator[str]:
    for worker in facts.workers:
        killed = facts.killed is not None and worker.number == facts.killed.worker
        if worker.status != (-signal.SIGKILL if killed else 0):
            yield f"worker {worker.number} ended with status {worker.status}: {worker.complaint}"


def _lease(facts: Facts, lease: tuple[object, int]) -> str:
    machine, token = lease
    name = next((known.provider_id for known in facts.machines if known.machine == machine), str(machine))
    return f"{name} (token {token})"


_CHECKS: dict[str, Callable[[Facts], Iterator[str]]] = {
    "every machine that can be done is done, the others are in backoff": _done,
    "no machine is finished twice": _finished_once,
    "no two workers hold a machine at the same time": _one_at_a_time,
    "a machine has the agent-started tag exactly if it was finished": _tags_agree,
    "workers and database agree on what was finished and what failed": _reports_agree,
    "no machine is tried again before its backoff has passed": _backoff_kept,
    "others finish what the killed worker held": _killed_succeeded,
    "the stopped worker's finish is refused": _stopped_refused,
    "no lease is left": _nothing_left,
    "no worker broke down": _all_ended_well,
}
