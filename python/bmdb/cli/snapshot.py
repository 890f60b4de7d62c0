"""The fleet at one moment, as `bmdb top` shows it: question by question, so that one that fails spoils no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import bmdb
from bmdb import overview
from bmdb.model import Hold

__all__ = ["RATES", "ProcessRow", "Snapshot", "take"]

# Events a minute, as they are headed.
RATES = {"Started": "claims", "Finished": "finishes", "Failed": "failures", "Lost": "losses"}
_MINUTE = 60.0
_LAST_MINUTE = dataclasses.replace(overview.LOSSES, params=(list(RATES), _MINUTE, _MINUTE))

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessRow:
    """What is going on with one process."""

    process: str
    leases: overview.Leases | None
    backoffs: overview.Backoffs | None
    rates: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """The row for JSON; rates are events in the last minute."""
        leases, backoffs = self.leases, self.backoffs
        return {
            "process": self.process,
            "leases": leases.leases if leases else 0,
            "oldest_lease": leases.oldest if leases else None,
            "orphaned_leases": leases.orphaned if leases else 0,
            "backoffs": backoffs.backoffs if backoffs else 0,
            "next_backoff_ends": backoffs.next if backoffs else None,
            "quarantined": backoffs.quarantined if backoffs else 0,
            "last_minute": dict(self.rates),
        }


@dataclass(frozen=True)
class Snapshot:
    """The fleet by this machine's clock; what could not be asked is None, or missing, and `errors` says why."""

    at: datetime
    machines: overview.MachineCounts | None
    sessions: overview.Sessions | None
    collection: overview.CollectionLag | None
    processes: Sequence[ProcessRow]
    holds: Sequence[Hold]
    errors: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """The snapshot for JSON."""
        rows = [row.document() for row in self.processes]
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"processes": rows}


def take(connection: bmdb.Connection) -> Snapshot:
    """Asks all there is to show. Raises ConnectionFailedError."""
    errors: dict[str, str] = {}

    def ask(what: str, question: Callable[[], T], nothing: T) -> T:
        try:
            return question()
        except bmdb.ConnectionFailedError:
            raise
        except bmdb.Error as error:
            errors[what] = str(error)
            return nothing

    at = datetime.now(UTC)
    leases = ask("leases", lambda: overview.LEASES.ask(connection), list[overview.Leases]())
    backoffs = ask("backoffs", lambda: overview.BACKOFFS.ask(connection), list[overview.Backoffs]())
    events = ask("rates", lambda: _LAST_MINUTE.ask(connection), list[overview.Events]())
    return Snapshot(
        at=at,
        machines=ask("machines", lambda: overview.MACHINES.ask(connection), None),
        sessions=ask("sessions", lambda: overview.SESSIONS.ask(connection), None),
        collection=ask("collection", lambda: overview.COLLECTION.ask(connection), None),
        processes=_by_process(leases, backoffs, events),
        holds=ask("holds", connection.holds, list[Hold]()),
        errors=errors,
    )


def _by_process(
    leases: Sequence[overview.Leases], backoffs: Sequence[overview.Backoffs], events: Sequence[overview.Events]
) -> list[ProcessRow]:
    held = {row.process: row for row in leases}
    waiting = {row.process: row for row in backoffs}
    rates: dict[str, dict[str, int]] = {}
    for row in events:
        rates.setdefault(row.process, {})[RATES[row.event]] = row.total
    none = dict.fromkeys(RATES.values(), 0)
    return [
        ProcessRow(name, held.get(name), waiting.get(name), none | rates.get(name, {}))
        for name in sorted({*held, *waiting, *rates})
    ]
