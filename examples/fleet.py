"""Two control loops. `bmdb run fleet:start_agent fleet:recover` runs them too, with more to choose."""

from datetime import UTC, datetime

import bmdb

AGENT_START = bmdb.Process(
    "ShepherdAgentStart", backoff=bmdb.Backoff(300, 4 * 3600, 1.2), excludes=("ShepherdRecovery",)
)
RECOVERY = bmdb.Process("ShepherdRecovery", backoff=bmdb.Backoff(60, 3600, 1.2))


@bmdb.loop(AGENT_START, retrieve=lambda q: q.machines_for_agent_start(16, "Equinix"), parallelism=4)
def start_agent(work):
    """On a thread of its own; an exception fails the work with its text as the cause."""
    key = work.machine.bytes
    return lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), key)


@bmdb.loop(RECOVERY, retrieve=lambda q: q.machines_for_agent_recovery(16, "Equinix"), parallelism=2)
async def recover(work):
    """As a task; cancelled when its lease is lost."""
    if work.previous_backoff is None:
        raise bmdb.Retry("rebooted it, will see", after=120)  # seconds

    return lambda q: q.machine_delete_agent_started(work.machine)


if __name__ == "__main__":
    bmdb.run([start_agent, recover])
