"""What only several processes of the system can show."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
from tests.conftest import MakeMachines
from tests.processes import Spawn

LATEST = 6
Sql = psycopg.Connection[Any]

# Leases until nothing is left and prints what it got; waits for a line before it begins, and before it ends.
CLAIMER = """
    import sys, uuid
    import bmdb

    machines = [uuid.UUID(text) for text in sys.argv[2].split(",")]
    with bmdb.connect(sys.argv[1], component="claimer") as connection, connection.start_session() as session:
        print("ready")
        input()
        while True:
            try:
                print("leased", session.work("UnitTest1", lambda q: machines).machine)
            except bmdb.WorkConflictError:
                break
        print("done")
        input()
"""

MIGRATOR = """
    import sys
    import bmdb

    with bmdb.connect(sys.argv[1], component="migrator") as connection:
        print("ready")
        input()
        print("version", connection.migrate())
        with connection.start_session() as session:
            print("machine", session.transact(lambda q: q.new_machine().machine_id))
"""


def test_processes_share_the_machines_out(spawn: Spawn, database: str, machines: MakeMachines, sql: Sql) -> None:
    rack = machines(12)
    workers = [spawn(CLAIMER, database, ",".join(map(str, rack))) for _ in range(3)]
    for worker in workers:
        worker.expect("ready")
    for worker in workers:
        worker.send()
    for worker in workers:
        worker.expect("done")
    taken = [UUID(line.split()[1]) for worker in workers for line in worker.lines if line.startswith("leased")]
    assert Counter(taken) == Counter(rack)
    assert {machine for (machine,) in sql.execute("SELECT machine_id FROM work")} == set(rack)
    for worker in workers:
        worker.send()
        assert worker.wait() == 0
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)


def test_several_processes_migrate_at_once(spawn: Spawn, empty_database: str) -> None:
    workers = [spawn(MIGRATOR, empty_database) for _ in range(4)]
    for worker in workers:
        worker.expect("ready")
    for worker in workers:
        worker.send()
    for worker in workers:
        assert worker.wait() == 0, worker.errors
        assert worker.lines[1] == f"version {LATEST}"
    with psycopg.connect(empty_database, autocommit=True) as sql:
        versions = sql.execute("SELECT version FROM bmdb_schema ORDER BY version").fetchall()
        assert versions == [(version,) for version in range(1, LATEST + 1)]
        assert sql.execute("SELECT count(*) FROM machines").fetchone() == (4,)
