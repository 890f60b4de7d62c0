# Generated from tests/behaviour/async_/test_losses.py by tools/generate_sync.py: do not edit.
"""Holders that are lost: crash backoff, and quarantine after too many in a row, applied by whoever collects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually

import bmdb
from bmdb.model import Event, WorkLoss

Sql = psycopg.Connection[Any]
Lose = Callable[..., UUID]

FRAGILE = bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60, 200, 2), quarantine_after=3)

HOLDER = """
    import sys, time, uuid
    import bmdb

    process = bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60), quarantine_after=1)
    with bmdb.connect(sys.argv[1], component="victim") as connection, connection.start_session(interval=1) as session:
        session.work(process, lambda q: [uuid.UUID(sys.argv[2])])
        print("holding", session.uuid)
        time.sleep(60)
"""


def abandon(sql: Sql, process: str, *machines: UUID) -> UUID:
    """An expired session that holds these machines."""
    session = uuid4()
    with sql.transaction():
        sql.execute(
            "INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES (%s, 'gone', '', 5, clock_timestamp() - interval '1 s')",
            [session],
        )
        for machine in machines:
            sql.execute("INSERT INTO work VALUES (%s, %s, %s, 7)", [machine, process, session])
    return session


@pytest.fixture
def lose(connection: bmdb.Connection, sql: Sql) -> Lose:
    """A function that has a session lose its leases of a process on these machines; returns the session's id."""

    def gone(process: str, *machines: UUID) -> UUID:
        session = abandon(sql, process, *machines)
        connection.collect()

        def collected() -> bool:
            return connection.session_info(session) is None

        eventually(collected)  # a heartbeat may have been faster
        return session

    return gone


def events(connection: bmdb.Connection, machine: UUID) -> list[str]:
    return [event.event for event in connection.history_of(machine)]


def losses(connection: bmdb.Connection, machine: UUID, process: str = "Fragile") -> WorkLoss | None:
    return connection._read(lambda q: q.work_loss_of(machine, process))


def backoff(sql: Sql, machine: UUID) -> tuple[int, int | None, str] | None:
    """What is left of the machine's backoff, in seconds rounded up, the period, and the cause."""
    return sql.execute(
        "SELECT ceil(extract(epoch FROM until - clock_timestamp()))::int, last_interval_seconds, cause"
        " FROM work_backoff WHERE machine_id = %s",
        [machine],
    ).fetchone()


def claim(session: bmdb.Session, machine: UUID, process: str | bmdb.Process = "Fragile") -> bmdb.Work:
    return session.work(process, lambda q: [machine])


class TestCrashBackoff:
    def test_each_loss_makes_it_longer(
        self, connection: bmdb.Connection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", crash_backoff=FRAGILE.crash_backoff))
        first, second = machines(2)
        for period in FRAGILE.crash_backoff.schedule(4):  # type: ignore[union-attr]
            session = lose("Fragile", first)
            cause = f"the holder was lost: session {session} of gone"
            assert backoff(sql, first) == (period, period, cause)
        lose("Fragile", first, second)
        assert backoff(sql, first) is not None and backoff(sql, second)[:2] == (60, 60)  # type: ignore[index]

    def test_it_grows_from_a_failures_period_and_feeds_it(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        (machine,) = machines(1)
        claim(session, machine).fail("no answer", bmdb.Backoff(40, 1000, 2))
        lose("Fragile", machine)
        assert backoff(sql, machine)[:2] == (80, 80)  # type: ignore[index]
        work = claim(session, machine)
        assert work.previous_backoff == 80
        work.fail("no answer", bmdb.Backoff(40, 1000, 3))
        assert backoff(sql, machine) == (240, 240, "no answer")

    def test_a_longer_backoff_is_not_cut_short(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        (machine,) = machines(1)
        session.transact(lambda q: q.insert_work_backoff(machine, "Fragile", "by hand", 5000))
        lose("Fragile", machine)
        assert backoff(sql, machine) == (5000, 200, "by hand")

    def test_jitter_shortens_the_wait_and_not_the_period(
        self, connection: bmdb.Connection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(1000, jitter=0.5)))
        rack = machines(20)
        lose("Fragile", *rack)
        found = [backoff(sql, machine) for machine in rack]
        assert {period for _, period, _ in found} == {1000}  # type: ignore[misc]
        waits = {wait for wait, _, _ in found}  # type: ignore[misc]
        assert len(waits) > 1 and all(500 <= wait <= 1000 for wait in waits)

    def test_processes_that_declare_none_have_none(
        self, connection: bmdb.Connection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        (machine,) = machines(1)
        lose("Robust", machine)
        assert backoff(sql, machine) is None
        found = losses(connection, machine, "Robust")
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    def test_a_machine_that_somebody_has_locked_is_freed_and_not_waited_for(
        self, connection: bmdb.Connection, machines: MakeMachines, database: str, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        locked, other = machines(2)
        abandon(sql, "Fragile", locked, other)
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT FROM machines WHERE machine_id = %s FOR UPDATE", [locked])
            assert connection.collect() == (1, 2)
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
        assert events(connection, locked) == ["Lost"]
        assert events(connection, other) == ["Lost"]
        assert losses(connection, locked) is backoff(sql, locked) is None
        assert backoff(sql, other) is not None

    def test_a_backoff_that_somebody_has_locked_is_not_waited_for(
        self, connection: bmdb.Connection, machines: MakeMachines, database: str, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", crash_backoff=bmdb.Backoff(60), quarantine_after=1))
        locked, other = machines(2)
        for machine in (locked, other):
            sql.execute("INSERT INTO work_backoff VALUES (%s, 'Fragile', now(), 'before', 30)", [machine])
        abandon(sql, "Fragile", locked, other)
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT FROM work_backoff WHERE machine_id = %s FOR UPDATE", [locked])
            assert connection.collect() == (1, 2)
        kept = dict(sql.execute("SELECT machine_id, last_interval_seconds FROM work_backoff").fetchall())
        assert kept == {locked: 30, other: 60}
        assert events(connection, locked) == ["Lost", "Quarantined"]
        assert {row.machine_id for row in connection._read(lambda q: q.quarantines())} == {locked, other}


class TestQuarantine:
    def test_after_so_many_losses_in_a_row(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        (machine,) = machines(1)
        for number in (1, 2):
            lose("Fragile", machine)
            found = losses(connection, machine)
            assert found is not None and (found.losses, found.quarantined_at) == (number, None)
        assert connection._read(lambda q: q.quarantines()) == []
        last = lose("Fragile", machine)
        found = losses(connection, machine)
        assert found is not None and found.losses == 3 and found.quarantined_at is not None
        assert abs(found.quarantined_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert connection._read(lambda q: q.quarantines()) == [found]
        assert events(connection, machine) == ["Lost", "Lost", "Lost", Event.QUARANTINED]
        event = connection.history_of(machine)[-1]
        cause = f"quarantined after 3 lost holders in a row, the last one session {last} of gone"
        assert (event.process, event.session_id, event.component, event.failed_cause) == (
            "Fragile",
            last,
            "gone",
            cause,
        )
        kept = connection._read(lambda q: q.work_backoff_of(machine, "Fragile"))
        assert kept is not None
        assert (kept.until.year, kept.cause, kept.last_interval_seconds) == (9999, cause, 200)
        with pytest.raises(bmdb.WorkConflictError, match="in quarantine"):
            claim(session, machine)
        claim(session, machine, "Other").cancel()

    def test_retrievals_that_respect_backoffs_leave_it_out(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose
    ) -> None:
        connection.register(bmdb.Process("ShepherdAgentStart", quarantine_after=1))
        bad, good = machines(2)
        for machine in (bad, good):
            session.transact(lambda q, machine=machine: q.machine_add_provided(machine, "Equinix", str(machine)))
        lose("ShepherdAgentStart", bad)
        eligible = session.transact(lambda q: q.machines_for_agent_start(16, "Equinix"))
        assert [row.machine_id for row in eligible] == [good]

    def test_a_retrieval_that_does_not_is_refused_machine_by_machine(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", quarantine_after=1))
        bad, good = machines(2)
        lose("Fragile", bad)
        sql.execute("DELETE FROM work_backoff")
        assert session.work("Fragile", lambda q: [bad, good]).machine == good

    def test_released(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(FRAGILE)
        first, second = machines(2)
        for _ in range(3):
            lose("Fragile", first, second)
        assert connection.release_quarantine(first, FRAGILE)
        assert not connection.release_quarantine(first, "Fragile"), "twice"
        assert not connection.release_quarantine(second, "Other"), "another process"
        assert losses(connection, first) is backoff(sql, first) is None
        assert [row.machine_id for row in connection._read(lambda q: q.quarantines())] == [second]
        event = connection.history_of(first)[-1]
        assert (event.event, event.process, event.component) == (Event.QUARANTINE_RELEASED, "Fragile", "test")
        work = claim(session, first)
        assert work.previous_backoff is None
        work.cancel()
        lose("Fragile", first)
        found = losses(connection, first)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    def test_a_backoff_set_by_hand_survives_the_release(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", quarantine_after=1))
        (machine,) = machines(1)
        lose("Fragile", machine)
        session.transact(lambda q: q.insert_work_backoff(machine, "Fragile", "by hand", 50))
        assert connection.release_quarantine(machine, "Fragile")
        assert backoff(sql, machine) == (50, 50, "by hand")

    @pytest.mark.parametrize("ending", ["finish", "fail", "cancel", "close"])
    def test_an_end_that_was_told_breaks_the_row(
        self, ending: str, connection: bmdb.Connection, machines: MakeMachines, lose: Lose
    ) -> None:
        connection.register(bmdb.Process("Fragile", quarantine_after=3))
        (machine,) = machines(1)
        for _ in range(2):
            lose("Fragile", machine)
        with connection.start_session() as session:
            work = claim(session, machine)
            match ending:
                case "close":
                    session.close()
                case "fail":
                    work.fail("no answer", bmdb.Backoff())
                case _:
                    getattr(work, ending)()
        assert losses(connection, machine) is None
        lose("Fragile", machine)
        found = losses(connection, machine)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    def test_an_end_by_a_worker_of_schema_2_breaks_the_row_too(
        self, connection: bmdb.Connection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        """It writes history, and knows nothing of losses."""
        connection.register(bmdb.Process("Fragile", quarantine_after=3))
        (machine,) = machines(1)
        for _ in range(2):
            lose("Fragile", machine)
        sql.execute(
            "INSERT INTO work_history (machine_id, process, event) VALUES (%s, 'Fragile', 'Finished')", [machine]
        )
        lose("Fragile", machine)
        found = losses(connection, machine)
        assert found is not None and (found.losses, found.quarantined_at) == (1, None)

    def test_what_ends_beside_a_quarantine_does_not_lift_it(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        """A lease that a holder got by SQL of its own, past the claim that would have refused it."""
        connection.register(bmdb.Process("Fragile", quarantine_after=2))
        (machine,) = machines(1)
        lose("Fragile", machine)
        work = claim(session, machine)
        sql.execute("UPDATE work_loss SET quarantined_at = now()")
        work.finish()
        found = losses(connection, machine)
        assert found is not None and found.quarantined_at is not None

    def test_the_machine_may_go(
        self, connection: bmdb.Connection, machines: MakeMachines, lose: Lose, sql: Sql
    ) -> None:
        connection.register(bmdb.Process("Fragile", quarantine_after=1))
        (machine,) = machines(1)
        lose("Fragile", machine)
        sql.execute("DELETE FROM machines")
        assert losses(connection, machine) is None
        assert not connection.release_quarantine(machine, "Fragile")


def test_a_killed_worker(
    spawn: Spawn, database: str, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
) -> None:
    """Whoever lives applies what the one that died has declared."""
    (machine,) = machines(1)
    holder = spawn(HOLDER, database, str(machine))
    session = UUID(holder.expect("holding").split()[1])
    holder.kill()

    def collected() -> bool:
        return connection.session_info(session) is None

    with connection.start_session():  # its heartbeat collects
        eventually(collected, timeout=10)
    assert events(connection, machine) == ["Started", "Lost", "Quarantined"]
    assert [row.machine_id for row in connection._read(lambda q: q.quarantines())] == [machine]
