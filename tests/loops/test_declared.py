"""Loops without a callback: the core claims what the Process declares, and the function returns changes of tags."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops.conftest import Start
from tests.processes import eventually

Events = Callable[[], list[tuple[str, str | None]]]
UNREPORTED = bmdb.eligible(lacking=("hardware_report",))
DECLARED = bmdb.Process("UnitTest1", backoff=bmdb.Backoff(300), eligible=UNREPORTED)
REPORTED = bmdb.set_tag("hardware_report", hardware_report_raw=b"x")


def plain(work: bmdb.Work) -> bmdb.Change:
    return REPORTED


async def task(work: bmdb.AsyncWork) -> bmdb.Change:
    return REPORTED


@pytest.mark.parametrize("fn", [plain, task])
@pytest.mark.parametrize("by", ["process", "loop"])
def test_instances_that_look_at_the_same_time_share_claims(
    fn: Any, by: str, start: Start, machines: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    made = machines(200)
    sql.execute("CREATE TABLE claims (claim text)")
    sql.execute(
        "CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO claims VALUES (left(NEW.lease_id::text, 32)); RETURN NEW; END $$"
    )
    sql.execute("CREATE TRIGGER note_claim AFTER INSERT ON work FOR EACH ROW EXECUTE FUNCTION note_claim()")
    make = (
        bmdb.loop(DECLARED, parallelism=20)
        if by == "process"
        else bmdb.loop("UnitTest1", retrieve=UNREPORTED, parallelism=20)
    )
    start(make(fn))
    eventually(lambda: len(events()) == 200)
    assert set(events()) == {("Finished", None)}
    reported = {machine for (machine,) in sql.execute("SELECT machine_id FROM machine_hardware_report")}
    assert reported == set(made)
    claims = sql.execute("SELECT count(DISTINCT claim), count(*) FROM claims").fetchone()
    assert claims is not None and claims[1] == 200
    assert claims[0] < 150, "each instance claimed alone"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_changes_and_a_callback_in_a_tuple_land_together(
    asynchronous: bool, start: Start, machines: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    machines(3)
    sql.execute(
        "INSERT INTO machine_provided (machine_id, provider, provider_id)"
        " SELECT machine_id, 'a', machine_id FROM machines"
    )

    def sync(work: bmdb.Work) -> Any:
        return (
            REPORTED,
            bmdb.clear_tag("provided"),
            lambda q: q.machine_set_agent_heartbeat(work.machine, q.fetch_value("SELECT now()")),
        )

    async def twin(work: bmdb.AsyncWork) -> Any:
        async def commit(q: bmdb.AsyncQueries) -> None:
            await q.machine_set_agent_heartbeat(work.machine, await q.fetch_value("SELECT now()"))

        return commit, REPORTED, bmdb.clear_tag("provided")

    start(bmdb.loop(DECLARED)(twin if asynchronous else sync))
    eventually(lambda: len(events()) == 3)
    assert set(events()) == {("Finished", None)}
    for tag, count in (("hardware_report", 3), ("provided", 0), ("agent_heartbeat", 3)):
        assert sql.execute(f"SELECT count(*) FROM machine_{tag}").fetchone() == (count,)  # type: ignore[arg-type]


def test_an_empty_tuple_finishes(
    start: Start, machines: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    machines(1)
    seen: list[int] = []

    def once(work: bmdb.Work) -> Any:
        # What keeps the machine from being leased again is written by hand.
        seen.append(1)
        sql.execute(
            "INSERT INTO machine_hardware_report (machine_id, hardware_report_raw) VALUES (%s, '')", [work.machine]
        )
        return ()

    start(bmdb.loop(DECLARED)(once))
    eventually(lambda: events() == [("Finished", None)])
    assert seen == [1]


@pytest.mark.parametrize("answer", ["done", 7, (REPORTED, "done"), [REPORTED]])
def test_anything_else_fails_the_work(
    answer: Any, start: Start, machines: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    machines(1)
    start(bmdb.loop(DECLARED)(lambda work: answer))  # type: ignore[arg-type]
    eventually(lambda: len(events()) == 1)
    ((event, cause),) = events()
    assert event == "Failed" and cause is not None and cause.startswith("TypeError: the function must return")
    assert sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone() == (0,)


def test_a_change_that_cannot_be_made_fails_the_work(start: Start, machines: MakeMachines, events: Events) -> None:
    machines(1)
    start(bmdb.loop(DECLARED)(lambda work: bmdb.set_tag("hardware_report", no_such_column=1)))
    eventually(lambda: len(events()) == 1)
    ((event, cause),) = events()
    assert event == "Failed" and "no_such_column" in str(cause)


def test_a_machine_that_becomes_eligible_is_taken_at_once(
    start: Start, machines: MakeMachines, sql: psycopg.Connection[Any], events: Events
) -> None:
    """The triggers' hint spares the loop the rest of its pause."""
    (machine,) = machines(1)
    sql.execute("INSERT INTO machine_hardware_report (machine_id, hardware_report_raw) VALUES (%s, '')", [machine])
    runner = start(bmdb.loop(DECLARED, max_idle=60.0)(plain))
    eventually(lambda: runner.states() and runner.states()[0].session)
    # By now it has looked in vain, and would wait for a minute.
    time.sleep(1.0)
    sql.execute("DELETE FROM machine_hardware_report")
    eventually(lambda: events() == [("Finished", None)], timeout=5)
