"""Row 16: a COMMIT is still going on while somebody asks how it ended.

Promised: they wait, and are never told "aborted".

A synchronous standby that does not exist keeps the server's COMMIT waiting for as long as the test wants.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.processes import eventually
from tests.proxy import Proxy

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
Freeze = Callable[[], contextlib.AbstractContextManager[None]]


def test_whoever_asks_waits(own_server: EmbeddedServer, connect: Connect) -> None:
    dsn = own_server.create_database("bmdb")
    with (
        Proxy(*own_server.address) as proxy,
        psycopg.connect(dsn, autocommit=True) as sql,
        connect(proxy.conninfo(dsn), component="patient", migrate=True) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        sql.execute("CREATE TABLE writes (what text)")
        (machine,) = sql.execute("INSERT INTO machines DEFAULT VALUES RETURNING machine_id").fetchone() or (None,)
        # Beats would have to wait for the standby too: none comes within this test.
        session = connection.start_session(interval=120)
        runs: list[int] = []

        def write(q: bmdb.Queries) -> None:
            runs.append(q.execute("INSERT INTO writes VALUES ('slow')"))

        with frozen(sql):
            writing = threads.submit(session.transact, write)
            eventually(lambda: count(sql) == 1)
            proxy.reset(executed="INSERT INTO writes")
            with pytest.raises(bmdb.AmbiguousCommitError) as caught:
                writing.result(timeout=10)
            with pytest.raises(TimeoutError):
                caught.value.resolve(timeout=0.5)
            asking = threads.submit(caught.value.resolve, 10)
            assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,), "not visible before it is done"
        assert asking.result(timeout=10) is True
        assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
        assert runs == [1]

        retrievals: list[int] = []

        def retrieve(_: bmdb.Queries) -> Any:
            retrievals.append(1)
            return [machine]

        with frozen(sql):
            claiming = threads.submit(session.work, "Slow", retrieve)
            eventually(lambda: count(sql) == 1)
            proxy.reset(executed="INSERT INTO work ")
            # The claim asks again and again; taking "in progress" for "aborted" it would run a second time.
            asked = proxy.count("pg_xact_status")
            eventually(lambda: proxy.count("pg_xact_status") > asked + 5)
            assert not claiming.done()
        work = claiming.result(timeout=10)
        assert retrievals == [1]
        assert work.machine == machine
        work.finish()


def test_statistics_reset_by_an_operator_are_no_crash(own_server: EmbeddedServer, connect: Connect) -> None:
    """Their reset is how a crash is noticed; taken for one while COMMIT goes on it must not make "aborted" of it."""
    dsn = own_server.create_database("bmdb")
    with (
        Proxy(*own_server.address) as proxy,
        psycopg.connect(dsn, autocommit=True) as sql,
        connect(proxy.conninfo(dsn), component="patient", migrate=True) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        sql.execute("INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, 2)")
        machines = [machine for (machine,) in sql.execute("SELECT machine_id FROM machines")]
        session = connection.start_session(interval=120)
        with frozen(sql):
            writing = threads.submit(session.transact, lambda q: q.machine_set_hardware_report(machines[0], b""))
            eventually(lambda: count(sql) == 1)
            proxy.reset(executed="machine_hardware_report")
            with pytest.raises(bmdb.AmbiguousCommitError) as caught:
                writing.result(timeout=10)
            sql.execute("SELECT pg_stat_reset_shared('bgwriter')")
            with pytest.raises(TimeoutError):
                caught.value.resolve(timeout=0.5)

        retrievals: list[int] = []

        def retrieve(_: bmdb.Queries) -> Any:
            retrievals.append(1)
            return [machines[1]]

        with frozen(sql):
            claiming = threads.submit(session.work, "Slow", retrieve)
            eventually(lambda: count(sql) == 1)
            sql.execute("SELECT pg_stat_reset_shared('bgwriter')")
            proxy.reset(executed="INSERT INTO work ")
            asked = proxy.count("pg_xact_status")
            eventually(lambda: proxy.count("pg_xact_status") > asked + 5 or claiming.done())
            assert not claiming.done()
        claiming.result(timeout=10).finish()
        assert retrievals == [1]


def count(sql: psycopg.Connection[Any]) -> int:
    (waiting,) = sql.execute(WAITING).fetchone() or (0,)
    return int(waiting)


@contextlib.contextmanager
def frozen(sql: psycopg.Connection[Any]) -> Iterator[None]:
    """Every COMMIT that wrote something waits until the end of the block."""

    def switch(names: str) -> None:
        sql.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        sql.execute("SELECT pg_reload_conf()")
        eventually(lambda: sql.execute("SHOW synchronous_standby_names").fetchone() == (names,))

    switch("nobody")
    try:
        yield
    finally:
        switch("")
        eventually(lambda: count(sql) == 0)
