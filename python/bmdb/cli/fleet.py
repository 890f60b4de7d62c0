"""What the commands show of a database: pages of machines and sessions, a machine's history, the statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import bmdb
from bmdb.cli.durations import show_duration
from bmdb.cli.terminal import one_line, summary, visible
from bmdb.model import ActiveWork, HistoryEvent, Hold, Machine, SessionUse, WorkBackoff

SESSION_COLUMNS = ("SESSION", "COMPONENT", "STATE", "LEASES", "DEADLINE", "INTERVAL", "STARTED", "RUNTIME INFO")
MACHINE_COLUMNS = ("MACHINE", "TAGS", "WORK", "HOLDS", "BACKOFFS")
EVENT_COLUMNS = ("TIME", "EVENT", "PROCESS", "TOKEN", "COMPONENT", "SESSION", "CAUSE")
# Cut or wrapped, an id is of no use.
FIXED = frozenset({"SESSION", "MACHINE", "TIME"})

# The year of a backoff that stands for a quarantine.
_NEVER = 9999

ItemT = TypeVar("ItemT", bound="SessionUse | MachineState")


@dataclass(frozen=True)
class Page(Generic[ItemT]):
    """Some of the rows in the order of their ids, and after which id to go on, None at the end."""

    items: Sequence[ItemT]
    next: UUID | None

    def document(self, name: str) -> dict[str, Any]:
        """The page for JSON, its rows under `name`."""
        return {name: [_document(item) for item in self.items], "next": self.next}


@dataclass(frozen=True)
class MachineState:
    """A machine, its tags, the leases on it, and the holds and backoffs that exclude it now."""

    machine: Machine
    tags: list[str]
    work: list[ActiveWork]
    holds: list[Hold]
    backoffs: list[WorkBackoff]


def session_page(connection: bmdb.Connection, after: UUID | None, limit: int) -> Page[SessionUse]:
    """One page of sessions."""
    # One more than is shown tells whether there is another page.
    rows = connection._read(lambda q: q.sessions(after, limit + 1))
    return Page(rows[:limit], rows[limit - 1].session_id if len(rows) > limit else None)


def machine_page(connection: bmdb.Connection, after: UUID | None, limit: int) -> Page[MachineState]:
    """One page of machines. What is told of a machine may be from moments apart, as nothing is locked to look."""

    def ask(q: bmdb.Queries) -> tuple[list[Machine], list[ActiveWork], list[Hold], list[WorkBackoff]]:
        machines = q.machines(after, limit + 1)
        ids = [machine.machine_id for machine in machines]
        return machines, q.work_on(ids), q.holds(), q.backoffs_of(ids)

    machines, work, holds, backoffs = connection._read(ask)
    tags = connection.tags_of([machine.machine_id for machine in machines])
    states = {
        machine.machine_id: MachineState(machine, tags.get(machine.machine_id, []), [], [], []) for machine in machines
    }
    for lease in work:
        states[lease.machine_id].work.append(lease)
    for hold in holds:
        # Those of the whole fleet: holds are few, as people make them.
        if hold.machine_id in states:
            states[hold.machine_id].holds.append(hold)
    for backoff in backoffs:
        states[backoff.machine_id].backoffs.append(backoff)
    shown = list(states.values())
    return Page(shown[:limit], shown[limit - 1].machine.machine_id if len(shown) > limit else None)


def history(connection: bmdb.Connection, machine: UUID, limit: int) -> tuple[list[HistoryEvent], bool]:
    """The latest events of a machine, oldest first, and whether it is there still."""
    events, found = connection._read(lambda q: (q.latest_history_of(machine, limit), q.machine(machine)))
    return events[::-1], found is not None


def _document(item: SessionUse | MachineState) -> dict[str, Any]:
    if isinstance(item, SessionUse):
        return dataclasses.asdict(item)
    return {
        **dataclasses.asdict(item.machine),
        "tags": item.tags,
        "work": [_without_machine(lease) for lease in item.work],
        "holds": [_without_machine(hold) for hold in item.holds],
        "backoffs": [_without_machine(backoff) for backoff in item.backoffs],
    }


def event_document(event: HistoryEvent) -> dict[str, Any]:
    """The event for JSON; the machine is named once for all of them."""
    return _without_machine(event)


def _without_machine(row: ActiveWork | Hold | WorkBackoff | HistoryEvent) -> dict[str, Any]:
    document = dataclasses.asdict(row)
    del document["machine_id"]
    return document


def session_cells(session: SessionUse) -> tuple[str, ...]:
    """One session as cells, visible."""
    return (
        str(session.session_id),
        one_line(session.session_component_name),
        "live" if session.session_live else "expired",
        str(session.session_leases),
        shown_time(session.session_deadline),
        show_duration(session.session_interval_seconds),
        shown_time(session.session_created_at),
        one_line(session.session_runtime_info),
    )


def machine_cells(state: MachineState) -> tuple[str, ...]:
    """One machine as cells, visible; a line for each lease, each hold and each backoff."""
    return (
        str(state.machine.machine_id),
        ", ".join(map(visible, state.tags)) or "-",
        "\n".join(map(_lease, state.work)) or "-",
        "\n".join(map(_hold, state.holds)) or "-",
        "\n".join(map(_backoff, state.backoffs)) or "-",
    )


def _lease(lease: ActiveWork) -> str:
    expired = "" if lease.session_live else ", expired"
    return (
        f"{one_line(lease.process)} by {one_line(lease.session_component_name)} (session {lease.session_id}{expired})"
    )


def _hold(hold: Hold) -> str:
    process = "all" if hold.process is None else one_line(hold.process)
    return f"{process} by {one_line(hold.owner)}: {summary(hold.reason)}"


def _backoff(backoff: WorkBackoff) -> str:
    if is_quarantine(backoff):
        return f"{one_line(backoff.process)} in quarantine: {summary(backoff.cause)}"
    return f"{one_line(backoff.process)} until {shown_time(backoff.until)}: {summary(backoff.cause)}"


def event_cells(event: HistoryEvent, full: bool) -> tuple[str, ...]:
    """One event as cells, visible; `full` shows its cause whole."""
    cause = event.failed_cause or ""
    return (
        shown_time(event.timestamp),
        one_line(event.event),
        one_line(event.process),
        "-" if event.token is None else str(event.token),
        "-" if event.component is None else one_line(event.component),
        "-" if event.session_id is None else str(event.session_id),
        visible(cause) if full else summary(cause),
    )


def is_quarantine(backoff: WorkBackoff) -> bool:
    """Whether the backoff stands for a quarantine, which lasts until it is released."""
    return backoff.until.year == _NEVER


def shown_time(moment: datetime) -> str:
    """A moment as every table shows it: in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
