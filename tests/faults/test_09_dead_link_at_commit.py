"""Row 9: a link dies at COMMIT while the heartbeat's own is well.

Promised: the wait ends, and what became of the transaction is found out.

Found by the chaos test: the session lives on, so nothing else would have ended the wait. A transaction that the server
never heard the end of would keep its locks, so it is ended too.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.proxy import Proxy

# The limit of one step of our own, then a second of grace for a COMMIT that is only late.
LIMIT = 10 + 1 + 2.5

OPEN = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'bmdb proxied' AND backend_xid IS NOT NULL
"""


@pytest.fixture
def holder(proxied: bmdb.Connection) -> bmdb.Session:
    """A session whose trust is no part of this."""
    return proxied.start_session(interval=120)


@pytest.mark.slow
@pytest.mark.one_twin
def test_a_commit_that_is_lost_on_the_way(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    writes: str,
) -> None:
    (machine,) = machines(1)
    work = holder.work("Doubtful", lambda _: [machine])
    insert = "INSERT INTO writes VALUES ('written')"
    with ThreadPoolExecutor(2) as threads, proxy.cutting_before_commit(how="silence", times=2) as cut:
        began = time.monotonic()
        finishing = threads.submit(work.finish, lambda q: q.execute(insert))
        writing = threads.submit(holder.transact, lambda q: q.execute(insert))
        with pytest.raises(bmdb.AmbiguousCommitError) as caught:
            writing.result(LIMIT + 10)
        assert time.monotonic() - began < LIMIT
        finishing.result(LIMIT + 10)
        assert time.monotonic() - began < LIMIT
        assert cut.hits == 2
    assert work.state == "finished"
    assert [event.event for event in proxied.history_of(machine)] == ["Started", "Finished"]
    assert caught.value.resolve(5) is False
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
    assert sql.execute(OPEN).fetchone() == (0,), "a transaction that nobody will end was left"


@pytest.mark.slow
def test_an_answer_that_never_comes(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    writes: str,
) -> None:
    (machine,) = machines(1)
    work = holder.work("Doubtful", lambda _: [machine])
    with proxy.cutting_after_commit(how="silence") as cut:
        began = time.monotonic()
        work.finish(lambda q: q.execute("INSERT INTO writes VALUES ('written')"))
        assert time.monotonic() - began < LIMIT
        assert cut.hits == 1
    assert [event.event for event in proxied.history_of(machine)] == ["Started", "Finished"]
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
