"""Sessions that are lost, and a database that is away: the loop logs it, starts anew and goes on."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.database import EmbeddedServer
from tests.loops.conftest import PROCESS, MakeLoop, Start, agent_started, waiting
from tests.loops.test_outcomes import Events
from tests.processes import eventually


def session_of(runner: bmdb.Runner) -> str | None:
    """The session that the runner's loop has."""
    states = runner.states()
    return states[0].session if states else None


def test_a_lost_session_is_followed_by_another_about_a_second_later(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    runner = start(make_loop(agent_started, interval=2.0, max_idle=0.2))
    eventually(lambda: session_of(runner))
    first = session_of(runner)
    sql.execute("DELETE FROM sessions")
    lost = time.monotonic()
    eventually(lambda: session_of(runner) not in (None, first))
    # The heartbeat finds out within half of the interval.
    assert 0.5 <= time.monotonic() - lost < 5.0
    provided(3)
    eventually(lambda: events() == [("Finished", None)] * 3)


def test_a_lease_lost_under_the_function_is_logged_and_others_are_worked_on(
    make_loop: MakeLoop,
    start: Start,
    provided: MakeMachines,
    sql: psycopg.Connection[Any],
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machines = provided(2)
    stolen = threading.Event()

    def steal(work: Any) -> Any:
        if not stolen.is_set():
            stolen.set()
            with psycopg.connect(sql.info.dsn, autocommit=True) as thief:
                thief.execute("DELETE FROM work WHERE machine_id = %s", [work.machine])
                thief.execute("DELETE FROM machine_provided WHERE machine_id = %s", [work.machine])
        return agent_started(work)

    runner = start(make_loop(steal))
    eventually(lambda: events() == [("Finished", None)])
    assert len(machines) == 2
    eventually(lambda: runner.states()[0].ended == {"lost": 1, "finished": 1})
    assert [record.levelname for record in caplog.records if "lost machine" in record.message] == ["WARNING"]


def test_a_session_lost_under_a_plain_function_refuses_its_finish(
    start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events, has_leases: Any
) -> None:
    (machine,) = provided(1)
    seen: list[bool] = []
    runs: list[int] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, interval=2.0, max_idle=0.2)
    def hold(work: bmdb.Work) -> Any:
        runs.append(work.token)
        if len(runs) == 1:
            seen.append(work.session.wait_expired(10.0))
        return agent_started(work)

    runner = start(hold)
    has_leases(1)
    sql.execute("DELETE FROM sessions")
    eventually(lambda: events() == [("Finished", None)])
    assert seen == [True] and runs == [1, 2], "the first holder was told, and the next one has a higher token"
    eventually(lambda: runner.states()[0].ended == {"lost": 1, "finished": 1})
    started = sql.execute("SELECT machine_id FROM machine_agent_started").fetchall()
    assert started == [(machine,)]


def test_a_task_held_longer_than_max_hold_is_cancelled_and_a_thread_is_told(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(1)
    told: list[str] = []

    def hold(work: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            eventually(lambda: work.lost)
            told.append("lost")
            work.check()

        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        return wait()

    runner = start(make_loop(hold, bmdb.Process(PROCESS, max_hold=0.5)))
    eventually(lambda: [event for event, _ in events()] == ["Failed"])
    assert "held longer than 0.5 s" in str(events()[0][1])
    eventually(lambda: told in (["lost"], ["cancelled"]))
    eventually(lambda: runner.states()[0].ended == {"lost": 1})


def test_a_lost_session_cancels_the_tasks_that_work_under_it(
    start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events, has_leases: Any
) -> None:
    provided(1)
    cancelled: list[bool] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, interval=2.0, max_idle=0.2)
    async def hold(work: bmdb.AsyncWork) -> Any:
        if not cancelled:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(work.lost)
                raise
        return agent_started(work)

    runner = start(hold)
    has_leases(1)
    sql.execute("DELETE FROM sessions")
    eventually(lambda: events() == [("Finished", None)])
    assert cancelled == [True]
    eventually(lambda: runner.states()[0].ended == {"lost": 1, "finished": 1})


def test_an_outage_of_the_database_is_waited_out(own_server: EmbeddedServer) -> None:
    name = own_server.create_database("outage")
    ended: list[str] = []

    @bmdb.loop("UnitTest1", retrieve=lambda q: q.machines(None, 10), rate=0.05, max_idle=0.5, interval=2.0)
    def plain(work: bmdb.Work) -> None:
        ended.append("plain")

    @bmdb.loop("UnitTest2", retrieve=lambda q: q.machines(None, 10), rate=0.05, max_idle=0.5, interval=2.0)
    async def task(work: bmdb.AsyncWork) -> None:
        ended.append("task")

    with bmdb.connect(name, component="test", migrate=True) as connection, connection.start_session() as session:
        session.transact(lambda q: q.new_machine())
    with bmdb.Runner([plain, task], name) as runner:
        eventually(lambda: {"plain", "task"} <= set(ended))
        own_server.stop("immediate")
        eventually(lambda: all(state.session is None for state in runner.states()))
        assert not runner.wait(1.0)
        ended.clear()
        own_server.start()
        eventually(lambda: {"plain", "task"} <= set(ended), timeout=60.0)
        eventually(lambda: runner.listening, timeout=30.0)


def test_work_that_ends_in_a_short_outage_is_recorded_after_it(own_server: EmbeddedServer) -> None:
    name = own_server.create_database("outage")
    down, up = threading.Event(), threading.Event()

    @bmdb.loop("UnitTest1", retrieve=lambda q: [] if up.is_set() else q.machines(None, 10), rate=0.0, interval=30.0)
    def plain(work: bmdb.Work) -> None:
        down.set()
        # The function ends while the database is down.
        stopped.wait(20)

    stopped = threading.Event()
    with bmdb.connect(name, component="test", migrate=True) as connection, connection.start_session() as session:
        session.transact(lambda q: q.new_machine())
    with bmdb.Runner([plain], name) as runner:
        assert down.wait(20)
        up.set()
        own_server.stop("fast")
        stopped.set()
        assert not runner.wait(1.0)
        own_server.start()
        eventually(lambda: runner.states()[0].ended == {"finished": 1})


def test_a_runner_stops_in_time_while_the_database_is_away(own_server: EmbeddedServer) -> None:
    name = own_server.create_database("outage")
    began, release = threading.Event(), threading.Event()

    @bmdb.loop("UnitTest1", retrieve=lambda q: q.machines(None, 10), interval=30.0)
    def plain(work: bmdb.Work) -> None:
        began.set()
        release.wait(60)

    @bmdb.loop("UnitTest2", retrieve=lambda q: [], interval=30.0)
    async def task(work: bmdb.AsyncWork) -> None: ...

    with bmdb.connect(name, component="test", migrate=True) as connection, connection.start_session() as session:
        session.transact(lambda q: q.new_machine())
    runner = bmdb.Runner([plain, task], name, grace=0.0).start()
    try:
        assert began.wait(20.0)
        own_server.stop("immediate")
        before = time.monotonic()
        runner.stop()
        assert runner.wait(30.0)
        assert time.monotonic() - before < 20.0
    finally:
        release.set()


def test_a_database_that_is_away_at_the_start_is_waited_for(own_server: EmbeddedServer) -> None:
    name = own_server.create_database("outage")
    with bmdb.connect(name, component="test", migrate=True):
        pass
    own_server.stop("fast")

    @bmdb.loop("UnitTest1", retrieve=lambda q: [])
    async def idle(work: bmdb.AsyncWork) -> None:
        await asyncio.sleep(0)

    runner = bmdb.Runner(idle, name).start()
    try:
        assert not runner.wait(0.5)
        own_server.start()
        eventually(lambda: session_of(runner))
    finally:
        runner.stop()
        assert runner.wait(20.0)
