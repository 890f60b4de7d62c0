"""Row 15: COMMIT never arrived.

Promised: claims and ends run again; a plain transaction raises `AmbiguousCommitError`, which resolves to aborted.
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


@pytest.fixture
def holder(proxied: bmdb.Connection) -> bmdb.Session:
    """A session that stays out of the way: no beat within a test."""
    return proxied.start_session(interval=120)


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("times", [1, 3])
def test_work_is_leased_by_another_run(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: Callable[[int], list[UUID]],
    how: Cut,
    times: int,
) -> None:
    (machine,) = machines(1)
    runs: list[int] = []

    def retrieve(q: bmdb.Queries) -> Any:
        runs.append(1)
        return q.fetch("SELECT machine_id FROM machines")

    with proxy.cutting_before_commit(how=how, times=times) as cut:
        work = holder.work(PROCESS, retrieve)
    cut.wait(hits=times)
    assert len(runs) == times + 1
    assert work.token == 1, "the runs before left nothing"
    assert sql.execute("SELECT machine_id, session_id FROM work").fetchall() == [(machine, holder.uuid)]
    assert [event.event for event in proxied.history_of(machine)] == ["Started"]
    work.finish()


def test_finish_runs_its_callback_again_and_writes_once(
    proxy: Proxy,
    proxied: bmdb.Connection,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    writes: str,
    machines: Callable[[int], list[UUID]],
) -> None:
    (machine,) = machines(1)
    work = holder.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
    runs: list[int] = []

    def commit(q: bmdb.Queries) -> None:
        runs.append(1)
        q.execute("INSERT INTO writes VALUES ($1)", f"run {len(runs)}")

    with proxy.cutting_before_commit() as cut:
        work.finish(commit)
    cut.wait()
    assert work.state == "finished"
    assert sql.execute("SELECT what FROM writes").fetchall() == [("run 2",)]
    assert [event.event for event in proxied.history_of(machine)] == ["Started", "Finished"]


def test_a_plain_transaction_is_ambiguous_and_resolves_to_aborted(
    proxy: Proxy, holder: bmdb.Session, sql: psycopg.Connection[Any], writes: str
) -> None:
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('lost')"))

    with proxy.cutting_before_commit() as cut, pytest.raises(bmdb.AmbiguousCommitError) as caught:
        holder.transact(write)
    cut.wait()
    assert runs == [1]
    assert caught.value.resolve(timeout=5) is False
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (0,)
    assert holder.transact(write) is None


def test_what_is_reported_is_what_happened(
    proxy: Proxy, holder: bmdb.Session, sql: psycopg.Connection[Any], writes: str
) -> None:
    """A mixed run: each COMMIT passes, or is lost on its way there or back; then each report is held to the table."""
    reported: dict[str, bool | None] = {}
    for number in range(24):
        what = f"write {number}"

        def write(q: bmdb.Queries, what: str = what) -> None:
            q.execute("INSERT INTO writes VALUES ($1)", what)

        def attempt(what: str = what, write: Callable[[bmdb.Queries], None] = write) -> None:
            try:
                holder.transact(write)
            except bmdb.AmbiguousCommitError as error:
                reported[what] = error.resolve(timeout=5)
            else:
                reported[what] = True

        match number % 3:
            case 0:
                attempt()
            case 1:
                with proxy.cutting_after_commit():
                    attempt()
            case _:
                with proxy.cutting_before_commit():
                    attempt()
    there = {what for (what,) in sql.execute("SELECT what FROM writes")}
    assert there == {what for what, committed in reported.items() if committed}
    assert len(there) == 16
