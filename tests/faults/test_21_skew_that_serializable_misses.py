"""Row 21: PostgreSQL lets a write skew pass once it has summarised old transactions.

Promised: a lease is safe all the same.

The server has few connections, so it keeps few finished transactions in memory and a little filler load is enough.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect

PROCESS = "UnitTest1"
SECONDS = 30.0
FILLER = 600


@pytest.mark.slow
def test_two_claims_that_each_saw_the_machine_free_lease_it_once_under_filler_load(connect: Connect) -> None:
    with (
        EmbeddedServer({"max_connections": "20"}) as server,
        psycopg.connect(server.dsn(), autocommit=True) as sql,
        connect(server.dsn(), component="test", migrate=True, pool_size=4) as connection,
        connection.start_session(interval=30.0) as first,
        connection.start_session(interval=30.0) as second,
    ):
        row = sql.execute("INSERT INTO machines DEFAULT VALUES RETURNING machine_id").fetchone()
        assert row is not None
        machine: UUID = row[0]
        both_saw_it, filled = threading.Barrier(3), threading.Event()

        def claim(session: bmdb.Session) -> tuple[int, bmdb.Work | None]:
            runs = 0

            def retrieve(q: bmdb.Queries) -> list[UUID]:
                nonlocal runs
                runs += 1
                held = q.fetch_value("SELECT count(*) FROM work WHERE machine_id = $1", machine)
                if runs == 1:
                    assert held == 0
                    both_saw_it.wait(SECONDS)
                    assert filled.wait(SECONDS)
                return [machine] if held == 0 else []

            try:
                return runs, session.work(PROCESS, retrieve)
            except (bmdb.NothingToDo, bmdb.WorkConflictError):
                return runs, None

        with ThreadPoolExecutor() as threads:
            claims: list[Future[tuple[int, bmdb.Work | None]]] = [
                threads.submit(claim, session) for session in (first, second)
            ]
            both_saw_it.wait(SECONDS)
            with psycopg.connect(server.dsn(), autocommit=True) as filler:
                for _ in range(FILLER):
                    filler.execute(
                        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM work;"
                        " INSERT INTO work_history (machine_id, process, event)"
                        " VALUES (gen_random_uuid(), 'filler', 'Started'); COMMIT"
                    )
            filled.set()
            leased = [work for _, work in (future.result(SECONDS) for future in claims) if work is not None]
        assert len(leased) == 1
        assert sql.execute("SELECT machine_id, token FROM work").fetchall() == [(machine, leased[0].token)]
        started = sql.execute("SELECT count(*) FROM work_history WHERE event = 'Started' AND process = %s", [PROCESS])
        assert started.fetchone() == (1,)
        leased[0].finish()
