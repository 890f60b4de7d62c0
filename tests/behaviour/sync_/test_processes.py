# Generated from tests/behaviour/async_/test_processes.py by tools/generate_sync.py: do not edit.
"""Processes that exclude one another: declared by one worker, enforced by the database against every other."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.concurrency import together
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]

START = bmdb.Process("Start", excludes=("Recover",))
RECOVER = bmdb.Process("Recover")
RIVALS = [bmdb.Process("A", excludes=("B", "C")), bmdb.Process("B", excludes=("C",)), bmdb.Process("C")]


def claim(session: bmdb.Session, machine: UUID, process: str | bmdb.Process) -> bmdb.Work:
    return session.work(process, lambda q: [machine])


def leases(sql: Sql) -> list[tuple[UUID, str]]:
    return sql.execute("SELECT machine_id, process FROM work ORDER BY machine_id, process").fetchall()


def exclusions(sql: Sql) -> set[tuple[str, str]]:
    return set(sql.execute("SELECT process, excluded FROM process_exclusion").fetchall())


def settings(sql: Sql, process: str) -> tuple[Any, ...] | None:
    return sql.execute(
        "SELECT crash_backoff_initial, crash_backoff_maximum, crash_backoff_exponent, crash_backoff_jitter,"
        " quarantine_after FROM processes WHERE process = %s",
        [process],
    ).fetchone()


@pytest.fixture
def rival(database: str) -> Iterator[bmdb.Session]:
    """A session of another component, which knows nothing of what `session` declares."""
    with (
        bmdb.connect(database, component="rival") as connection,
        connection.start_session() as session,
    ):
        yield session


class TestExclusion:
    def test_whoever_declared_it_waits(
        self, session: bmdb.Session, rival: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        held = claim(rival, machine, "Recover")
        with pytest.raises(bmdb.WorkConflictError, match=r"under process 'Start' or one that excludes it"):
            claim(session, machine, START)
        assert leases(sql) == [(machine, "Recover")]
        held.finish()
        assert claim(session, machine, START).process == "Start"

    def test_whoever_never_heard_of_it_waits_too(
        self, session: bmdb.Session, rival: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        held = claim(session, machine, START)
        for process in ("Recover", RECOVER, bmdb.Process("Recover", excludes=("Other",))):
            with pytest.raises(bmdb.WorkConflictError):
                claim(rival, machine, process)
        assert leases(sql) == [(machine, "Start")]
        held.fail("no answer", bmdb.Backoff(60))
        claim(rival, machine, "Recover").finish()

    def test_other_machines_and_processes_are_not_concerned(
        self, session: bmdb.Session, rival: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        first, second = sorted(machines(2))
        claim(session, first, START)
        claim(rival, first, "Unrelated")
        assert rival.work("Recover", lambda q: [first, second]).machine == second
        assert leases(sql) == [(first, "Start"), (first, "Unrelated"), (second, "Recover")]

    def test_they_exclude_one_another_pair_by_pair(self, session: bmdb.Session, machines: MakeMachines) -> None:
        """A excludes B and C, but B and C get along."""
        (machine,) = machines(1)
        session.connection.register(bmdb.Process("A", excludes=("B", "C")))
        b = claim(session, machine, "B")
        c = claim(session, machine, "C")
        for work in (b, c):
            with pytest.raises(bmdb.WorkConflictError):
                claim(session, machine, "A")
            work.cancel()
        claim(session, machine, "A")

    def test_tokens_rise_only_with_leases_of_their_own_process(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        for expected in (1, 2):
            for process in (START, "Recover"):
                work = claim(session, machine, process)
                assert work.token == expected
                work.finish()

    def test_what_was_held_before_it_was_declared_may_be_ended(
        self, session: bmdb.Session, rival: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        start, recover = claim(session, machine, "Start"), claim(rival, machine, "Recover")
        session.connection.register(START)
        start.finish()
        with pytest.raises(bmdb.WorkConflictError):
            claim(session, machine, "Start")
        recover.finish()
        claim(session, machine, "Start").cancel()


class TestOthers:
    """Whoever leases by SQL of their own, as libraries of schema 2 do."""

    def test_an_insert_by_hand_is_refused(self, session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
        first, second = machines(2)
        claim(session, first, START)
        insert = "INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, %s, %s, 1)"
        with pytest.raises(psycopg.errors.ExclusionViolation, match='under process "Start", which excludes') as refused:
            sql.execute(insert, [first, "Recover", session.uuid])
        assert refused.value.diag.constraint_name == "work_exclusion"
        assert refused.value.diag.table_name == "work"
        sql.execute(insert, [first, "Unrelated", session.uuid])
        sql.execute(insert, [second, "Recover", session.uuid])
        with pytest.raises(psycopg.errors.ExclusionViolation):
            sql.execute("UPDATE work SET machine_id = %s WHERE process = 'Recover'", [first])
        with pytest.raises(psycopg.errors.ExclusionViolation):
            sql.execute("UPDATE work SET process = 'Recover' WHERE process = 'Unrelated'")

    def test_start_work_is_refused(self, session: bmdb.Session, rival: bmdb.Session, machines: MakeMachines) -> None:
        (machine,) = machines(1)
        claim(session, machine, START)
        with pytest.raises(bmdb.DatabaseError) as refused:
            rival.transact(lambda q: q.start_work(machine, rival.uuid, "Recover"))
        assert (refused.value.sqlstate, refused.value.constraint) == ("23P01", "work_exclusion")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_claims_at_the_same_moment_never_both_hold(
    isolation: str, database: str, machines: MakeMachines, sql: Sql
) -> None:
    """All read, then all claim: none sees the others' leases in its snapshot. Nor do they meet in a deadlock."""
    rack = machines(40)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = sql.execute(deadlocks).fetchone()
    steps = threading.Barrier(len(RIVALS))
    held: dict[UUID, list[str]] = {machine: [] for machine in rack}

    def compete(process: bmdb.Process) -> None:
        with (
            bmdb.connect(database, component=process.name) as connection,
            connection.start_session(interval=60) as session,
        ):
            connection.register(*RIVALS)
            for machine in rack:
                read = False

                def retrieve(q: bmdb.Queries, machine: UUID = machine) -> list[UUID]:
                    nonlocal read
                    q.history_of(machine)
                    if not read:
                        read = True
                        steps.wait()  # now all have their snapshots
                    return [machine]

                work = None
                with contextlib.suppress(bmdb.WorkConflictError):
                    work = session.work(process, retrieve, isolation=isolation)
                    held[machine].append(process.name)
                steps.wait()
                if work is not None:
                    work.finish()

    together(*(functools.partial(compete, process) for process in RIVALS))
    assert {machine: names for machine, names in held.items() if len(names) != 1} == {}
    assert len({names[0] for names in held.values()}) > 1, "one of them always came first: they did not compete"
    assert sql.execute(deadlocks).fetchone() == before


class TestRegistration:
    def test_by_hand_and_again(self, connection: bmdb.Connection, sql: Sql) -> None:
        crash = bmdb.Backoff(0.5, 60, 1.5, jitter=0.25)
        process = bmdb.Process("A", excludes=("B", "C"), crash_backoff=crash, quarantine_after=3)
        for _ in range(2):
            connection.register(process, RECOVER)
            assert exclusions(sql) == {("A", "B"), ("A", "C")}
            assert settings(sql, "A") == (0.5, 60.0, 1.5, 0.25, 3)
        assert settings(sql, "Recover") == (None,) * 5, "it has nothing to keep but its name"

    def test_it_only_adds(self, connection: bmdb.Connection, sql: Sql) -> None:
        """As when a worker of an older version comes back, which declares less."""
        connection.register(bmdb.Process("A", excludes=("B",), crash_backoff=bmdb.Backoff(5), quarantine_after=3))
        connection.register(bmdb.Process("A", excludes=("C",)))
        assert exclusions(sql) == {("A", "B"), ("A", "C")}
        assert settings(sql, "A") == (5.0, None, 1.0, 0.0, 3)
        connection.register(bmdb.Process("A", crash_backoff=bmdb.Backoff(7, 70, 2)))
        assert exclusions(sql) == {("A", "B"), ("A", "C")}
        assert settings(sql, "A") == (7.0, 70.0, 2.0, 0.0, 3)

    def test_replace_takes_back(self, connection: bmdb.Connection, sql: Sql) -> None:
        before = bmdb.Process("A", excludes=("B", "C"), crash_backoff=bmdb.Backoff(5, 50, 2), quarantine_after=3)
        connection.register(before, bmdb.Process("C", excludes=("A",)))
        connection.register(bmdb.Process("A", excludes=("C", "D")), replace=True)
        assert exclusions(sql) == {("A", "C"), ("A", "D"), ("C", "A")}, "C's own declaration stays"
        assert settings(sql, "A") == (None, None, None, None, None)
        connection.register(before)
        assert settings(sql, "A") == (5.0, 50.0, 2.0, 0.0, 3)

    def test_work_registers_once(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        claim(session, machine, START).finish()
        assert exclusions(sql) == {("Start", "Recover")}
        sql.execute("DELETE FROM process_exclusion")
        claim(session, machine, START).finish()
        assert exclusions(sql) == set(), "registered again"
        with bmdb.connect(connection.conninfo, component="later") as later:
            later.register(START)
        assert exclusions(sql) == {("Start", "Recover")}

    def test_only_processes_are_registered(self, connection: bmdb.Connection) -> None:
        with pytest.raises(TypeError, match="a Process is registered, not str"):
            connection.register("A")  # type: ignore[arg-type]

    def test_not_inside_a_callback(self, connection: bmdb.Connection, session: bmdb.Session) -> None:
        with pytest.raises(bmdb.WorkStateError):
            session.transact(lambda q: connection.register(START))

    def test_by_many_at_once(self, database: str, sql: Sql) -> None:
        names = [f"P{number}" for number in range(8)]
        definitions = [bmdb.Process(name, excludes=names, quarantine_after=1) for name in names]

        def register(order: list[bmdb.Process]) -> None:
            with bmdb.connect(database, component="test") as connection:
                connection.register(*order)

        orders = [definitions, definitions[::-1], definitions[4:] + definitions[:4], definitions]
        together(*(functools.partial(register, order) for order in orders))
        assert len(exclusions(sql)) == 8 * 7


@pytest.fixture
def reader(database: str, sql: Sql) -> Iterator[str]:
    """A role that may work, but not write what processes are; its connection string."""
    name = f"bmdb_role_{uuid4().hex[:12]}"
    sql.execute(f"CREATE ROLE {name} LOGIN")
    sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
    sql.execute(f"REVOKE INSERT, UPDATE, DELETE ON processes, process_exclusion FROM {name}")
    yield psycopg.conninfo.make_conninfo(database, user=name)
    sql.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = %s", [name])
    sql.execute(f"DROP OWNED BY {name}")
    sql.execute(f"DROP ROLE {name}")


def test_a_role_that_may_only_read_definitions(
    reader: str, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
) -> None:
    (machine,) = machines(1)
    process = bmdb.Process("Start", excludes=("Recover",), quarantine_after=3)
    with (
        bmdb.connect(reader, component="lowly") as lowly,
        lowly.start_session() as session,
    ):
        attempts: list[Callable[[], object]] = [
            lambda: lowly.register(process),
            lambda: claim(session, machine, process),
        ]
        for attempt in attempts:
            with pytest.raises(bmdb.DatabaseError, match="cannot register process Start: .*as a role that may") as no:
                attempt()
            assert no.value.sqlstate == "42501"
        claim(session, machine, RECOVER).finish()
        connection.register(process)
        claim(session, machine, process).finish()
        claim(session, machine, bmdb.Process("Start", excludes=("Recover",))).finish()
        with pytest.raises(bmdb.DatabaseError):
            lowly.register(process, bmdb.Process("Start", excludes=("Access",)))
