"""Three control loops that look after machines of one provider: `bmdb run shepherd.fleet`, as often as you like.

Each looks for machines by what the database says of them, so none has to tell the next one to go on. `q.notify` only
spares it the rest of its pause.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import httpx

import bmdb

PROVIDER = "Equinix"
API = os.environ.get("SHEPHERD_PROVIDER", "http://127.0.0.1:8077")
INTERVAL = float(os.environ.get("SHEPHERD_INTERVAL", "5"))

# No two of them are to touch a machine at the same time.
access = bmdb.Process("ShepherdAccess", backoff=bmdb.Backoff(60, 3600, 1.5))
agent_start = bmdb.Process(
    "ShepherdAgentStart", backoff=bmdb.Backoff(300, 4 * 3600, 1.2), excludes=("ShepherdAccess", "ShepherdRecovery")
)
recovery = bmdb.Process("ShepherdRecovery", backoff=bmdb.Backoff(60, 3600, 1.2), excludes=("ShepherdAccess",))

# A query of the author's own: machines that are wanted, and that no provider has given yet.
WANTED = """
    SELECT machine_id FROM machines
    WHERE NOT EXISTS (SELECT FROM machine_provided WHERE machine_provided.machine_id = machines.machine_id)
      AND NOT EXISTS (SELECT FROM work WHERE work.machine_id = machines.machine_id)
      AND NOT EXISTS (
        SELECT FROM work_backoff AS backoff
        WHERE backoff.machine_id = machines.machine_id AND backoff.process = 'ShepherdAccess'
          AND backoff.until > statement_timestamp())
    ORDER BY machine_id LIMIT $1
"""


def asked(work: bmdb.Work | bmdb.AsyncWork, answer: httpx.Response) -> dict[str, str]:
    """What the provider answered. Every request tells it the lease's token, and it refuses one that is out of date."""
    if answer.status_code == httpx.codes.CONFLICT:
        # Somebody else holds the machine by now; whatever this one does next is refused by the database, too.
        raise bmdb.Cancel(f"the provider has seen a newer lease than {work.token}")
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise bmdb.Retry(answer.text, after=1)
    answer.raise_for_status()
    body: dict[str, str] = answer.json()
    return body


@bmdb.loop(access, retrieve=lambda q: q.fetch(WANTED, 16), parallelism=4, interval=INTERVAL)
def provision(work: bmdb.Work) -> Callable[[bmdb.Queries], None]:
    """Has the provider make a machine. Asking twice for the same one is safe: its id is ours."""
    with httpx.Client(base_url=API) as provider:
        device = asked(work, provider.put(f"/devices/{work.machine}", params={"token": work.token}))

    def record(q: bmdb.Queries) -> None:
        q.machine_add_provided(
            work.machine, PROVIDER, device["id"], ip_address=device["address"], location=device["location"]
        )
        q.notify(agent_start)

    return record


@bmdb.loop(
    agent_start,
    retrieve=lambda q: q.machines_for_agent_start(16, PROVIDER),
    parallelism=10,
    interval=INTERVAL,
)
async def start_agent(work: bmdb.AsyncWork) -> Callable[[bmdb.AsyncQueries], object]:
    """Starts an agent. It takes a while, so many are started at once, as tasks."""
    device = await work.session.transact(lambda q: provided(q, work.machine))
    async with httpx.AsyncClient(base_url=API) as provider:
        answer = await provider.post(f"/devices/{device}/agent", params={"token": work.token})
    key = bytes.fromhex(asked(work, answer)["key"])
    return lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), key)


async def provided(q: bmdb.AsyncQueries, machine: UUID) -> str:
    """The provider's own id of the machine."""
    found = await q.fetch_value("SELECT provider_id FROM machine_provided WHERE machine_id = $1", machine)
    return str(found)


@bmdb.loop(recovery, retrieve=lambda q: q.machines_for_agent_recovery(16, PROVIDER), interval=INTERVAL)
def recover(work: bmdb.Work) -> Callable[[bmdb.Queries], None]:
    """Restarts a machine whose agent fell silent; then it needs an agent again."""
    device = work.session.transact(
        lambda q: q.fetch_value("SELECT provider_id FROM machine_provided WHERE machine_id = $1", work.machine)
    )
    with httpx.Client(base_url=API) as provider:
        asked(work, provider.post(f"/devices/{device}/reboot", params={"token": work.token}))

    def record(q: bmdb.Queries) -> None:
        q.machine_delete_agent_started(work.machine)
        q.machine_delete_agent_heartbeat(work.machine)
        q.notify(agent_start)

    return record
