"""A runner that stops, as a program sees it: leases nothing more, waits for the grace, gives back what is left."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops.conftest import PROCESS, MakeLoop, Start, agent_started, waiting
from tests.loops.test_outcomes import Events
from tests.processes import eventually


def test_stopping_while_idle_takes_no_time(make_loop: MakeLoop, start: Start) -> None:
    runner = start(make_loop(agent_started, parallelism=4, max_idle=60.0), wakeup=False)
    eventually(lambda: runner.states() and runner.states()[0].session)
    before = time.monotonic()
    runner.stop()
    assert runner.wait(5.0)
    assert time.monotonic() - before < 2.0


def test_running_work_may_end_and_nothing_more_is_leased(
    start: Start, provided: MakeMachines, events: Events, has_leases: Any, sql: psycopg.Connection[Any]
) -> None:
    provided(3)
    release = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    def hold(work: bmdb.Work) -> Any:
        release.wait(20)
        return agent_started(work)

    runner = start(hold)
    has_leases(1)
    runner.stop()
    assert not runner.wait(0.3)
    release.set()
    assert runner.wait(10.0)
    assert events() == [("Finished", None)]
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)


def test_after_the_grace_a_plain_functions_lease_is_given_back_under_it(
    start: Start, provided: MakeMachines, events: Events, has_leases: Any, sql: psycopg.Connection[Any]
) -> None:
    provided(1)
    release, refused = threading.Event(), threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    def hold(work: bmdb.Work) -> None:
        release.wait(20)
        try:
            work.finish(agent_started(work))
        except bmdb.Error:
            refused.set()
            raise

    runner = start(hold, grace=0.2)
    has_leases(1)
    runner.stop()
    assert runner.wait(10.0), "a function that still runs must not keep the runner"
    assert events() == [("Canceled", None)]
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)
    release.set()
    assert refused.wait(10.0)
    assert sql.execute("SELECT count(*) FROM machine_agent_started").fetchone() == (0,)


def test_a_lease_is_given_back_even_under_a_transaction_of_its_session(
    start: Start, provided: MakeMachines, events: Events
) -> None:
    """The transaction keeps the session's row locked, so the session cannot be ended while it runs."""
    provided(1)
    inside, release = threading.Event(), threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    def hold(work: bmdb.Work) -> None:
        def wait(q: bmdb.Queries) -> None:
            inside.set()
            release.wait(20)

        work.session.transact(wait)

    runner = start(hold)
    try:
        assert inside.wait(10.0)
        runner.stop(now=True)
        eventually(lambda: events() == [("Canceled", None)], timeout=2.0)
    finally:
        release.set()
    assert runner.wait(20.0)


def test_after_the_grace_async_functions_are_cancelled(
    start: Start, provided: MakeMachines, events: Events, has_leases: Any, sql: psycopg.Connection[Any]
) -> None:
    provided(2)
    cancelled: list[str] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, parallelism=2)
    async def hold(work: bmdb.AsyncWork) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(work.state)
            raise

    runner = start(hold, grace=0.2)
    has_leases(2)
    runner.stop()
    assert runner.wait(10.0)
    assert cancelled == ["active", "active"]
    assert events() == [("Canceled", None)] * 2
    assert sql.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM sessions)").fetchone() == (0, 0)


def test_an_async_function_that_will_not_be_cancelled_loses_its_lease_all_the_same(
    start: Start, provided: MakeMachines, events: Events, has_leases: Any
) -> None:
    provided(1)

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    async def stubborn(work: bmdb.AsyncWork) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if work.state != "active":
                    raise

    runner = start(stubborn, grace=0.0)
    has_leases(1)
    runner.stop()
    assert runner.wait(10.0)
    assert events() == [("Canceled", None)]


def test_a_function_that_blocks_the_event_loop_loses_its_lease_all_the_same(
    start: Start, provided: MakeMachines, has_leases: Any, sql: psycopg.Connection[Any]
) -> None:
    provided(1)
    release = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    async def block(work: bmdb.AsyncWork) -> None:
        release.wait(20)

    runner = start(block, grace=0.0)
    has_leases(1)
    runner.stop(now=True)
    try:
        assert runner.wait(10.0)
        assert has_leases(0)
    finally:
        release.set()


def test_stopping_now_does_not_wait_for_the_grace(
    start: Start, provided: MakeMachines, events: Events, has_leases: Any
) -> None:
    provided(1)
    release = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    def hold(work: bmdb.Work) -> None:
        release.wait(20)

    runner = start(hold, grace=600.0)
    has_leases(1)
    runner.stop()
    assert not runner.wait(0.2)
    runner.stop(now=True)
    try:
        assert runner.wait(10.0)
        assert events() == [("Canceled", None)]
    finally:
        release.set()


def test_leaving_the_block_stops_the_runner(make_loop: MakeLoop, database: str, sql: psycopg.Connection[Any]) -> None:
    with bmdb.Runner(make_loop(agent_started), database) as runner:
        eventually(lambda: runner.states() and runner.states()[0].session)
        assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_a_database_without_a_schema_ends_the_runner(make_loop: MakeLoop, empty_database: str) -> None:
    runner = bmdb.Runner(make_loop(agent_started), empty_database).start()
    with pytest.raises(bmdb.MigrationError, match="no schema"):
        runner.wait(20.0)


def test_the_runner_migrates_when_asked_to(make_loop: MakeLoop, empty_database: str, start: Start) -> None:
    runner = start(make_loop(agent_started), conninfo=empty_database, migrate=True)
    eventually(lambda: runner.states() and runner.states()[0].session)


def test_a_bad_connection_string_ends_the_runner(make_loop: MakeLoop) -> None:
    runner = bmdb.Runner(make_loop(agent_started), "host=localhost nonsense=1").start()
    with pytest.raises(bmdb.ConfigError):
        runner.wait(20.0)
