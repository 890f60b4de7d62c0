"""Row 22: fifty workers ask the same question, and the answer names the same machine to all of them.

Promised: everybody gets through, nobody runs out of retries, and a lease wastes less than three transactions with
callbacks, less than one without.

Everybody gets through, nobody runs out of retries, and a lease costs at most three transactions for nothing.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from typing import Any, cast

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import Spawn

PROCESS = "UnitTest1"
MACHINES = 200
WASTE_ALLOWED = 3.0

# Those nobody holds and nobody has finished.
FREE = """
SELECT m.machine_id FROM machines m
WHERE NOT EXISTS (SELECT 1 FROM machine_hardware_report r WHERE r.machine_id = m.machine_id)
  AND NOT EXISTS (SELECT 1 FROM work w WHERE w.machine_id = m.machine_id AND w.process = $1)
ORDER BY m.machine_id LIMIT $2
"""


@dataclass
class Tally:
    """What a crew of workers came to.

    `attempts` counts runs of callbacks, claims and finishes together; `claims` those of retrieval alone; `nothing` and
    `conflicts` the claims that ended in NothingToDo and WorkConflictError; `most_runs` those of the unluckiest claim.
    """

    leases: int = 0
    attempts: int = 0
    nothing: int = 0
    conflicts: int = 0
    claims: int = 0
    most_runs: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.leases + other.leases,
            self.attempts + other.attempts,
            self.nothing + other.nothing,
            self.conflicts + other.conflicts,
            self.claims + other.claims,
            max(self.most_runs, other.most_runs),
        )

    @property
    def waste(self) -> float:
        """Transactions for nothing per lease: a lease needs one for the claim and one for the finish."""
        return (self.attempts - self.nothing - 2 * self.leases) / self.leases


def counted(connection: bmdb.Connection, name: str) -> int:
    """A counter of the connection, over all its processors."""
    return sum(value for metric, _, _, value in connection.metrics() if metric == name)


def drain(connection: bmdb.Connection, workers: int, limit: int) -> Tally:
    """Lets so many threads, each with a session, lease and finish machines until none is left."""
    tallies: list[Tally] = []
    errors: list[BaseException] = []
    start = threading.Barrier(workers)

    def worker() -> None:
        tally = Tally()
        tallies.append(tally)
        try:
            with connection.start_session(interval=10.0) as session:
                start.wait(30)
                while True:
                    runs = 0

                    def retrieve(q: bmdb.Queries) -> list[bmdb.Row]:
                        nonlocal runs
                        runs += 1
                        return q.fetch(FREE, PROCESS, limit)

                    try:
                        work = session.work(PROCESS, retrieve)
                    except bmdb.NothingToDo:
                        tally.nothing += 1
                        return
                    except bmdb.WorkConflictError:
                        tally.conflicts += 1
                        continue
                    finally:
                        tally.claims += runs
                        tally.most_runs = max(tally.most_runs, runs)
                    machine = work.machine
                    work.finish(lambda q, m=machine: q.machine_set_hardware_report(m, b"done"))  # type: ignore[misc]
                    tally.leases += 1
        except BaseException as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=worker) for _ in range(workers)]
    before = counted(connection, "bmdb_transaction_executed") + counted(connection, "bmdb_transaction_retried")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    after = counted(connection, "bmdb_transaction_executed") + counted(connection, "bmdb_transaction_retried")
    total = sum(tallies, Tally())
    total.attempts = after - before
    return total


def work_as_process(dsn: str, workers: int, isolation: str, limit: int) -> None:
    """One process of a crew: connects, waits for a line on its input, drains, tells its tally."""
    with bmdb.connect(dsn, component="crew", pool_size=20, isolation=isolation) as connection:
        print("ready", flush=True)
        input()
        print("tally " + json.dumps(asdict(drain(connection, workers, limit))), flush=True)


def check_all_done_once(tally: Tally, sql: psycopg.Connection[Any]) -> None:
    print(f"waste {tally.waste:.2f} a lease, at most {tally.most_runs} runs of one retrieval: {tally}")
    assert tally.leases == MACHINES
    finished = sql.execute("SELECT count(*), count(DISTINCT machine_id) FROM work_history WHERE event = 'Finished'")
    assert finished.fetchone() == (MACHINES, MACHINES)


@pytest.fixture(params=json.loads(os.environ.get("BMDB_CREWS", '[["serializable", 1]]')), ids=str)
def crew(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Isolation and number of machines offered. BMDB_CREWS names more to measure, as JSON."""
    return cast(tuple[str, int], tuple(request.param))


def test_fifty_threads_on_one_connection_share_two_hundred_machines(
    database: str,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    crew: tuple[str, int],
    connect: Connect,
    figure: Figure,
) -> None:
    machines(MACHINES)
    with connect(database, component="crew", pool_size=20, isolation=crew[0]) as connection:
        tally = drain(connection, 50, crew[1])
    check_all_done_once(tally, sql)
    figure("transactions wasted a lease", tally.waste)
    assert tally.waste < WASTE_ALLOWED


def test_five_processes_of_ten_threads_share_two_hundred_machines(
    database: str, sql: psycopg.Connection[Any], machines: MakeMachines, spawn: Spawn, crew: tuple[str, int]
) -> None:
    machines(MACHINES)
    source = """
        import sys
        from tests.faults.test_22_fifty_workers_one_query import work_as_process
        work_as_process(sys.argv[1], 10, sys.argv[2], int(sys.argv[3]))
    """
    processes = [spawn(source, database, crew[0], str(crew[1])) for _ in range(5)]
    for process in processes:
        process.expect("ready")
    for process in processes:
        process.send()
    lines = [process.expect("tally ", timeout=90) for process in processes]
    for process in processes:
        assert process.wait() == 0
        assert process.errors == []
    tally = sum((Tally(**json.loads(line.removeprefix("tally "))) for line in lines), Tally())
    check_all_done_once(tally, sql)
    assert tally.waste < WASTE_ALLOWED
