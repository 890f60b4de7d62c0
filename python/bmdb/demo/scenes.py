"""What goes wrong halfway: one worker is killed while it holds a lease, another is stopped past its trust."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from bmdb import Connection
from bmdb.demo.facts import Killed, Stopped
from bmdb.demo.fleet import Fleet, Report, Worker
from bmdb.demo.rack import RackMachine
from bmdb.model import Event, HistoryEvent

# A worker is caught while its machine starts the agent, so that must take long enough to look at the database.
_LONG_ENOUGH = 0.2
_LOOK_EVERY = 0.2


class Scenes:
    """Waits for its moments in what the workers report, and remembers what was done to whom."""

    def __init__(
        self,
        fleet: Fleet,
        connection: Connection,
        rack: Mapping[UUID, RackMachine],
        say: Callable[[str], None],
        *,
        interval: float,
    ) -> None:
        self.killed: Killed | None = None
        self.stopped: Stopped | None = None
        self._fleet = fleet
        self._connection = connection
        self._say = say
        self._interval = interval
        doable = {machine: row for machine, row in rack.items() if row.can_be_done}
        long_enough = min(_LONG_ENOUGH, max(row.delay for row in doable.values()))
        self._names = {machine: row.provider_id for machine, row in doable.items()}
        self._suitable = {machine for machine, row in doable.items() if row.delay >= long_enough}
        self._inherited: UUID | None = None
        self._frozen: tuple[Worker, UUID, int, datetime] | None = None
        self._looked = 0.0

    @property
    def waiting(self) -> bool:
        """Whether something is still to come that was set going: a successor, or a refusal."""
        return self._inherited is not None or self._frozen is not None

    def on(self, report: Report, *, halfway: bool) -> None:
        """Takes notice of what a worker said."""
        worker = report.worker
        if self._frozen is not None and self.stopped is not None and worker is self._frozen[0]:
            self._on_continued(report)
        elif halfway and report.event == "asked" and not worker.killed and not worker.stopped:
            if self.killed is None:
                self._catch(report, self._kill)
            elif self.stopped is None and self._frozen is None:
                self._catch(report, self._freeze)

    def tick(self) -> None:
        """Looks after what was set going; to be called often."""
        now = time.monotonic()
        if now < self._looked + _LOOK_EVERY:
            return
        self._looked = now
        if self._inherited is not None and (finish := self._finish(self._inherited)) is not None:
            self._say(f"{finish.component} finished {self._names[self._inherited]} in place of the killed worker")
            self._inherited = None
        if self._frozen is not None and self.stopped is None:
            self._thaw_if_due()

    def _catch(self, report: Report, then: Callable[[Worker, UUID, int], None]) -> None:
        """Freezes the worker and, if the database says that it holds this lease indeed, does `then` to it."""
        worker, machine, token = report.worker, report.machine, report.token
        if machine is None or token is None or machine not in self._suitable:
            return
        self._fleet.stop(worker)
        # Long enough for a commit that is on its way to land, in which case the moment has passed.
        time.sleep(0.05)
        last = self._history(machine)[-1]
        if (last.event, last.token, last.session_id) == (Event.STARTED, token, worker.sessions[-1]):
            then(worker, machine, token)
        else:
            self._fleet.resume(worker)

    def _kill(self, worker: Worker, machine: UUID, token: int) -> None:
        self._fleet.kill(worker)
        self.killed = Killed(worker.number, worker.sessions[-1], datetime.now(UTC))
        self._inherited = machine
        self._say(f"{worker} was killed (SIGKILL) while it held {self._names[machine]}")

    def _freeze(self, worker: Worker, machine: UUID, token: int) -> None:
        self._frozen = (worker, machine, token, datetime.now(UTC))
        self._say(f"{worker} was stopped (SIGSTOP) while it held {self._names[machine]}")

    def _thaw_if_due(self) -> None:
        """Continues the worker once another has finished its machine, or after a while: past its trust in any case."""
        assert self._frozen is not None  # noqa: S101 - the caller has looked
        worker, machine, token, since = self._frozen
        elapsed = (datetime.now(UTC) - since).total_seconds()
        finish = self._finish(machine)
        others = any(not other.killed and other is not worker for other in self._fleet.workers)
        patience = self._interval * (5 if others else 2)
        if elapsed < self._interval or (finish is None and elapsed < patience):
            return
        if finish is not None:
            self._say(f"{finish.component} finished {self._names[machine]} in place of the stopped worker")
        self.stopped = Stopped(worker.number, worker.sessions[-1], (machine, token), since, datetime.now(UTC))
        self._say(f"{worker} was continued (SIGCONT) and still believes that it holds {self._names[machine]}")
        self._fleet.resume(worker)

    def _on_continued(self, report: Report) -> None:
        assert self._frozen is not None  # noqa: S101 - the caller has looked
        worker, machine, _, _ = self._frozen
        if report.event == "refused":
            error, outcome = report.fields["error"], report.fields["outcome"]
            self._say(f"{worker} wanted to {outcome} {self._names[machine]} and was refused: {error}")
        if report.event in ("refused", "finished", "failed", "ended"):
            self._frozen = None

    def _finish(self, machine: UUID) -> HistoryEvent | None:
        return next((event for event in self._history(machine) if event.event == Event.FINISHED), None)

    def _history(self, machine: UUID) -> list[HistoryEvent]:
        return self._connection.history_of(machine)
