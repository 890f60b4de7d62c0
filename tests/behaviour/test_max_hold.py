"""Work that is held for too long: lost for its holder first, then failed in the database by the core itself."""

from __future__ import annotations

import gc
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually
from tests.proxy import Proxy

import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]


def events(sql: Sql, machine: UUID) -> list[tuple[str, str | None]]:
    query = 'SELECT event, failed_cause FROM work_history WHERE machine_id = %s ORDER BY "timestamp"'
    return sql.execute(query, [machine]).fetchall()


def periods(sql: Sql) -> list[int | None]:
    return [period for (period,) in sql.execute("SELECT last_interval_seconds FROM work_backoff").fetchall()]


def has_failed(sql: Sql, machine: UUID, seconds: str = "0.3") -> bool:
    return events(sql, machine)[-1] == ("Failed", f"held longer than {seconds} s")


def test_it_is_lost_and_failed_with_its_backoff(
    session: bmdb.Session, machines: MakeMachines, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    (machine,) = machines(1)
    for period in (10, 20):
        work = session.work(PROCESS, lambda _: [machine], max_hold=0.3)
        work.backoff = bmdb.Backoff(10, 100, 2)
        work.check()
        eventually(lambda work=work: work.lost, 2, every=0.001)  # type: ignore[misc]
        with pytest.raises(bmdb.LeaseLostError, match=r"held longer than 0\.3 s"):
            work.check()
        with pytest.raises(bmdb.LeaseLostError, match=r"held longer than 0\.3 s"):
            work.finish()
        eventually(lambda: has_failed(sql, machine), 2)
        assert periods(sql) == [period]
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
        assert work.state == "lost"
    assert not session.expired
    assert [event for event, _ in events(sql, machine)] == ["Started", "Failed"] * 2
    told = [record for record in caplog.records if record.name == "bmdb.work" and record.levelname == "ERROR"]
    assert len(told) == 2 and "held longer than 0.3 s" in told[0].getMessage() and str(machine) in told[0].getMessage()


def test_it_counts_as_failed_and_no_longer_as_held(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine], max_hold=0.3)

    def value(name: str) -> Any:
        return sum(number for found, _, _, number in connection.metrics() if found == name)

    assert value("bmdb_leases_live") == 1
    eventually(lambda: has_failed(sql, machine), 2)
    eventually(lambda: value("bmdb_leases_live") == 0, 2)
    assert value("bmdb_work_finished") == 1
    work.cancel()
    assert value("bmdb_leases_live") == 0


def test_a_touch_starts_the_time_anew(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine], max_hold=timedelta(seconds=0.5))
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        work.touch()
        time.sleep(0.01)
    work.finish()
    assert [event for event, _ in events(sql, machine)] == ["Started", "Finished"]
    with pytest.raises(bmdb.WorkStateError):
        work.touch()
    work.check()


def test_a_touch_that_comes_too_late_changes_nothing(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine], max_hold=2)
    # As after a suspension, which no timer of ours has noticed yet.
    connection._core.skip_clock(2.0)
    with pytest.raises(bmdb.LeaseLostError):
        work.touch()
    assert work.lost
    eventually(lambda: has_failed(sql, machine, "2"), 3)


def test_the_process_says_how_long_and_what_follows(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    stuck, patient = machines(2)
    process = bmdb.Process(PROCESS, backoff=bmdb.Backoff(7), max_hold=0.3)
    work = session.work(process, lambda _: [stuck])
    assert work.backoff == bmdb.Backoff(7)
    other = session.work(process, lambda _: [patient], max_hold=60)
    eventually(lambda: has_failed(sql, stuck), 2)
    assert work.lost and not other.lost
    assert periods(sql) == [7]
    other.fail("no answer")
    assert periods(sql) == [7, 7]


def test_an_end_that_is_on_its_way_wins(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine], max_hold=0.3)
    work.finish(lambda q: q.fetch("SELECT pg_sleep(0.8)"))
    assert work.state == "finished"
    session.work("Other", lambda _: [machine], max_hold=0.1)
    eventually(lambda: has_failed(sql, machine, "0.1"), 2)
    assert [event for event, _ in events(sql, machine)] == ["Started", "Finished", "Started", "Failed"]


def test_an_end_that_comes_to_nothing_leaves_it_overdue(
    session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine], max_hold=0.3)

    def give_up(q: bmdb.Queries) -> None:
        q.fetch("SELECT pg_sleep(0.5)")
        raise LookupError

    with pytest.raises(LookupError):
        work.finish(give_up)
    with pytest.raises(bmdb.LeaseLostError):
        work.finish()
    eventually(lambda: has_failed(sql, machine), 2)


def test_work_that_nobody_remembers_is_failed_too(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    session.work(PROCESS, lambda _: [machine], max_hold=0.3)
    gc.collect()
    eventually(lambda: has_failed(sql, machine), 2)


def test_it_is_failed_although_connections_break(proxy: Proxy, database: str, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    with (
        bmdb.connect(proxy.conninfo(database), component="test") as connection,
        connection.start_session(interval=60) as session,
    ):
        work = session.work(PROCESS, lambda _: [machine], max_hold=0.3)
        with proxy.cutting_before("'Failed'", times=12) as cut:
            cut.wait(20, hits=1)
            assert work.lost
            eventually(lambda: has_failed(sql, machine), 20)
        assert cut.hits > 2
    assert [event for event, _ in events(sql, machine)] == ["Started", "Failed"]


WORKER = f"""
    import ctypes
    import sys
    import bmdb

    dsn, machine = sys.argv[1:]
    with bmdb.connect(dsn, component="greedy") as connection, connection.start_session(interval=5) as session:
        work = session.work("{PROCESS}", lambda _: [machine], max_hold=0.3)
        print("holding", flush=True)
        ctypes.PyDLL(None).usleep(3_000_000)
        print("let go", work.state, flush=True)
"""


def test_it_is_failed_while_python_is_stuck(database: str, machines: MakeMachines, sql: Sql, spawn: Spawn) -> None:
    (machine,) = machines(1)
    worker = spawn(WORKER, database, str(machine))
    worker.expect("holding")
    eventually(lambda: has_failed(sql, machine), 2.5)
    assert not any("let go" in line for line in worker.lines)
    assert worker.expect("let go") == "let go lost"


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), timedelta(0)])
def test_a_limit_that_makes_no_sense(session: bmdb.Session, given: Any) -> None:
    with pytest.raises(ValueError, match="max_hold"):
        session.work(PROCESS, lambda _: [], max_hold=given)


@pytest.mark.parametrize("given", ["5", True, object()])
def test_a_limit_of_the_wrong_type(session: bmdb.Session, given: Any) -> None:
    with pytest.raises(TypeError, match="max_hold"):
        session.work(PROCESS, lambda _: [], max_hold=given)


def test_a_backoff_of_the_wrong_type(session: bmdb.Session, machines: MakeMachines) -> None:
    offered = machines(1)
    with session.work(PROCESS, lambda _: offered) as work:
        assert work.backoff is None
        with pytest.raises(TypeError, match="backoff"):
            work.backoff = 5  # type: ignore[assignment]
