"""What is known at the end of the demo: the database's own records, and what the workers say they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from bmdb import Connection, Queries
from bmdb.demo.endpoints import Endpoints
from bmdb.demo.fleet import Worker
from bmdb.demo.rack import RackMachine
from bmdb.demo.worker import PROCESS
from bmdb.model import HistoryEvent, WorkBackoff

Lease = tuple[UUID, int]
"""A machine and the fencing token under which it was leased."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A machine: what the rack says of it, what the database does, and the tokens that its endpoint took."""

    machine: UUID
    provider: str
    provider_id: str
    can_be_done: bool
    history: Sequence[HistoryEvent]
    backoff: WorkBackoff | None
    tagged: bool
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A worker was refused: it wanted to `outcome` (finish or fail) work that was not its own any more."""

    lease: Lease
    outcome: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker told. `status` is its exit status, negative for the signal that ended it."""

    number: int
    pid: int
    component: str
    sessions: Sequence[UUID]
    finished: frozenset[Lease]
    failed: frozenset[Lease]
    refusals: Sequence[Refusal]
    status: int | None
    complaint: str


@dataclass(frozen=True, slots=True)
class Killed:
    """The worker that was sent SIGKILL, and the session that it had."""

    worker: int
    session: UUID
    at: datetime


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker that was stopped while it held a lease, and when it was continued."""

    worker: int
    session: UUID
    lease: Lease
    at: datetime
    continued: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `leases_left` is counted after the workers have ended, before anybody else may collect."""

    machines: Sequence[MachineFacts]
    workers: Sequence[WorkerFacts]
    killed: Killed | None
    stopped: Stopped | None
    leases_left: int

    def named(self, machine: UUID) -> str:
        """The machine as its provider calls it."""
        return next((known.provider_id for known in self.machines if known.machine == machine), str(machine))


def gather(
    connection: Connection,
    rack: Mapping[UUID, RackMachine],
    endpoints: Endpoints,
    workers: Sequence[Worker],
    *,
    killed: Killed | None,
    stopped: Stopped | None,
) -> Facts:
    """Reads everything from the database, once the workers have ended."""
    # Counted first, and without a session: a connection that has one frees the leases of sessions that expired.
    leases_left = sum(connection.statistics().active_work.values())

    def read(q: Queries) -> list[MachineFacts]:
        found = []
        for machine, row in rack.items():
            endpoint = endpoints.of(row)
            found.append(
                MachineFacts(
                    machine=machine,
                    provider=row.provider,
                    provider_id=row.provider_id,
                    can_be_done=row.can_be_done,
                    history=[event for event in q.history_of(machine) if event.process == PROCESS],
                    backoff=q.work_backoff_of(machine, PROCESS),
                    tagged=q.authenticate_agent(machine, endpoint.key) is not None,
                    tokens=tuple(endpoint.tokens),
                )
            )
        return found

    with connection.start_session(processor="demo") as session:
        machines = session.transact(read)
    told = [_told(worker) for worker in workers]
    return Facts(machines=machines, workers=told, killed=killed, stopped=stopped, leases_left=leases_left)


def _told(worker: Worker) -> WorkerFacts:
    def leases(event: str) -> frozenset[Lease]:
        return frozenset(
            (report.machine, report.token)
            for report in worker.reports
            if report.event == event and report.machine is not None and report.token is not None
        )

    refusals = [
        Refusal(
            lease=(report.machine, report.token),
            outcome=report.fields["outcome"],
            error=report.fields["error"],
            message=report.fields["message"],
        )
        for report in worker.reports
        if report.event == "refused" and report.machine is not None and report.token is not None
    ]
    return WorkerFacts(
        number=worker.number,
        pid=worker.pid,
        component=worker.name,
        sessions=tuple(worker.sessions),
        finished=leases("finished"),
        failed=leases("failed"),
        refusals=refusals,
        status=worker.process.returncode,
        complaint=worker.complaints[-1] if worker.complaints else "",
    )
