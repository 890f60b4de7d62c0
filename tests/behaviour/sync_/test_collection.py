# Generated from tests/behaviour/async_/test_collection.py by tools/generate_sync.py: do not edit.
"""Collection: what expired sessions held becomes free, with a `Lost` event, whoever does it and whenever."""

from __future__ import annotations

import contextlib
import time
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually

import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]

HOLDER = """
    import sys, time, uuid
    import bmdb

    with bmdb.connect(sys.argv[1], component="victim") as connection, connection.start_session(interval=1) as session:
        work = session.work("UnitTest1", lambda q: [uuid.UUID(sys.argv[2])])
        print("holding", session.uuid, work.token)
        time.sleep(60)
"""


def abandon(sql: Sql, *machines: UUID, ago: float = 1.0, component: str = "gone") -> UUID:
    """A session, its deadline so many seconds ago, that holds these machines, as if its holder had vanished."""
    session = uuid4()
    sql.execute(
        "INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds,"
        " session_deadline) VALUES (%s, %s, '', 5, clock_timestamp() - %s * interval '1 s')",
        [session, component, ago],
    )
    for machine in machines:
        sql.execute(
            "INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, %s, %s, 7)",
            [machine, PROCESS, session],
        )
        sql.execute("INSERT INTO work_token (machine_id, process, token) VALUES (%s, %s, 7)", [machine, PROCESS])
    return session


def lost(sql: Sql) -> list[tuple[Any, ...]]:
    return sql.execute(
        "SELECT machine_id, process, session_id, component, token FROM work_history WHERE event = 'Lost'"
    ).fetchall()


def count(sql: Sql, table: str) -> int:
    row = sql.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


class TestCollect:
    def test_an_expired_sessions_work_is_lost_and_it_is_gone(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
    ) -> None:
        first, second = machines(2)
        session = abandon(sql, first, second)
        collected = connection.collect()
        assert collected == (1, 2)
        assert (collected.sessions, collected.leases) == (1, 2)
        assert set(lost(sql)) == {
            (first, PROCESS, session, "gone", 7),
            (second, PROCESS, session, "gone", 7),
        }
        assert count(sql, "sessions") == count(sql, "work") == 0
        assert connection.session_info(session) is None

    def test_once_is_enough(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        abandon(sql, *machines(1))
        assert connection.collect() == (1, 1)
        assert connection.collect() == (0, 0)
        assert len(lost(sql)) == 1

    def test_live_sessions_are_left_alone(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        rack = machines(2)
        with session.work(PROCESS, lambda q: rack[:1]):
            abandon(sql, rack[1])
            abandon(sql, ago=-1)
            assert connection.collect() == (1, 1)
            assert count(sql, "work") == 1 and count(sql, "sessions") == 2
            assert [machine for machine, *_ in lost(sql)] == [rack[1]]

    def test_a_session_without_work_leaves_no_history(self, connection: bmdb.Connection, sql: Sql) -> None:
        abandon(sql)
        assert connection.collect() == (1, 0)
        assert count(sql, "work_history") == 0

    def test_many_at_once(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        """More than fit into one batch."""
        sql.execute(
            "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) SELECT 'gone', '', 5, clock_timestamp() - interval '1 s' FROM generate_series(1, 250)"
        )
        assert connection.collect() == (250, 0)

    def test_backoffs_are_kept(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        (machine,) = machines(1)
        sql.execute(
            "INSERT INTO work_backoff VALUES (%s, %s, clock_timestamp() + interval '1 h', 'before', 64)",
            [machine, PROCESS],
        )
        abandon(sql, machine)
        connection.collect()
        assert sql.execute("SELECT cause, last_interval_seconds FROM work_backoff").fetchone() == ("before", 64)

    def test_the_next_token_is_higher(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        rack = machines(1)
        abandon(sql, *rack)
        connection.collect()
        assert session.work(PROCESS, lambda q: rack).token == 8


class TestWork:
    """work() collects before it says that there is nothing. Long intervals keep the heartbeat's own collection out."""

    def free(self, q: bmdb.Queries) -> list[bmdb.Row]:
        return q.fetch(
            "SELECT machine_id FROM machines AS m"
            " WHERE NOT EXISTS (SELECT 1 FROM work AS w WHERE w.machine_id = m.machine_id)"
        )

    def test_when_it_finds_nothing(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        (machine,) = machines(1)
        abandoned = abandon(sql, machine)
        with (
            connection.start_session(interval=60) as session,
            session.work(PROCESS, self.free) as work,
        ):
            assert work.machine == machine
            assert [row[2] for row in lost(sql)] == [abandoned]

    def test_when_all_is_taken(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        rack = machines(1)
        abandon(sql, *rack)
        with connection.start_session(interval=60) as session:
            assert session.work(PROCESS, lambda q: rack).machine == rack[0]

    def test_not_when_it_finds_something(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        held, free = machines(2)
        abandon(sql, held)
        with connection.start_session(interval=60) as session:
            assert session.work(PROCESS, lambda q: [held, free]).machine == free
        assert lost(sql) == []

    def test_once_a_second_at_most(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        """Or a fleet without work would do nothing but collect."""
        rack = machines(1)
        with connection.start_session(interval=60) as session:
            with pytest.raises(bmdb.NothingToDo):
                session.work(PROCESS, lambda q: [])
            looked = time.monotonic()
            abandon(sql, *rack)
            with pytest.raises(bmdb.WorkConflictError):
                session.work(PROCESS, lambda q: rack)
            assert time.monotonic() - looked < 1, "this machine is too slow for the test to mean anything"
            time.sleep(max(0.0, looked + 1.05 - time.monotonic()))
            assert session.work(PROCESS, lambda q: rack).machine == rack[0]


class TestByItself:
    def test_a_connection_with_a_live_session_collects(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        session = abandon(sql, machine)
        with connection.start_session(interval=1):
            eventually(lambda: lost(sql), 5)
        assert lost(sql) == [(machine, PROCESS, session, "gone", 7)]
        assert count(sql, "sessions") == 0

    def test_a_killed_workers_machine_is_free_soon_after_its_deadline(
        self, spawn: Spawn, database: str, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        with connection.start_session(interval=1) as session:
            victim = spawn(HOLDER, database, str(machine))
            _, holder, token = victim.expect("holding").split()
            victim.kill()
            killed = time.monotonic()
            with pytest.raises(bmdb.WorkConflictError):
                session.work(PROCESS, lambda q: [machine])

            leased: list[bmdb.Work] = []

            def lease() -> bool:
                with contextlib.suppress(bmdb.WorkConflictError):
                    leased.append(session.work(PROCESS, lambda q: [machine]))
                return bool(leased)

            eventually(lease, 10)
            assert time.monotonic() - killed < 4
            assert leased[0].token > int(token)
            assert lost(sql) == [(machine, PROCESS, UUID(holder), "victim", int(token))]
            leased[0].finish()
