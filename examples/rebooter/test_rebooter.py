"""The worker's tests, on a real PostgreSQL that nobody sets up: `pip install "pybmdb[testing]"`, then `pytest`."""

import asyncio
from pathlib import Path

import pytest
import rebooter

import bmdb
from bmdb.testing import assert_callback_is_repeatable, assert_no_zombie_writes, eventually


@pytest.fixture
def session(bmdb_connection):
    rebooter.prepare(bmdb_connection)
    with bmdb_connection.start_session() as session:
        yield session


def test_every_machine_is_rebooted_once(session, bmdb_fleet):
    machines = bmdb_fleet(3)
    pressed = []
    while rebooter.reboot_next(session, lambda machine, token: pressed.append(machine)):
        pass
    assert sorted(pressed) == machines
    assert all("rebooted" in bmdb_fleet.tags(machine) for machine in machines)


def test_a_machine_that_fails_is_left_alone_for_a_while(session, bmdb_fleet, bmdb_clock):
    [machine] = bmdb_fleet(1)

    def fail(machine, token):
        raise OSError("no power")

    assert rebooter.reboot_next(session, fail) == machine
    assert rebooter.reboot_next(session, fail) is None
    bmdb_clock.pass_backoffs()
    assert rebooter.reboot_next(session, fail) == machine
    assert bmdb_fleet.events(machine) == ["Started", "Failed", "Started", "Failed"]


def test_a_worker_that_was_paused_for_too_long_records_nothing(session, bmdb_fleet, bmdb_clock, bmdb_database):
    [machine] = bmdb_fleet(1)
    with assert_no_zombie_writes(bmdb_database), pytest.raises(bmdb.LeaseLostError):
        rebooter.reboot_next(session, lambda machine, token: bmdb_clock.expire(session))
    assert "rebooted" not in bmdb_fleet.tags(machine)


def test_the_record_may_be_written_again(session, bmdb_fleet):
    [machine] = bmdb_fleet(1)
    assert_callback_is_repeatable(session, lambda q: rebooter.record(q, machine, 1))


def test_conflicts_cost_no_second_reboot(session, bmdb_fleet, bmdb_faults):
    [machine] = bmdb_fleet(1)
    pressed = []
    with bmdb_faults.conflicts(3, at="INSERT INTO machine_rebooted") as conflict:
        rebooter.reboot_next(session, lambda machine, token: pressed.append(machine))
    assert conflict.hits == 3
    assert pressed == [machine]


def test_another_worker_takes_over_from_one_that_was_killed(bmdb_spawn, bmdb_fleet):
    [machine] = bmdb_fleet(1)
    first = bmdb_spawn(Path(rebooter.__file__))
    first.expect(f"rebooting {machine} under token 1")
    first.kill()

    def taken_over():
        bmdb_spawn(Path(rebooter.__file__)).wait()
        return "rebooted" in bmdb_fleet.tags(machine)

    eventually(taken_over)
    assert bmdb_fleet.events(machine) == ["Started", "Lost", "Started", "Finished"]


def test_under_asyncio(bmdb_async_connect, bmdb_fleet):
    """pytest-asyncio and anyio do as well: the connection opens on whatever loop the test runs."""
    [machine] = bmdb_fleet(1)

    async def work_once():
        async with (
            bmdb_async_connect() as connection,
            await connection.start_session() as session,
            session.work("Look", lambda q: [machine]) as work,
        ):
            await work.finish()

    asyncio.run(work_once())
    assert bmdb_fleet.events(machine) == ["Started", "Finished"]
