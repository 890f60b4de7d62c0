# Generated from tests/behaviour/async_/test_mutual_exclusion.py by tools/generate_sync.py: do not edit.
"""One holder for each (machine, process), within a session and across sessions."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together
from tests.conftest import MakeMachines

import bmdb
from bmdb.model import ProcessName

PROCESS = "UnitTest1"
OTHER_PROCESS = "UnitTest2"
Sql = psycopg.Connection[Any]


def claim(session: bmdb.Session, machine: UUID, process: str = PROCESS) -> bmdb.Work:
    return session.work(process, lambda q: [machine])


def leases(sql: Sql) -> set[tuple[UUID, str, UUID]]:
    return set(sql.execute("SELECT machine_id, process, session_id FROM work").fetchall())


def test_a_session_excludes_itself(session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
    (machine,) = machines(1)
    work = claim(session, machine)
    with pytest.raises(bmdb.WorkConflictError, match=rf"all 1 machines offered.*'{PROCESS}'"):
        claim(session, machine)
    assert leases(sql) == {(machine, PROCESS, session.uuid)}
    assert work.state == "active"
    work.finish()


def test_a_conflict_names_the_process_as_the_database_does(session: bmdb.Session, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    claim(session, machine, ProcessName.UNIT_TEST_1)
    with pytest.raises(bmdb.WorkConflictError, match=f"under process '{PROCESS}'"):
        claim(session, machine, ProcessName.UNIT_TEST_1)


def test_sessions_exclude_one_another(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    with connection.start_session() as rival:
        work = claim(session, machine)
        with pytest.raises(bmdb.WorkConflictError):
            claim(rival, machine)
        assert leases(sql) == {(machine, PROCESS, session.uuid)}
        work.finish()
        with claim(rival, machine):
            assert leases(sql) == {(machine, PROCESS, rival.uuid)}


def test_connections_exclude_one_another(
    database: str, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    claim(session, machine)
    with (
        bmdb.connect(database, component="rival") as connection,
        connection.start_session() as rival,
    ):
        with pytest.raises(bmdb.WorkConflictError):
            claim(rival, machine)
        assert leases(sql) == {(machine, PROCESS, session.uuid)}


def test_another_process_on_the_machine_is_unaffected(
    connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    claim(session, machine)
    with connection.start_session() as rival:
        claim(session, machine, OTHER_PROCESS)
        claim(rival, machine, "UnitTest3")
        assert leases(sql) == {
            (machine, PROCESS, session.uuid),
            (machine, OTHER_PROCESS, session.uuid),
            (machine, "UnitTest3", rival.uuid),
        }


def test_another_machine_is_unaffected(session: bmdb.Session, machines: MakeMachines) -> None:
    first, second = machines(2)
    assert claim(session, first).machine == first
    assert claim(session, second).machine == second


@pytest.mark.parametrize("ending", ["finish", "fail", "cancel"])
def test_every_ending_frees_the_machine(
    ending: str, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    work = claim(session, machine)
    match ending:
        case "fail":
            work.fail("no answer", bmdb.Backoff())
        case _:
            getattr(work, ending)()
    assert leases(sql) == set()
    with connection.start_session() as rival, claim(rival, machine) as next_work:
        assert next_work.token > work.token


def test_users_of_one_session_share_the_machines_out(session: bmdb.Session, machines: MakeMachines) -> None:
    rack = machines(12)
    start = threading.Barrier(4)
    taken: list[UUID] = []

    def drain() -> None:
        start.wait()
        with contextlib.suppress(bmdb.WorkConflictError):
            while True:
                taken.append(session.work(PROCESS, lambda q: rack).machine)

    together(*[drain] * 4)
    assert Counter(taken) == Counter(rack)
