"""Machines that there are not: a fleet to lease from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import bmdb
from bmdb.model import ActiveWork, HistoryEvent
from bmdb.testing.hand import Hand

__all__ = ["Fleet"]

T = TypeVar("T")


class Fleet(Hand):
    """Makes machines in one database, `Fleet(conninfo)`, and tells what became of them; a context manager.

    Calling it makes machines: `machines = fleet(10)`. Its methods are short and may be called from async tests as
    they are. All of them raise ConnectionFailedError when the server is out of reach, and DatabaseError when it
    refuses.
    """

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo)
        self._numbers = itertools.count(1)

    def __call__(self, count: int, *, provider: str | None = "Equinix", agents: bool = False) -> list[UUID]:
        """Make so many machines and return their ids, in ascending order, as retrievals of the library offer them.

        `provider` says who has provided them (None: no such tag). With `agents` an agent was started on each just now.
        """
        now = datetime.now(UTC)

        def make(q: bmdb.Queries) -> list[UUID]:
            made = [q.new_machine().machine_id for _ in range(count)]
            for machine in made:
                if provider is not None:
                    q.machine_add_provided(machine, provider, f"testing-{next(self._numbers)}")
                if agents:
                    q.machine_set_agent_started(machine, now, machine.bytes)
            return sorted(made)

        return self.write(make)

    def write(self, fn: Callable[[bmdb.Queries], T]) -> T:
        """Run a callback in a transaction that no session fences, for whatever state a test begins with.

        Returns what it returned; it may run again after a conflict.
        """
        return self._write(fn)

    def history(self, machine: UUID) -> list[HistoryEvent]:
        """Everything that happened to the machine, oldest first."""
        return self._connection.history_of(machine)

    def events(self, machine: UUID) -> list[str]:
        """The same by name: ["Started", "Lost", "Started", "Finished"]."""
        return [event.event for event in self.history(machine)]

    def tags(self, machine: UUID) -> set[str]:
        """The names of the tags that the machine has."""
        return set(self._connection.tags_of([machine]).get(machine, []))

    def holders(self, machine: UUID) -> list[ActiveWork]:
        """The leases on the machine with their sessions, by process; those of expired sessions included."""
        return self._write(lambda q: q.work_on([machine]))
