"""A worker: starts an agent on every machine that needs one. Run as many of these as you like."""

from datetime import UTC, datetime
from uuid import UUID

import bmdb

AGENT_START = bmdb.Process(
    "ShepherdAgentStart",
    backoff=bmdb.Backoff(initial=60, maximum=3600, exponent=1.5),  # seconds
    excludes=("ShepherdRecovery",),  # never both on one machine
    max_hold=600,  # seconds; then the lease is failed, whatever the worker is doing
)


def start_agent(machine: UUID) -> bytes:
    """The work itself: seconds or hours, outside any transaction."""
    return machine.bytes  # the agent's public key


with bmdb.connect(component="agent-starter", migrate=True) as connection, connection.start_session() as session:
    while True:
        try:
            work = session.work(AGENT_START, lambda q: q.machines_for_agent_start(16, "Equinix"))
        except (bmdb.NothingToDo, bmdb.WorkConflictError):
            break  # a real worker sleeps a little and looks again
        with work:  # left with the work undone, the machine is given back
            try:
                key = start_agent(work.machine)
            except OSError as error:
                work.fail(str(error))  # not again before the backoff has passed
            else:
                work.finish(lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), key))  # noqa: B023
