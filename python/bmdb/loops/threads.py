"""Plain functions: each instance of a loop is a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from bmdb._sync.connection import Connection
from bmdb.errors import MigrationError
from bmdb.loops._sync.crew import Crew
from bmdb.loops.loop import Loop

# Connections beside those of the instances: what ends leases while all of them are in transactions.
_SPARE = 2


class Threads:
    """The loops of a runner whose functions are plain. Its threads are daemons: none keeps the process alive."""

    def __init__(self, loops: Sequence[Loop[Any]]) -> None:
        self._loops = loops
        self._connection: Connection | None = None
        self.crews: list[Crew] = []

    def open(self, conninfo: str | None, component: str, migrate: bool, changed: Callable[[], object]) -> str:
        """Connects, and returns a connection string for others. Raises as `connect` does."""
        size = sum(loop.parallelism for loop in self._loops) + _SPARE
        connection = Connection.connect(conninfo, component=component, migrate=migrate, pool_size=size, pooler=None)
        try:
            check_schema(connection.schema_version())
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self.crews = [Crew(loop, connection, changed) for loop in self._loops]
        return connection.conninfo

    def start(self) -> None:
        """Begins to lease."""
        for crew in self.crews:
            for number in range(crew.loop.parallelism):
                name = f"bmdb-{crew.loop.name}-{number}"
                threading.Thread(target=crew.serve, name=name, daemon=True).start()

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """Of its connection."""
        return [] if self._connection is None else self._connection.metrics()

    def release(self) -> None:
        """Gives back all leases, also of functions that still run."""
        for crew in self.crews:
            crew.release()

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()

    def give_up(self) -> None:
        """Giving back takes too long, as a transaction or the database is stuck: a last, short try."""
        if self._connection is not None:
            self._connection._close_within(0.5)


def check_schema(version: int) -> None:
    """Raises MigrationError when the database has no schema: no loop could ever work there."""
    if version == 0:
        raise MigrationError("the database has no schema: say migrate=True, or run `bmdb migrate`")
