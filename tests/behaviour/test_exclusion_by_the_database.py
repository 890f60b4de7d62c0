"""Exclusion of processes from the database's side: races of SQL by hand, and the plan of a claim."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb
from bmdb import _core

Sql = psycopg.Connection[Any]

START = bmdb.Process("Start", excludes=("Recover",))
# What a library of schema 2 sends.
CLAIM_OF_SCHEMA_2 = """
    WITH candidate AS (
        SELECT offered.machine_id
        FROM (
            SELECT u.machine_id
            FROM unnest(%(machines)s::uuid[]) WITH ORDINALITY AS u (machine_id, position)
            JOIN machines AS m ON m.machine_id = u.machine_id
            WHERE NOT EXISTS (
                SELECT 1 FROM work AS w WHERE w.machine_id = u.machine_id AND w.process = %(process)s::text
            )
            ORDER BY u.position
            OFFSET 0
        ) AS offered
        WHERE pg_try_advisory_xact_lock(hashtextextended(offered.machine_id::text || %(process)s::text, 7225))
        LIMIT 1
    ), numbered AS (
        INSERT INTO work_token AS t (machine_id, process, token)
        SELECT machine_id, %(process)s::text, 1 FROM candidate
        ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
        RETURNING t.machine_id, t.token
    ), leased AS (
        INSERT INTO work (machine_id, process, session_id, token)
        SELECT machine_id, %(process)s::text, %(session)s::uuid, token FROM numbered
        ON CONFLICT (machine_id, process) DO NOTHING
        RETURNING machine_id, token
    ), audited AS (
        INSERT INTO work_history (machine_id, process, event, session_id, component, token)
        SELECT machine_id, %(process)s::text, 'Started', %(session)s::uuid, 'old'::text, token FROM leased
        RETURNING 1
    )
    SELECT leased.machine_id, leased.token, b.last_interval_seconds, (SELECT count(*) FROM audited) AS audited
    FROM leased
    LEFT JOIN work_backoff AS b ON b.machine_id = leased.machine_id AND b.process = %(process)s::text
"""

RIVALS = [bmdb.Process("A", excludes=("B", "C")), bmdb.Process("B", excludes=("C",)), bmdb.Process("C")]


@pytest.mark.parametrize("isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.SERIALIZABLE])
def test_two_inserts_by_hand_at_once(
    isolation: psycopg.IsolationLevel,
    session: bmdb.Session,
    machines: MakeMachines,
    database: str,
    sql: Sql,
) -> None:
    """The second waits for the first, and is refused when that has committed."""
    (machine,) = machines(1)
    session.connection.register(START)
    insert = "INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, %s, %s, 1)"
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        first.isolation_level = second.isolation_level = isolation
        first.execute(insert, [machine, "Start", session.uuid])
        second.execute("SELECT count(*) FROM work")  # from here on a snapshot without the first one's lease
        refused: list[psycopg.Error] = []

        def insert_too() -> None:
            try:
                second.execute(insert, [machine, "Recover", session.uuid])
            except psycopg.Error as error:
                refused.append(error)

        thread = threading.Thread(target=insert_too)
        thread.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        while thread.is_alive() and sql.execute(waits, [second.info.backend_pid]).fetchone() is None:
            thread.join(0.02)
        first.commit()
        thread.join(10)
        assert [type(error) for error in refused] == [
            psycopg.errors.ExclusionViolation
            if isolation is psycopg.IsolationLevel.READ_COMMITTED
            else psycopg.errors.SerializationFailure
        ]
    assert sql.execute("SELECT machine_id, process FROM work").fetchall() == [(machine, "Start")]


class TestBatches:
    """Many rows in one statement are looked at together, and refused together."""

    INSERT = "INSERT INTO work (machine_id, process, session_id, token) SELECT unnest(%s::uuid[]), %s, %s, 1"

    def test_one_held_machine_among_many_refuses_them_all(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        rack = machines(200)
        held = session.work(START, lambda q: [rack[117]])
        with pytest.raises(
            psycopg.errors.ExclusionViolation, match=f'machine {rack[117]} .*under process "Start"'
        ) as no:
            sql.execute(self.INSERT, [rack, "Recover", session.uuid])
        assert (no.value.diag.constraint_name, no.value.diag.table_name) == ("work_exclusion", "work")
        held.finish()
        sql.execute(self.INSERT, [rack, "Recover", session.uuid])
        with pytest.raises(psycopg.errors.ExclusionViolation, match='under process "Recover", which excludes "Start"'):
            sql.execute(self.INSERT, [rack[:2], "Start", session.uuid])

    def test_rivals_in_one_statement(self, session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
        (machine,) = machines(1)
        session.connection.register(START)
        with pytest.raises(psycopg.errors.ExclusionViolation):
            sql.execute(
                "INSERT INTO work (machine_id, process, session_id, token)"
                " VALUES (%(m)s, 'Start', %(s)s, 1), (%(m)s, 'Recover', %(s)s, 1)",
                {"m": machine, "s": session.uuid},
            )

    def test_the_trigger_runs_once_a_statement(self, session: bmdb.Session, machines: MakeMachines, sql: Sql) -> None:
        session.connection.register(START)
        rack = machines(200)
        sql.execute("SET track_functions = 'all'")
        sql.execute(self.INSERT, [rack, "Recover", session.uuid])
        sql.execute("SELECT pg_stat_force_next_flush()")
        calls = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'work_exclude'"
        assert sql.execute(calls).fetchone() == (1,)

    def test_what_was_held_before_it_was_declared_may_be_updated(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        session.work("Start", lambda q: [machine])
        session.work("Recover", lambda q: [machine])
        session.connection.register(START)
        assert sql.execute("UPDATE work SET claim_id = gen_random_uuid()").rowcount == 2


class TestSchema2:
    """A worker of the version before, which knows nothing of exclusion."""

    @staticmethod
    def claim(old: psycopg.Connection[Any], machine: UUID, session: bmdb.Session, process: str) -> int | None:
        given = {"machines": [machine], "process": process, "session": session.uuid}
        row = old.execute(CLAIM_OF_SCHEMA_2, given).fetchone()
        return None if row is None else int(row[1])

    @pytest.fixture
    def old(self, database: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(database) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield connection

    def test_it_leases_as_ever(
        self, old: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        session.connection.register(START)
        assert self.claim(old, machine, session, "Unrelated") == 1
        assert self.claim(old, machine, session, "Unrelated") is None
        assert self.claim(old, machine, session, "Recover") == 1
        old.commit()
        with pytest.raises(bmdb.WorkConflictError):
            session.work(START, lambda q: [machine])

    def test_it_is_refused_beside_a_rival(
        self, old: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        session.work(START, lambda q: [machine])
        with pytest.raises(psycopg.errors.ExclusionViolation):
            self.claim(old, machine, session, "Recover")

    def test_it_does_not_claim_past_a_rival_that_its_snapshot_lacks(
        self, old: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        old.execute("SELECT count(*) FROM work")
        session.work(START, lambda q: [machine])
        with pytest.raises(psycopg.errors.SerializationFailure):
            self.claim(old, machine, session, "Recover")

    def test_nor_does_a_rival_claim_past_it(
        self, old: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        runs: list[int] = []

        def retrieve(q: bmdb.Queries) -> list[UUID]:
            q.count_machines()
            runs.append(1)
            if len(runs) == 1:
                assert self.claim(old, machine, session, "Recover") == 1
                old.commit()
            return [machine]

        with pytest.raises(bmdb.WorkConflictError):
            session.work(START, retrieve, isolation="repeatable read")
        assert len(runs) >= 2

    def test_nor_do_two_of_them(
        self, old: psycopg.Connection[Any], session: bmdb.Session, machines: MakeMachines, database: str
    ) -> None:
        (machine,) = machines(1)
        session.connection.register(START)
        with psycopg.connect(database) as other:
            other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for connection in (old, other):
                connection.execute("SELECT count(*) FROM work")
            assert self.claim(old, machine, session, "Start") == 1
            old.commit()
            with pytest.raises(psycopg.errors.SerializationFailure):
                self.claim(other, machine, session, "Recover")


class TestClaimPlan:
    """With a thousand machines offered, nothing is read from end to end that grows with the fleet."""

    @pytest.fixture
    def plan(
        self, machines: MakeMachines, session: bmdb.Session, sql: Sql
    ) -> Callable[[], AbstractContextManager[str]]:
        @contextlib.contextmanager
        def explain() -> Iterator[str]:
            offered = machines(1000)
            machines(20_000)
            sql.execute("INSERT INTO work_token SELECT machine_id, 'Other', 1 FROM machines")
            sql.execute("INSERT INTO work SELECT machine_id, 'Other', %s, 1 FROM machines", [session.uuid])
            sql.execute("INSERT INTO work_loss SELECT machine_id, 'Other', 1, now() FROM machines")
            sql.execute("ANALYZE")
            claim = dict(_core.queries())["work_claim"]
            with sql.transaction(force_rollback=True):
                sql.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                sql.execute(f"PREPARE claim (uuid[], text, uuid, text, uuid) AS {claim}")
                rows = sql.execute(
                    psycopg.sql.SQL(
                        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE claim ({}, 'A', {}, '', gen_random_uuid())"
                    ).format(psycopg.sql.Literal(offered), psycopg.sql.Literal(session.uuid))
                )
                yield "\n".join(row[0] for row in rows)
            sql.execute("DEALLOCATE claim")

        return explain

    @pytest.mark.parametrize("excluding", [False, True])
    def test_only_lookups(
        self,
        excluding: bool,
        plan: Callable[[], AbstractContextManager[str]],
        connection: bmdb.Connection,
    ) -> None:
        if excluding:
            connection.register(*RIVALS)
        with plan() as text:
            assert "Seq Scan on machines" not in text, text
            assert "Seq Scan on work " not in text, text
            assert "Seq Scan on work_loss" not in text, text
            assert "Index Scan using work_loss_pkey on work_loss l (actual" in text, text
