"""Row 14: COMMIT took effect and its answer was lost.

Promised: `work()` returns the work, and an end returns; a plain transaction raises `AmbiguousCommitError`, which
resolves to committed.

What cannot be taken from the answer is asked of the server, by the transaction's id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.proxy import Proxy
from tests.proxy.rules import Cut

PROCESS = "Doubtful"


def every_machine(q: bmdb.Queries) -> Any:
    return q.fetch("SELECT machine_id FROM machines")


@pytest.fixture
def holder(proxied: bmdb.Connection) -> bmdb.Session:
    """A session that stays out of the way: no beat within a test."""
    return proxied.start_session(interval=120)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_work_returns_the_work_that_it_leased(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: Callable[[int], list[UUID]],
    how: Cut,
) -> None:
    (machine,) = machines(1)
    runs: list[int] = []

    def retrieve(q: bmdb.Queries) -> Any:
        runs.append(1)
        return every_machine(q)

    with proxy.cutting_after_commit(how=how) as cut:
        work = holder.work(PROCESS, retrieve)
    cut.wait()
    assert runs == [1], "a claim that is committed must not be tried again"
    assert work.machine == machine
    assert work.state == "active"
    held = sql.execute("SELECT machine_id, session_id, token FROM work").fetchall()
    assert held == [(machine, holder.uuid, work.token)]
    assert [event.event for event in proxied.history_of(machine)] == ["Started"]
    work.finish()


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_an_end_returns_and_is_done_once(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
    end: str,
) -> None:
    (machine,) = machines(1)
    work = holder.work(PROCESS, every_machine)
    runs: list[int] = []

    def commit(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('finished')"))

    ends: dict[str, Callable[[], None]] = {
        "finish": lambda: work.finish(commit),
        "fail": lambda: work.fail("no answer", bmdb.Backoff(60.0), commit=lambda _: None),
        "cancel": lambda: work.cancel(lambda _: None),
    }
    with proxy.cutting_after_commit() as cut:
        ends[end]()
    cut.wait()
    named = {"finish": "Finished", "fail": "Failed", "cancel": "Canceled"}[end]
    assert work.state == named.lower()
    assert [event.event for event in proxied.history_of(machine)] == ["Started", named]
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert runs == [1] * (end == "finish")
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (len(runs),)
    with pytest.raises(bmdb.WorkStateError):
        work.finish()


def test_a_plain_transaction_is_ambiguous_and_resolves_to_committed(
    proxy: Proxy,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
) -> None:
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('written')"))

    with proxy.cutting_after_commit() as cut, pytest.raises(bmdb.AmbiguousCommitError) as caught:
        holder.transact(write)
    cut.wait()
    assert runs == [1], "what may be committed must not be run again"
    assert caught.value.resolve(timeout=5) is True
    assert caught.value.resolve(timeout=5) is True
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
    # The connection is not used again, the session is.
    assert holder.transact(lambda q: q.fetch_value("SELECT count(*) FROM writes")) == 1


def test_an_answer_is_not_made_up_when_the_server_cannot_be_reached(
    proxy: Proxy, holder: bmdb.Session, writes: str
) -> None:
    with proxy.cutting_after_commit(), pytest.raises(bmdb.AmbiguousCommitError) as caught:
        holder.transact(lambda q: q.execute("INSERT INTO writes VALUES ('written')"))
    with proxy.refusing(), pytest.raises(TimeoutError):
        caught.value.resolve(timeout=0.3)
    assert caught.value.resolve(timeout=5) is True


def test_a_session_is_started_and_closed_all_the_same(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    """Neither is worth a doubt: a row too many expires, and a row that is gone is gone."""
    with proxy.cutting_after_commit() as cut:
        session = proxied.start_session(interval=120)
    cut.wait()
    assert session.transact(lambda q: q.session(session.uuid)) is not None
    with proxy.cutting_after_commit() as cut:
        session.close()
    cut.wait()
    assert sql.execute("SELECT count(*) FROM sessions WHERE session_id = %s", [session.uuid]).fetchone() == (0,)
