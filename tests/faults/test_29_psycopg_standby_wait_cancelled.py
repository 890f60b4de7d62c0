"""Row 29: the wait for a synchronous standby is cancelled in COMMIT on a psycopg connection: committed here, and here
only.

Promised: `AmbiguousCommitError`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer


def test_it_is_ambiguous(own_server: EmbeddedServer) -> None:
    dsn = own_server.dsn()
    with (
        bmdb.connect(dsn, component="test", migrate=True) as connection,
        psycopg.connect(dsn) as pg,
        psycopg.connect(dsn, autocommit=True) as sql,
    ):
        session = connection.start_session(interval=120)
        session.transact(lambda q: q.count_machines(), connection=pg)
        sql.execute("SET synchronous_commit TO local")
        sql.execute("ALTER SYSTEM SET synchronous_standby_names TO 'nobody'")
        sql.execute("SELECT pg_reload_conf()")
        # Each process of the server hears of it on its own time, the checkpointer too, which tells whether to wait.
        time.sleep(1)

        def cancel() -> None:
            deadline = time.monotonic() + 20
            waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
            while sql.execute(waiting, [pg.info.backend_pid]).fetchone() is None and time.monotonic() < deadline:
                time.sleep(0.02)

        def write(q: Any) -> None:
            q.new_machine()
            canceller.start()

        canceller = threading.Thread(target=cancel)
        with pytest.raises(bmdb.AmbiguousCommitError, match="standby"):
            session.transact(write, connection=pg)
        canceller.join()
        assert sql.execute("SELECT count(*) FROM machines").fetchone() == (1,)
        sql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        sql.execute("SELECT pg_reload_conf()")
