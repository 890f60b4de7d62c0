"""How often a loop looks, and what makes it look sooner."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg

import bmdb
from tests.conftest import MakeMachines
from tests.loops.conftest import PROCESS, MakeLoop, Start, agent_started, waiting
from tests.loops.test_outcomes import Events
from tests.processes import eventually


def test_retrievals_keep_the_pace_that_all_instances_share(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(60)
    looks: list[float] = []

    def counted(q: Any) -> Any:
        looks.append(time.monotonic())
        return waiting(q)

    start(make_loop(agent_started, retrieve=counted, parallelism=4, rate=0.1, burst=3))
    eventually(lambda: len(events()) >= 15)
    # A claim may run its retrieval again, after a conflict with another instance's.
    in_a_second = sum(1 for look in looks if look < looks[0] + 1.0)
    assert 3 <= in_a_second <= 3 + 10 + 5


def test_an_idle_loop_looks_once_a_pause_however_many_instances_it_has(make_loop: MakeLoop, start: Start) -> None:
    looks: list[float] = []

    def counted(q: Any) -> list[Any]:
        looks.append(time.monotonic())
        return []

    start(make_loop(agent_started, retrieve=counted, parallelism=8, max_idle=0.4), wakeup=False)
    eventually(lambda: len(looks) >= 14)
    # The first look is everybody's, and each look in vain may collect and look again.
    late = [look for look in looks if look > looks[0] + 0.5]
    assert late[-1] - late[0] >= 0.3 * 0.9 * (len(late) // 2 - 1)


def test_a_hint_ends_the_pause(
    start: Start, provided: MakeMachines, session: bmdb.Session, events: Events, sql: psycopg.Connection[Any]
) -> None:
    taken: list[float] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0)
    async def take(work: bmdb.AsyncWork) -> Any:
        taken.append(time.monotonic())
        return agent_started(work)

    runner = start(take)
    eventually(lambda: runner._crews and runner._crews[0].idle.vain >= 5 and runner.listening)
    provided(1)
    at = time.monotonic()
    session.transact(lambda q: q.notify(PROCESS))
    eventually(lambda: events() == [("Finished", None)])
    # Without the hint it would be three seconds; it takes a few hundredths of one.
    assert taken[0] - at < 1.0


def test_a_hint_amid_a_look_that_was_too_early_for_it_is_not_lost(
    start: Start, provided: MakeMachines, session: bmdb.Session, events: Events
) -> None:
    """The look has its snapshot, then the machine comes with its hint, then the look ends in vain."""
    too_early, hinted = threading.Event(), threading.Event()
    taken: list[float] = []
    looks = 0

    def slow(q: Any) -> Any:
        found = list(waiting(q))
        if looks != 4:
            return found
        too_early.set()
        hinted.wait(20)
        # The look may retrieve a second time, after it has collected: that is to be too early, too.
        return []

    @bmdb.loop(PROCESS, retrieve=slow, rate=0.0, max_idle=60.0)
    def take(work: bmdb.Work) -> Any:
        taken.append(time.monotonic())
        return agent_started(work)

    runner = start(take)
    eventually(lambda: runner._crews)
    idle = runner._crews[0].idle
    turn = idle.turn

    def counted() -> float:
        nonlocal looks
        wait = turn()
        looks += wait == 0.0
        return wait

    idle.turn = counted  # type: ignore[method-assign]
    assert too_early.wait(20)
    provided(1)
    before = runner._crews[0].bell.rings
    session.transact(lambda q: q.notify(PROCESS))
    eventually(lambda: runner._crews[0].bell.rings > before)
    at = time.monotonic()
    hinted.set()
    eventually(lambda: events() == [("Finished", None)])
    # Lost, it would be 0.375 s at least: pauses begin anew.
    assert taken[0] - at < 0.25


def test_what_one_instance_finds_makes_the_others_look(
    start: Start, provided: MakeMachines, session: bmdb.Session, has_leases: Any
) -> None:
    release = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0, parallelism=3)
    def hold(work: bmdb.Work) -> Any:
        release.wait(20)
        return agent_started(work)

    runner = start(hold)
    eventually(lambda: runner._crews and runner._crews[0].idle.vain >= 5 and runner.listening)
    provided(3)
    at = time.monotonic()
    session.transact(lambda q: q.notify(PROCESS))
    try:
        assert has_leases(3)
        # One is woken by the hint; the others would sleep for three seconds or more.
        assert time.monotonic() - at < 1.5
    finally:
        release.set()


def test_a_hint_for_an_excluded_process_ends_the_pause_too(start: Start, session: bmdb.Session) -> None:
    looks: list[float] = []

    def counted(q: Any) -> list[Any]:
        looks.append(time.monotonic())
        return []

    @bmdb.loop(bmdb.Process("UnitTest1", excludes=("UnitTest2",)), retrieve=counted, rate=0.0, max_idle=60.0)
    def idle(work: bmdb.Work) -> None: ...

    runner = start(idle)
    eventually(lambda: runner._crews and runner._crews[0].idle.vain >= 5 and runner.listening)
    at = time.monotonic()
    session.transact(lambda q: q.notify("Unrelated"))
    session.transact(lambda q: q.notify("UnitTest2"))
    eventually(lambda: looks[-1] > at)
    assert looks[-1] - at < 1.0


def test_without_hints_the_loop_looks_by_itself(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events, sql: psycopg.Connection[Any]
) -> None:
    runner = start(make_loop(agent_started, max_idle=0.3), wakeup=False)
    eventually(lambda: runner._crews and runner._crews[0].idle.vain >= 2)
    assert not runner.listening
    assert sql.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").fetchone() == (0,)
    provided(1)
    eventually(lambda: events() == [("Finished", None)])


def test_a_killed_listener_is_made_up_for_by_looking_and_comes_back(
    start: Start, provided: MakeMachines, events: Events, sql: psycopg.Connection[Any]
) -> None:
    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=0.3)
    def take(work: bmdb.Work) -> Any:
        return agent_started(work)

    runner = start(take)
    eventually(lambda: runner.listening)
    ending = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    assert sql.execute(ending).fetchone() == (1,)
    eventually(lambda: not runner.listening)
    provided(2)
    eventually(lambda: events() == [("Finished", None)] * 2)
    eventually(lambda: runner.listening)


def test_what_this_process_collects_makes_its_loops_look(
    start: Start, provided: MakeMachines, connection: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    """A session expires that holds the only machine; nobody sends a hint, and the next look would be a minute away."""
    provided(1)
    taken = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=60.0, interval=1.0)
    def take(work: bmdb.Work) -> Any:
        taken.set()
        return agent_started(work)

    holder = connection.start_session(interval=60.0)
    holder.work(PROCESS, waiting)
    runner = start(take, wakeup=False)
    # The next look is then at least 6 s away.
    eventually(lambda: runner._crews and runner._crews[0].idle.vain >= 6)
    sql.execute("UPDATE sessions SET session_deadline = now() WHERE session_id = %s", [holder.uuid])
    assert taken.wait(5.0)
