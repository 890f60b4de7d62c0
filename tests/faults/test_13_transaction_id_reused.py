"""Row 13: after a crash the server gives the ids of transactions that it forgot to others.

Promised: whoever asks for an outcome by id is not fooled.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.processes import kill
from tests.proxy import Proxy


@pytest.fixture
def lazy_server() -> Iterator[EmbeddedServer]:
    """A server that writes its log only when a commit asks for it, so that a crash forgets what was not committed."""
    with EmbeddedServer({"wal_writer_delay": "10s", "autovacuum": "off"}) as running:
        yield running


def test_a_reused_transaction_id_is_not_taken_for_a_commit(lazy_server: EmbeddedServer, connect: Connect) -> None:
    dsn = lazy_server.create_database("bmdb")
    with (
        Proxy(*lazy_server.address) as proxy,
        connect(proxy.conninfo(dsn), component="crashed", migrate=True) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute("CREATE TABLE writes (what text)")
        session = connection.start_session(interval=120)

        with proxy.holding_before() as commit:
            writing = threads.submit(session.transact, lambda q: q.execute("INSERT INTO writes VALUES ('forgotten')"))
            commit.wait()
            with psycopg.connect(dsn, autocommit=True) as victim:
                kill(victim.info.backend_pid)
            with pytest.raises(bmdb.AmbiguousCommitError) as caught:
                writing.result(timeout=10)
        lazy_server.wait_ready()
        with psycopg.connect(dsn, autocommit=True) as sql:
            forgotten = caught.value.xid
            assert forgotten is not None
            (xid,) = sql.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
            assert xid <= forgotten, "the server did not forget it, so this test shows nothing"
            while xid <= forgotten + 1:
                (xid,) = sql.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
            assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
        try:
            told = caught.value.resolve(timeout=1)
        except TimeoutError:
            told = False
        assert told is False
