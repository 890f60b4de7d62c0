"""Orders machines: `python -m shepherd.order 20`. The provisioner then finds them.

With --silent some more are there whose agent was started and fell silent, for the recoverer.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import bmdb


def order(q: bmdb.Queries, wanted: int, silent: int) -> None:
    """In one transaction."""
    for _ in range(wanted):
        q.new_machine()
    before = datetime.now(UTC) - timedelta(hours=1)
    for _ in range(silent):
        machine = q.new_machine().machine_id
        q.machine_add_provided(machine, "Equinix", str(machine))
        q.machine_set_agent_started(machine, before, b"a key of old")
        q.machine_set_agent_heartbeat(machine, before + timedelta(minutes=30))
    # No loop needs to be told, but so they look at once.
    q.notify("ShepherdAccess")
    q.notify("ShepherdRecovery")


def main() -> None:
    """The database is in $BMDB_CONNINFO."""
    parser = argparse.ArgumentParser(prog="python -m shepherd.order")
    parser.add_argument("machines", type=int, help="how many to order")
    parser.add_argument("--silent", type=int, default=0, help="how many more whose agent fell silent")
    given = parser.parse_args()
    with bmdb.connect(component="order") as connection, connection.start_session() as session:
        session.transact(lambda q: order(q, given.machines, given.silent))
        print(f"{session.transact(lambda q: q.count_machines())} machines")


if __name__ == "__main__":
    main()
