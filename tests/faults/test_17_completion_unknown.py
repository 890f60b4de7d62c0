"""Row 17: the server itself says that nobody knows how a commit ended (40003, as CockroachDB does).

Promised: as for a lost answer.

The last test runs on the stand-in for CockroachDB, whose commit is a RELEASE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.cockroachdb.stand_in import StandIn
from tests.database import Server
from tests.faults.conftest import Connect
from tests.proxy import Proxy

UNKNOWN = "40003"
PROCESS = "Doubtful"


@pytest.mark.parametrize("committed", [True, False])
def test_a_plain_transaction_is_ambiguous_and_resolves(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], writes: str, committed: bool
) -> None:
    session = proxied.start_session(interval=120)
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('x')"))

    with proxy.injecting(UNKNOWN, executed=committed) as told, pytest.raises(bmdb.AmbiguousCommitError) as caught:
        session.transact(write)
    assert told.hits == 1
    assert runs == [1]
    assert caught.value.resolve(timeout=5) is committed
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (int(committed),)


@pytest.mark.parametrize("committed", [True, False])
def test_work_and_finish_settle_it(
    proxy: Proxy,
    proxied: bmdb.Connection,
    writes: str,
    sql: psycopg.Connection[Any],
    machines: Callable[[int], list[UUID]],
    committed: bool,
) -> None:
    (machine,) = machines(1)
    session = proxied.start_session(interval=120)
    retrievals: list[int] = []
    commits: list[int] = []

    def retrieve(q: bmdb.Queries) -> Any:
        retrievals.append(1)
        return q.fetch("SELECT machine_id FROM machines")

    def commit(q: bmdb.Queries) -> None:
        commits.append(q.execute("INSERT INTO writes VALUES ('finished')"))

    with proxy.injecting(UNKNOWN, executed=committed):
        work = session.work(PROCESS, retrieve)
    with proxy.injecting(UNKNOWN, executed=committed):
        work.finish(commit)
    assert len(retrievals) == len(commits) == (1 if committed else 2)
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
    assert [event.event for event in proxied.history_of(machine)] == ["Started", "Finished"]


@pytest.mark.parametrize("sqlstate", [UNKNOWN, "XX000", "53100"])
def test_on_release_it_is_ambiguous_and_the_callback_is_not_run_again(
    server: Server, empty_database: str, sqlstate: str, connect: Connect
) -> None:
    """Whatever RELEASE fails with, a conflict excepted: an error says that nothing is committed only on PostgreSQL."""
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO machines DEFAULT VALUES"))

    with (
        Proxy(*server.address, interpreter=StandIn()) as proxy,
        connect(proxy.conninfo(empty_database), component="roach", migrate=True) as connection,
    ):
        session = connection.start_session(interval=120)
        session.transact(write)
        assert proxy.count("RELEASE SAVEPOINT cockroach_restart") >= 1
        runs.clear()
        with proxy.injecting(sqlstate, "RELEASE") as told, pytest.raises(bmdb.AmbiguousCommitError) as caught:
            session.transact(write)
        assert told.hits == 1
        assert runs == [1]
        # There are no transaction ids to ask by, and nothing is made up.
        with pytest.raises(TimeoutError):
            caught.value.resolve(timeout=0.5)
