"""The testing kit as its users see it: checked, not run."""

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import assert_type
from uuid import UUID

import bmdb
from bmdb import testing
from bmdb.testing import assert_async_callback_is_repeatable, assert_callback_is_repeatable, assert_no_zombie_writes


def databases() -> None:
    with testing.Server() as server, server.database() as conninfo:
        assert_type(conninfo, str)
        with testing.Fleet(conninfo) as fleet, testing.Clock(conninfo) as clock, testing.Faults(conninfo) as faults:
            assert_type(faults.conninfo, str)
            machines = fleet(3, provider=None, agents=True)
            assert_type(machines, list[UUID])
            assert_type(fleet.events(machines[0]), list[str])
            assert_type(fleet.tags(machines[0]), set[str])
            assert_type(fleet.write(lambda q: q.count_machines()), int)
            assert_type([holder.work_started_at for holder in fleet.holders(machines[0])], list[datetime])
            assert_type(clock.pass_backoffs(machines[0], "Reboot"), int)


def time(clock: testing.Clock, session: bmdb.Session, other: bmdb.AsyncSession, connection: bmdb.Connection) -> None:
    assert_type(clock.expire(session), bool)
    assert_type(clock.expire(other, collect=False), bool)
    assert_type(clock.expire(session.uuid), bool)
    clock.suspend(connection, 10)
    clock.expire("session")  # type: ignore[arg-type]


def faults(faults: testing.Faults) -> None:
    with faults.freeze_heartbeats(), faults.black_hole(), faults.outage(), faults.latency(0.1):
        pass
    with faults.cut_at_commit("before", times=None) as cut, faults.conflicts(3, at="INSERT") as conflict:
        assert_type(cut.hits, int)
        assert_type(conflict.hits, int)
    faults.cut_at_commit("amid")  # type: ignore[arg-type]
    testing.hold_gil(0.5)


def children() -> None:
    with testing.Child(Path("worker.py"), env={"A": "b"}) as child:
        assert_type(child.expect("ready"), str)
        stopped: AbstractContextManager[None] = child.stopped()
        with stopped:
            child.kill()
        assert_type(child.wait(), int)


def assertions(session: bmdb.Session) -> None:
    with assert_no_zombie_writes("dbname=x", tables=["machine_rebooted"], expect_loss=False):
        assert_type(assert_callback_is_repeatable(session, lambda q: q.count_machines()), int)
    assert_type(testing.eventually(lambda: 7, 1.0, "seven"), int)


async def async_assertions(session: bmdb.AsyncSession) -> None:
    async def count(q: bmdb.AsyncQueries) -> int:
        return await q.count_machines()

    assert_type(await assert_async_callback_is_repeatable(session, count), int)
