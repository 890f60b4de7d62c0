"""`assert_no_zombie_writes` catches workers that write after their loss, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from bmdb import testing

PROCESS = "Install"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Stage:
    """A worker that has lost its lease on `machine`, and a rival that may have it."""

    def __init__(self, database: str, connect: Callable[..., bmdb.Connection], fleet: testing.Fleet) -> None:
        self.database = database
        [self.machine] = fleet(1)
        self.holder = connect(component="holder").start_session(interval=60)
        self.rival = connect(component="rival").start_session(interval=60)
        self.work = self.holder.work(PROCESS, lambda q: [self.machine])

    def directly(self, sql: Any, *params: object) -> None:
        """As somebody does who writes past bmdb."""
        with psycopg.connect(self.database, application_name="past bmdb") as connection:
            connection.execute(sql, params)


@pytest.fixture
def stage(bmdb_database: str, bmdb_connect: Callable[..., bmdb.Connection], bmdb_fleet: testing.Fleet) -> Stage:
    return Stage(bmdb_database, bmdb_connect, bmdb_fleet)


SET = "UPDATE machine_provided SET provider_id = gen_random_uuid()::text WHERE machine_id = %s"


def test_a_worker_that_writes_past_the_fence_after_its_loss_is_caught(stage: Stage, bmdb_clock: testing.Clock) -> None:
    with pytest.raises(AssertionError) as caught, testing.assert_no_zombie_writes(stage.database):
        bmdb_clock.expire(stage.holder)
        stage.directly(SET, stage.machine)
        stage.directly("DELETE FROM machine_provided WHERE machine_id = %s", stage.machine)
    text = str(caught.value)
    assert text.startswith("2 writes for leases that were lost:")
    assert f"UPDATE machine_provided of machine {stage.machine}" in text
    assert f"session {stage.holder.uuid} lost it under process {PROCESS} (token {stage.work.token})" in text
    assert "without a fence, by past bmdb" in text
    assert "DELETE machine_provided" in text


def test_a_write_that_began_before_the_loss_and_lands_after_it_is_caught(
    stage: Stage, bmdb_clock: testing.Clock
) -> None:
    with (
        pytest.raises(AssertionError, match="1 writes"),
        testing.assert_no_zombie_writes(stage.database),
        psycopg.connect(stage.database) as connection,
    ):
        connection.execute(SET, [stage.machine])
        bmdb_clock.expire(stage.holder)


def test_old_work_that_goes_on_in_a_new_session_is_caught(stage: Stage, bmdb_clock: testing.Clock) -> None:
    with pytest.raises(AssertionError, match=f"in session {stage.rival.uuid}, which does not hold it"):  # noqa: SIM117
        with testing.assert_no_zombie_writes(stage.database):
            bmdb_clock.expire(stage.holder)
            stage.rival.transact(lambda q: q.machine_set_agent_started(stage.machine, NOW, b"key"))


def test_what_is_fenced_is_refused_and_the_next_holder_is_let_write(
    stage: Stage, bmdb_clock: testing.Clock, bmdb_fleet: testing.Fleet
) -> None:
    """Inside its transactions, at the end of its work, with a callback and without, and through psycopg."""
    with testing.assert_no_zombie_writes(stage.database):
        stage.holder.transact(lambda q: q.machine_set_agent_heartbeat(stage.machine, NOW))
        bmdb_clock.expire(stage.holder)
        with pytest.raises(bmdb.Error):
            stage.work.finish(lambda q: q.machine_set_agent_started(stage.machine, NOW, b"old"))
        work = stage.rival.work(PROCESS, lambda q: [stage.machine])
        stage.rival.transact(lambda q: q.machine_set_agent_heartbeat(stage.machine, NOW))
        with psycopg.connect(stage.database) as own:
            stage.rival.transact(lambda q: q.machine_delete_agent_heartbeat(stage.machine), connection=own)
        work.finish(lambda q: q.machine_set_agent_started(stage.machine, NOW, b"new"))
        again = stage.rival.work(PROCESS, lambda q: [stage.machine])
        again.finish(bmdb.clear_tag("agent_started"))
    assert bmdb_fleet.events(stage.machine) == ["Started", "Lost", "Started", "Finished", "Started", "Finished"]


def test_many_ends_in_one_transaction_are_let_write(stage: Stage, bmdb_clock: testing.Clock) -> None:
    with testing.assert_no_zombie_writes(stage.database):
        bmdb_clock.expire(stage.holder)
        process = bmdb.Process("Agent", eligible=bmdb.eligible(having=("provided",), lacking=("agent_started",)))
        works = stage.rival.work_many(process, 10)
        started = bmdb.set_tag("agent_started", agent_started_at=NOW, agent_public_key=b"key")
        assert stage.rival.finish_many([(work, started) for work in works]) == [None]


def test_writes_before_the_loss_and_to_other_machines_are_nobodys_business(
    stage: Stage, bmdb_clock: testing.Clock, bmdb_fleet: testing.Fleet
) -> None:
    [other] = bmdb_fleet(1)
    with testing.assert_no_zombie_writes(stage.database):
        stage.directly(SET, stage.machine)
        bmdb_clock.expire(stage.holder)
        stage.directly(SET, other)
        bmdb_fleet(2)


def test_tables_without_machines_are_watched_when_named(stage: Stage, bmdb_clock: testing.Clock) -> None:
    stage.directly("CREATE TABLE notes (what text)")
    with testing.assert_no_zombie_writes(stage.database, tables=["notes"]):
        stage.directly("INSERT INTO notes VALUES ('before')")
        bmdb_clock.expire(stage.holder)
        stage.rival.transact(lambda q: q.execute("INSERT INTO notes VALUES ('fenced')"))
        # Not one of the tables.
        stage.directly(SET, stage.machine)
    with (
        pytest.raises(AssertionError, match="INSERT notes, "),
        testing.assert_no_zombie_writes(stage.database, tables=["notes"], expect_loss=False),
    ):
        stage.directly("INSERT INTO notes VALUES ('after')")


def test_a_block_without_a_loss_shows_nothing(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="no lease was lost"), testing.assert_no_zombie_writes(stage.database):
        pass
    with testing.assert_no_zombie_writes(stage.database, expect_loss=False):
        pass


def test_what_fails_inside_is_raised_unchanged(stage: Stage) -> None:
    with pytest.raises(KeyError), testing.assert_no_zombie_writes(stage.database):
        raise KeyError("inside")


def test_it_fails_where_the_fence_is_taken_out_of_the_database(
    stage: Stage, bmdb_clock: testing.Clock, machine_written: Callable[[UUID], None]
) -> None:
    """A mutant of the fence: somebody moves the deadline back, so that the holder's transaction passes its check."""
    with pytest.raises(AssertionError, match="1 writes"), testing.assert_no_zombie_writes(stage.database):
        bmdb_clock.expire(stage.holder)
        machine_written(stage.holder.uuid)


@pytest.fixture
def machine_written(stage: Stage) -> Callable[[UUID], None]:
    def revive_and_write(session: UUID) -> None:
        stage.directly(
            "INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES (%s, 'revived', '', 60, clock_timestamp() + interval '1 minute')",
            session,
        )
        stage.holder.transact(lambda q: q.machine_set_agent_heartbeat(stage.machine, NOW))

    return revive_and_write
