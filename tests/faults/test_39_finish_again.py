"""Row 39: an end fails, and is called again.

Promised: the second may succeed, unless the lease was lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.proxy import Proxy

PROCESS = "UnitTest1"


@pytest.fixture
def held(proxied: bmdb.Connection, machines: MakeMachines) -> Iterator[bmdb.Work]:
    (machine,) = machines(1)
    with proxied.start_session(interval=10.0) as session:
        yield session.work(PROCESS, lambda _: [machine])


def events(sql: psycopg.Connection[Any], machine: UUID) -> list[str]:
    statement = "SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp"
    return [event for (event,) in sql.execute(statement, [machine])]


def record(q: bmdb.Queries) -> None:
    q.execute("INSERT INTO writes VALUES ('finished')")


ENDS: dict[str, tuple[Callable[[bmdb.Work], None], str]] = {
    "finish": (lambda work: work.finish(), "Finished"),
    "finish with a callback": (lambda work: work.finish(record), "Finished"),
    "fail": (lambda work: work.fail("because", bmdb.Backoff(1)), "Failed"),
    "fail with a callback": (lambda work: work.fail("because", bmdb.Backoff(1), commit=record), "Failed"),
}


# Without a callback there is no COMMIT of its own: the statement ends by itself.
@pytest.mark.parametrize("name", [name for name in ENDS if "callback" in name])
@pytest.mark.parametrize("sqlstate", ["53100", "XX000", "57014"])
def test_after_an_error_of_the_servers_at_commit(
    held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any], writes: str, name: str, sqlstate: str
) -> None:
    end, event = ENDS[name]
    with proxy.injecting(sqlstate) as injected:
        with pytest.raises(bmdb.DatabaseError) as caught:
            end(held)
        assert injected.hits == 1
    assert caught.value.sqlstate == sqlstate
    assert held.state == "active" and not held.lost
    assert events(sql, held.machine) == ["Started"]
    assert sql.execute("SELECT token FROM work").fetchall() == [(held.token,)]
    end(held)
    assert held.state == event.lower()
    assert events(sql, held.machine) == ["Started", event]
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (int("callback" in name),)


@pytest.mark.parametrize("name", ENDS)
def test_after_an_error_in_the_statement_that_ends_it(
    held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any], writes: str, name: str
) -> None:
    end, event = ENDS[name]
    with proxy.injecting("42501", "DELETE FROM work") as injected:
        with pytest.raises(bmdb.DatabaseError) as caught:
            end(held)
        assert injected.hits == 1
    assert caught.value.sqlstate == "42501"
    assert held.state == "active"
    end(held)
    assert events(sql, held.machine) == ["Started", event]


@pytest.mark.parametrize("name", ENDS)
def test_after_no_connection_could_be_had(
    held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any], writes: str, name: str
) -> None:
    end, event = ENDS[name]
    with proxy.refusing():
        # All but the heartbeat's connection, so that trust lasts.
        for record in proxy.connections:
            if record.open and not any("UPDATE sessions" in text for text in record.executed):
                proxy.reset(connection=record.index)
        with pytest.raises(bmdb.ConnectionFailedError):
            end(held)
    assert held.state == "active"
    end(held)
    assert events(sql, held.machine) == ["Started", event]


def test_after_the_callback_raised(held: bmdb.Work, sql: psycopg.Connection[Any], writes: str) -> None:
    own = LookupError("the user's")

    def commit(q: bmdb.Queries) -> None:
        record(q)
        raise own

    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            held.finish(commit)
        assert caught.value is own
        assert held.state == "active"
    held.finish(record)
    assert events(sql, held.machine) == ["Started", "Finished"]
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)


def test_after_retries_were_exhausted(held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any]) -> None:
    with proxy.injecting("40001", times=3) as injected:
        with pytest.raises(bmdb.RetriesExhaustedError) as caught:
            held.finish(lambda _: None, max_retries=2)
        assert injected.hits == caught.value.attempts == 3
    assert held.state == "active"
    held.finish()
    assert events(sql, held.machine) == ["Started", "Finished"]


def test_another_end_may_follow_the_one_that_failed(
    held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any]
) -> None:
    with proxy.injecting("XX000"), pytest.raises(bmdb.DatabaseError):
        held.finish(lambda _: None)
    held.fail("could not be finished", bmdb.Backoff(1))
    assert held.state == "failed"
    assert events(sql, held.machine) == ["Started", "Failed"]


def test_not_once_it_has_succeeded(held: bmdb.Work, sql: psycopg.Connection[Any]) -> None:
    held.finish()
    for name in ENDS:
        with pytest.raises(bmdb.WorkStateError, match="finished"):
            ENDS[name][0](held)
    held.cancel()
    assert held.state == "finished"
    assert events(sql, held.machine) == ["Started", "Finished"]


def test_not_once_the_lease_is_lost(
    held: bmdb.Work, proxy: Proxy, sql: psycopg.Connection[Any], connection: bmdb.Connection, writes: str
) -> None:
    with proxy.injecting("XX000"), pytest.raises(bmdb.DatabaseError):
        held.finish(record)
    # Somebody else gets the machine in between, as after a collection.
    sql.execute("DELETE FROM work")
    with connection.start_session() as rival:
        other = rival.work(PROCESS, lambda _: [held.machine])
        assert other.token > held.token
        for _ in range(2):
            with pytest.raises(bmdb.LeaseLostError):
                held.finish(record)
            assert held.lost and held.state == "lost"
        assert sql.execute("SELECT token FROM work").fetchall() == [(other.token,)]
        other.finish()
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
