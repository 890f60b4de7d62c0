"""One worker: leases machines that need an agent, starts it, and records how that went.

Runs as `python -m bmdb.demo.worker` until its standard input ends, and tells on standard output what it does, one JSON
object a line. Everything that makes the demo safe is in `_work_on`: there is no other coordination between workers.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import bmdb

PROCESS = "ShepherdAgentStart"
BACKOFF = bmdb.Backoff(initial=1, maximum=8, exponent=2)
ANSWER_SECONDS = 1.0
_DICE = secrets.SystemRandom()


def _tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}, default=str), flush=True)


def _start_agent(address: str, machine: UUID, token: int) -> bytes:
    """Has the machine start an agent and returns that agent's public key. Raises OSError."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as endpoint:
        endpoint.sendall(f"start {machine} {token}\n".encode())
        _tell("asked", machine=machine, token=token)
        answer = endpoint.makefile("r", encoding="ascii").readline().strip()
    if not answer.startswith("key "):
        raise OSError(answer or "closed without an answer")
    return bytes.fromhex(answer.removeprefix("key "))


def _cause(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_SECONDS:g} s"
    return (error.strerror or str(error)).lower()


def _work_on(work: bmdb.Work, address: str) -> None:
    """Does the work, and ends it as finished or failed. Who holds the lease no longer is refused."""
    what = {"machine": work.machine, "token": work.token}
    _tell("leased", **what)
    outcome = "finish"
    try:
        try:
            key = _start_agent(address, work.machine, work.token)
        except OSError as error:
            outcome = "fail"
            work.fail(_cause(error), BACKOFF)
        else:
            work.finish(lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), key))
    except (bmdb.LeaseLostError, bmdb.SessionExpiredError) as error:
        _tell("refused", **what, outcome=outcome, error=type(error).__name__, message=str(error))
    else:
        _tell("finished" if outcome == "finish" else "failed", **what)


def _work_in(session: bmdb.Session, providers: Sequence[str], limit: int, stopping: threading.Event) -> None:
    addresses: dict[UUID, str] = {}

    def retrieve(q: bmdb.Queries) -> list[UUID]:
        rows = [row for provider in providers for row in q.machines_for_agent_start(limit, provider)]
        addresses.update((row.machine_id, row.provider_ip_address or "") for row in rows)
        # In random order, so that not all workers try to lease the same machine first.
        return _DICE.sample([row.machine_id for row in rows], len(rows))

    while not stopping.is_set():
        try:
            with session.work(PROCESS, retrieve) as work:
                _work_on(work, addresses[work.machine])
        except (bmdb.NothingToDo, bmdb.WorkConflictError):
            _tell("idle")
            stopping.wait(_DICE.uniform(0.1, 0.4))


def main() -> None:
    """Works until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bmdb.demo.worker")
    parser.add_argument("--name", required=True, help="the component that history shows")
    parser.add_argument("--interval", type=float, required=True, help="of the sessions, in seconds")
    parser.add_argument("--limit", type=int, required=True, help="how many machines to look at, of each provider")
    parser.add_argument("--provider", action="append", required=True, help="whose machines; may be repeated")
    given = parser.parse_args()

    stopping = threading.Event()

    def listen() -> None:
        while os.read(0, 1024):
            pass
        stopping.set()

    threading.Thread(target=listen, name="stdin", daemon=True).start()
    # The conninfo is in BMDB_CONNINFO.
    with bmdb.connect(component=given.name, pool_size=2) as connection:
        while not stopping.is_set():
            with connection.start_session(interval=given.interval, processor="demo") as session:
                _tell("session", session=session.uuid)
                try:
                    _work_in(session, given.provider, given.limit, stopping)
                except bmdb.SessionExpiredError:
                    _tell("expired", session=session.uuid)


if __name__ == "__main__":
    main()
