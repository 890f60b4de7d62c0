"""Row 29: the wait for a synchronous standby is cancelled in COMMIT: committed here, and perhaps nowhere else.

Promised: `AmbiguousCommitError` from transactions and ends of work, with a callback and without, since a failover may
take them back. A claim is answered: should a failover take it back, its session expires and says so (row 27).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.faults.figures import Figure

WAITING = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@contextlib.contextmanager
def lonely(sql: psycopg.Connection[Any]) -> Iterator[None]:
    """Commits wait for a standby that is not there, and each wait is cancelled soon."""
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.02):
            sql.execute(WAITING)

    sql.execute("ALTER SYSTEM SET synchronous_standby_names TO 'nobody'")
    sql.execute("SELECT pg_reload_conf()")
    time.sleep(0.3)
    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        yield
    finally:
        over.set()
        canceller.join()
        sql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        sql.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)


def test_it_is_ambiguous(connect: Connect, own_server: EmbeddedServer, figure: Figure) -> None:
    dsn = own_server.dsn()
    with (
        connect(dsn, component="test", migrate=True) as connection,
        psycopg.connect(dsn, autocommit=True, options="-c synchronous_commit=local") as sql,
    ):
        session = connection.start_session(interval=120)
        machines = [session.transact(lambda q: q.new_machine()).machine_id for _ in range(4)]
        held = [session.work("install", lambda q, machine=machine: [machine]) for machine in machines[:3]]
        ways: list[Callable[[], Any]] = [
            lambda: session.transact(lambda q: q.new_machine()),
            lambda: held[0].finish(),
            lambda: held[1].finish(lambda q: q.new_machine()),
            lambda: held[2].fail("no answer", bmdb.Backoff(60)),
        ]
        with lonely(sql):
            for way in ways:
                with pytest.raises(bmdb.AmbiguousCommitError, match="standby"):
                    way()
            claimed = session.work("install", lambda q: [machines[3]])
        figure("reported as committed", 0, of=len(ways))
        # All of it is there, on this server.
        assert sql.execute("SELECT count(*) FROM machines").fetchone() == (6,)
        assert sql.execute("SELECT machine_id FROM work").fetchall() == [(machines[3],)]
        claimed.finish()
        session.close()
