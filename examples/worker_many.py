"""The same worker, declared: bmdb finds the machines and sets the tag itself, many at once."""

from datetime import UTC, datetime

import bmdb

AGENT_START = bmdb.Process(
    "ShepherdAgentStart",
    backoff=bmdb.Backoff(initial=60, maximum=3600, exponent=1.5),
    eligible=bmdb.eligible(
        having=("provided",), lacking=("agent_started",), where="machine_provided.provider = $1", params=("Equinix",)
    ),
)

with bmdb.connect(component="agent-starter", migrate=True) as connection, connection.start_session() as session:
    while True:
        try:
            works = session.work_many(AGENT_START, 200)
        except bmdb.NothingToDo:
            break
        done = []
        for work in works:
            key = work.machine.bytes  # the work itself
            started = bmdb.set_tag("agent_started", agent_started_at=datetime.now(UTC), agent_public_key=key)
            done.append((work, started))
        for work, error in zip(works, session.finish_many(done), strict=True):
            if error is not None:
                print(f"machine {work.machine} is not finished: {error}")
