"""Rows 14, 15: the COMMIT of a batch, of claims by eligibility or of ends without a callback, or the answer to it, is
lost.

Promised: what happened is found again, what never arrived is done again, nobody is told what did not happen, and no
lease is left that nobody holds.

A claim is found again by its id, an end by its event in history.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.concurrency import together
from tests.conftest import MakeMachines
from tests.processes import Spawn
from tests.proxy import Proxy
from tests.proxy.rules import Cut

PROCESS = "Doubtful"
UNREPORTED = bmdb.eligible(lacking=("hardware_report",))
REPORTED = bmdb.set_tag("hardware_report", hardware_report_raw=b"x")
ENDING = {"finish": "'Finished'", "fail": "'Failed'", "cancel": "'Canceled'"}


@pytest.fixture
def holder(proxied: bmdb.Connection) -> bmdb.Session:
    """A session that stays out of the way: no beat within a test, and what it asks for is registered already."""
    session = proxied.start_session(interval=120)
    with pytest.raises(bmdb.NothingToDo):
        session.work(PROCESS, UNREPORTED)
    return session


def held(sql: psycopg.Connection[Any]) -> set[tuple[Any, int]]:
    return set(sql.execute("SELECT machine_id, token FROM work").fetchall())


def events(sql: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(sql.execute("SELECT event, count(*) FROM work_history GROUP BY event").fetchall())


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_claim_returns_what_it_leased(
    arrives: bool,
    how: Cut,
    proxy: Proxy,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
) -> None:
    machines(5)
    cutting = proxy.cutting_after_commit(how=how) if arrives else proxy.cutting_before_commit(how=how)
    with cutting as cut:
        works = holder.work_many(PROCESS, 3, UNREPORTED)
    cut.wait()
    assert len(works) == 3
    assert held(sql) == {(work.machine, work.token) for work in works}
    # What is committed is not tried again; what was rolled back has left nothing.
    assert events(sql) == {"Started": 3} and {work.token for work in works} == {1}
    assert holder.finish_many([(work, REPORTED) for work in works]) == [None] * 3
    assert len(holder.work_many(PROCESS, 3, UNREPORTED)) == 2


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_an_end_returns_and_is_done_once(
    end: str,
    arrives: bool,
    how: Cut,
    proxy: Proxy,
    holder: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
) -> None:
    machines(1)
    work = holder.work(PROCESS, UNREPORTED)
    cut_at = proxy.cutting_after if arrives else proxy.cutting_before
    with cut_at(ENDING[end], how=how) as cut:
        if end == "finish":
            work.finish(REPORTED)
        elif end == "fail":
            work.fail("no answer", bmdb.Backoff(60))
        else:
            work.cancel()
    cut.wait()
    named = ENDING[end].strip("'")
    assert (work.state, events(sql), held(sql)) == (named.lower(), {"Started": 1, named: 1}, set())
    with pytest.raises(bmdb.WorkStateError):
        work.finish()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_group_is_told_the_truth_one_by_one(
    arrives: bool, proxy: Proxy, holder: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    machines(20)
    works = holder.work_many(PROCESS, 20, UNREPORTED)
    sql.execute("DELETE FROM work WHERE machine_id = %s", [works[3].machine])
    cut_at = proxy.cutting_after if arrives else proxy.cutting_before
    with cut_at("'Finished'") as cut:
        verdicts = holder.finish_many([(work, REPORTED) for work in works])
    cut.wait()
    assert [number for number, verdict in enumerate(verdicts) if verdict is not None] == [3]
    assert isinstance(verdicts[3], bmdb.LeaseLostError)
    assert events(sql) == {"Started": 20, "Finished": 19} and held(sql) == set()


def test_what_is_reported_is_what_happened(
    proxy: Proxy, holder: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    """A mixed run on eight threads: claims and ends pass, or are lost on their way there or back."""
    machines(160)
    done: list[Any] = []

    def cycle() -> None:
        for _ in range(20):
            work = holder.work(PROCESS, UNREPORTED)
            work.finish(REPORTED)
            done.append(work.machine)

    with contextlib.ExitStack() as rules:
        for skip in range(3, 30, 9):
            rules.enter_context(proxy.cutting_after_commit(skip=skip))
            rules.enter_context(proxy.cutting_before_commit(skip=skip + 4))
            rules.enter_context(proxy.cutting_after("'Finished'", skip=skip))
            rules.enter_context(proxy.cutting_before("'Finished'", skip=skip + 4))
        together(*[cycle] * 8)
    assert len(set(done)) == len(done) == 160
    assert events(sql) == {"Started": 160, "Finished": 160} and held(sql) == set()


def test_a_claim_that_is_not_answered_in_time_is_settled(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    """The answer is held back for longer than a claim waits: its backend is ended, and what it has leased is found."""
    machines(2)
    with (
        proxied.start_session(interval=6) as session,
        ThreadPoolExecutor(1) as threads,
        proxy.holding_after("COMMIT", executed="work_token") as commit,
    ):
        claiming = threads.submit(session.work, PROCESS, UNREPORTED)
        commit.wait()
        work = claiming.result(60)
        assert held(sql) == {(work.machine, work.token)}
        work.finish(REPORTED)


WORKER = """
    import sys
    import threading
    import bmdb

    connection = bmdb.connect(sys.argv[1], component="worker", pool_size=4)
    session = connection.start_session(interval=60.0)
    unreported = bmdb.eligible(lacking=("hardware_report",))
    reported = bmdb.set_tag("hardware_report", hardware_report_raw=b"x")
    outcomes = []

    def cycle(count):
        for _ in range(count):
            try:
                work = session.work("Doubtful", unreported)
            except bmdb.NothingToDo:
                outcomes.append("nothing")
                return
            try:
                work.finish(reported)
                outcomes.append(work.state)
            except Exception as error:
                outcomes.append(repr(error))

    others = [threading.Thread(target=cycle, args=[100]) for _ in range(4)]
    print("ready", flush=True)
    input()
    for other in others:
        other.start()
    interrupts = 0

    def lead():
        global interrupts
        while any(other.is_alive() for other in others):
            # The main thread alone hears signals: it leads batches of the others' calls, and is cut off amid them.
            current = None
            try:
                current = session.work("Doubtful", unreported)
                current.finish(reported)
                outcomes.append(current.state)
            except bmdb.NothingToDo:
                return
            except KeyboardInterrupt as error:
                interrupts += 1
                if current is not None:
                    # Without the attribute it was raised by Python itself, before or after the call.
                    committed = getattr(error, "committed", None)
                    if committed is not None and committed != (current.state == "finished"):
                        outcomes.append(f"misreported: {committed} {current.state}")

    for _ in range(100):
        try:
            lead()
            break
        except KeyboardInterrupt:
            interrupts += 1  # between two calls
    for other in others:
        other.join(30)
        if other.is_alive():
            outcomes.append("stuck")
    print("outcomes", interrupts, *sorted(set(outcomes)), flush=True)
    print("count", outcomes.count("finished"), flush=True)
    input()
    session.close()
    connection.close()
    print("done", flush=True)
"""


def test_an_interrupt_of_one_thread_leaves_the_others_their_outcomes(
    database: str, sql: psycopg.Connection[Any], machines: MakeMachines, spawn: Spawn
) -> None:
    """Ctrl-C, again and again, amid calls that the main thread makes for all: see row 34."""
    machines(600)
    process = spawn(WORKER, database)
    process.expect("ready")
    process.send()
    for _ in range(12):
        time.sleep(0.03)
        if events(sql).get("Finished", 0) > 450:
            break
        process.interrupt()
    _, interrupts, *outcomes = process.expect("outcomes", timeout=60).split()
    assert set(outcomes) <= {"finished", "nothing"}, outcomes
    assert int(interrupts) > 0
    counted = int(process.expect("count").split()[1])
    finished = events(sql)["Finished"]
    # An end that was interrupted may have landed without having been counted.
    assert counted <= finished <= counted + int(interrupts)
    assert sql.execute(
        "SELECT count(*), count(DISTINCT machine_id) FROM work_history WHERE event = 'Finished'"
    ).fetchone() == (
        finished,
        finished,
    )
    process.send()
    process.expect("done")
    assert process.wait() == 0
    assert held(sql) == set()


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_registration_that_is_lost_keeps_nobody_from_working(
    how: str, proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    machines(2)
    with proxied.start_session(interval=120) as session:
        cut_at = proxy.cutting_after_commit if how == "after" else proxy.cutting_before_commit
        with cut_at() as cut:
            session.work(PROCESS, UNREPORTED).finish(REPORTED)
        cut.wait()
        session.work(PROCESS, UNREPORTED).finish(REPORTED)
    assert [kept.process for kept in proxied.eligibilities()] == [PROCESS]
    assert events(sql) == {"Started": 2, "Finished": 2}
