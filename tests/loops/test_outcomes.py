"""What becomes of a machine: by what the function returned, raised, or did by itself. On threads and as tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops.conftest import PROCESS, MakeLoop, Start, agent_started
from tests.processes import eventually

Events = Callable[[], list[tuple[str, str | None]]]


def backoff_of(sql: psycopg.Connection[Any], machine: UUID) -> tuple[int, str]:
    """The period and the cause of the machine's backoff."""
    row = sql.execute("SELECT last_interval_seconds, cause FROM work_backoff WHERE machine_id = %s", [machine])
    found = row.fetchone()
    assert found is not None
    return found


def test_the_callback_returned_finishes_the_work(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    made = provided(20)
    start(make_loop(agent_started, parallelism=4))
    eventually(lambda: len(events()) == 20)
    assert {event for event, _ in events()} == {"Finished"}
    started = sql.execute("SELECT machine_id FROM machine_agent_started").fetchall()
    assert sorted(machine for (machine,) in started) == sorted(made)


def test_none_finishes_the_work_without_a_callback(
    make_loop: MakeLoop, start: Start, machines: MakeMachines, events: Events
) -> None:
    (machine,) = machines(1)
    done = threading.Event()

    def retrieve(q: Any) -> Any:
        return [] if done.is_set() else [machine]

    start(make_loop(lambda work: done.set(), process="UnitTest1", retrieve=retrieve))
    eventually(lambda: events() == [("Finished", None)])


def test_an_exception_fails_the_work_with_the_processes_backoff(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    (machine,) = provided(1)

    def fail(work: Any) -> None:
        raise LookupError("no answer from the BMC\0")

    start(make_loop(fail, bmdb.Process(PROCESS, backoff=bmdb.Backoff(300, 4 * 3600, 1.2))))
    eventually(lambda: events() == [("Failed", "LookupError: no answer from the BMC\\0")])
    assert backoff_of(sql, machine) == (300, "LookupError: no answer from the BMC\\0")


def test_the_function_may_replace_the_backoff_of_its_work(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    (machine,) = provided(1)
    seen: list[bmdb.Backoff | None] = []

    def fail(work: Any) -> None:
        seen.append(work.backoff)
        work.backoff = bmdb.Backoff(17)
        raise LookupError("this one answers slowly")

    process = bmdb.Process(PROCESS, backoff=bmdb.Backoff(300))
    start(make_loop(fail, process))
    eventually(lambda: len(events()) == 1)
    assert seen == [process.backoff]
    assert backoff_of(sql, machine) == (17, "LookupError: this one answers slowly")


def test_sys_exit_fails_the_work_and_ends_nothing(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(3)

    def leave(work: Any) -> None:
        raise SystemExit(3)

    start(make_loop(leave))
    eventually(lambda: events() == [("Failed", "SystemExit: 3")] * 3)


def test_retry_fails_the_work_for_exactly_that_long(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    machines = provided(2)
    wishes: dict[UUID, float | timedelta] = {machines[0]: 7, machines[1]: timedelta(minutes=2)}

    def retry(work: Any) -> None:
        raise bmdb.Retry("it boots", after=wishes[work.machine])

    start(make_loop(retry, bmdb.Process(PROCESS, backoff=bmdb.Backoff(300, 4 * 3600, 1.2))))
    eventually(lambda: len(events()) == 2)
    assert backoff_of(sql, machines[0]) == (7, "it boots")
    assert backoff_of(sql, machines[1]) == (120, "it boots")


def test_retry_without_a_time_waits_as_the_process_says(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    (machine,) = provided(1)

    def retry(work: Any) -> None:
        raise bmdb.Retry("it boots")

    start(make_loop(retry, bmdb.Process(PROCESS, backoff=bmdb.Backoff(300))))
    eventually(lambda: len(events()) == 1)
    assert backoff_of(sql, machine) == (300, "it boots")


@pytest.mark.parametrize("after", [-1.0, float("nan"), float("inf")])
def test_a_time_to_retry_after_must_make_sense(after: float) -> None:
    with pytest.raises(ValueError, match="after must be from 0 to"):
        bmdb.Retry(after=after)


def test_cancel_gives_the_machine_back_without_a_trace(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    provided(1)
    once = threading.Lock()

    def cancel_first(work: Any) -> Any:
        if once.acquire(blocking=False):
            raise bmdb.Cancel("not now")
        return agent_started(work)

    start(make_loop(cancel_first))
    eventually(lambda: events() == [("Canceled", None), ("Finished", None)])
    assert sql.execute("SELECT count(*) FROM work_backoff").fetchone() == (0,)


def test_an_exception_of_the_callback_fails_the_work(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    provided(1)

    def finish(work: Any) -> Any:
        def record(q: Any) -> None:
            raise KeyError("serial")

        return record

    start(make_loop(finish))
    eventually(lambda: events() == [("Failed", "KeyError: 'serial'")])


def test_what_is_no_callback_fails_the_work(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(1)
    start(make_loop(lambda work: True))
    eventually(lambda: len(events()) == 1)
    assert "or a tuple of these), or None, not bool" in str(events()[0][1])


def test_a_function_that_ended_the_work_is_left_its_way(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    (machine,) = provided(1)
    start(make_loop(lambda work: work.fail("by itself", bmdb.Backoff(11))))
    eventually(lambda: len(events()) == 1)
    assert backoff_of(sql, machine) == (11, "by itself")


def test_exceptions_in_retrieve_are_logged_and_looked_past(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    (machine,) = provided(1)
    looks: list[int] = []

    def retrieve(q: Any) -> Any:
        looks.append(1)
        if len(looks) < 3:
            raise [ZeroDivisionError("a mistake of the author's"), SystemExit("another one")][len(looks) - 1]
        return [machine] if len(looks) == 3 else []

    runner = start(make_loop(agent_started, retrieve=retrieve))
    eventually(lambda: events() == [("Finished", None)])
    told = [record for record in caplog.records if "could not look for work" in record.message]
    assert len(told) == 2 and all(record.exc_info for record in told)
    eventually(lambda: runner.states()[0].trouble is None)


def test_several_machines_are_worked_on_at_once_under_one_session(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, sql: psycopg.Connection[Any], has_leases: Any
) -> None:
    import asyncio

    provided(5)
    release = threading.Event()

    def hold(work: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            release.wait(20)
            return agent_started(work)

        async def wait() -> Any:
            while not release.is_set():
                await asyncio.sleep(0.01)
            return agent_started(work)

        return wait()

    runner = start(make_loop(hold, parallelism=3))
    try:
        has_leases(3)
        assert sql.execute("SELECT count(DISTINCT session_id) FROM work").fetchone() == (1,)
        assert runner.states()[0].running == 3
    finally:
        release.set()
    eventually(lambda: sql.execute("SELECT count(*) FROM machine_agent_started").fetchone() == (5,))
    eventually(lambda: runner.states()[0].ended == {"finished": 5})


def test_an_async_function_may_raise_a_cancellation_that_nobody_sent(
    start: Start, provided: MakeMachines, events: Events
) -> None:
    import asyncio

    from tests.loops.conftest import waiting

    provided(2)

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    async def give_up(work: bmdb.AsyncWork) -> None:
        raise asyncio.CancelledError("by a library")

    start(give_up)
    eventually(lambda: events() == [("Failed", "CancelledError: by a library")] * 2)
