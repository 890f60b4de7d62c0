"""Exclusion of processes from the database's side: races of SQL by hand, and the plan of a claim."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb
from bmdb import _core

Sql = psycopg.Connection[Any]

START = bmdb.Process("Start", excludes=("Recover",))
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
                sql.execute(f"PREPARE claim (uuid[], text, uuid, text) AS {claim}")
                rows = sql.execute(
                    psycopg.sql.SQL(
                        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE claim ({}, 'A', {}, 'test')"
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
