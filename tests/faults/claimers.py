"""Claimers in processes of their own that drain a fleet by declared eligibility, and what the database says of them."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.processes import Spawn, eventually

PROCESS = "UnitTest1"
WAIT_SECONDS = 60.0

WORKER = """
    import sys
    import threading
    import bmdb

    dsn, threads, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    process = bmdb.Process("UnitTest1", eligible=bmdb.eligible(having=("provided",), lacking=("hardware_report",)))
    reported = bmdb.set_tag("hardware_report", hardware_report_raw=b"done")
    wrong = []

    def drain(session):
        try:
            while True:
                if batch > 1:
                    works = session.work_many(process, batch)
                    wrong.extend(error for error in session.finish_many([(work, reported) for work in works]) if error)
                else:
                    session.work(process).finish(reported)
        except bmdb.NothingToDo:
            pass
        except BaseException as error:
            wrong.append(error)

    with bmdb.connect(dsn, component="claimer") as connection:
        sessions = [connection.start_session(interval=20.0) for _ in range(2)]
        claimers = [threading.Thread(target=drain, args=[sessions[n % 2]]) for n in range(threads)]
        print("ready", flush=True)
        input()
        for claimer in claimers:
            claimer.start()
        for claimer in claimers:
            claimer.join()
        for session in sessions:
            session.close()
    print("wrong", *map(repr, wrong), flush=True)
"""


def drain(spawn: Spawn, dsn: str, *, processes: int, threads: int, batch: int) -> None:
    """Has so many processes with so many threads each take and finish all machines, `batch` at a time."""
    # Every other process claims singly, so that batches meet single claims, too.
    workers = [spawn(WORKER, dsn, str(threads), str(batch if number % 2 == 0 else 1)) for number in range(processes)]
    for worker in workers:
        worker.expect("ready", timeout=WAIT_SECONDS)
    for worker in workers:
        worker.send()
    for worker in workers:
        assert worker.expect("wrong", timeout=WAIT_SECONDS).split() == ["wrong"]
        assert worker.wait() == 0


def deadlocks(sql: psycopg.Connection[Any]) -> int:
    """How many the database has met, once every other backend has reported its own by ending."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually(lambda: sql.execute(others).fetchone() == (0,))
    row = sql.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])
