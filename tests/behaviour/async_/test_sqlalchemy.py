"""An SQLAlchemy engine of the user's: ORM rows and bmdb's land together, and connections go back clean."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from tests.conftest import MakeMachines
from tests.drivers import driver_async

import bmdb

# async only
from sqlalchemy.ext.asyncio import create_async_engine  # isort: skip

# end async only
# sync only
# from sqlalchemy import create_engine as create_async_engine
#
# end sync only

Sql = psycopg.Connection[Any]
PROCESS = "UnitTest1"


class Base(orm.DeclarativeBase):
    pass


class Rack(Base):
    __tablename__ = "racks"
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    height: orm.Mapped[int] = orm.mapped_column(default=42)


@pytest.fixture
async def engine(database: str, sql: Sql) -> AsyncIterator[Any]:
    sql.execute("CREATE TABLE racks (name text PRIMARY KEY, height int NOT NULL)")
    async with driver_async("sqlalchemy", database) as given:
        yield given["engine"]


def racks(sql: Sql) -> list[tuple[str, int]]:
    return sql.execute("SELECT name, height FROM racks ORDER BY name").fetchall()


def backends(sql: Sql) -> list[str]:
    return [
        state
        for (state,) in sql.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name = ''"
        ).fetchall()
    ]


async def test_rows_of_both_land_together(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    async def write(q: Any) -> Any:
        q.orm.add(Rack(name="a1"))
        machine = await q.new_machine()
        await q.orm.flush()
        assert await q.fetch_value("SELECT height FROM racks WHERE name = $1", "a1") == 42
        await q.connection.execute("UPDATE racks SET height = 47")
        assert racks(sql) == []
        return machine

    machine = await session.transact(write, engine=engine)
    assert racks(sql) == [("a1", 47)]
    assert sql.execute("SELECT machine_id FROM machines").fetchall() == [(machine.machine_id,)]
    assert set(backends(sql)) == {"idle"}


async def test_what_is_not_flushed_is_before_the_commit_and_objects_can_be_returned(
    session: bmdb.AsyncSession, engine: Any, sql: Sql
) -> None:
    async def write(q: Any) -> Rack:
        rack = Rack(name="a1")
        q.orm.add(rack)
        return rack

    rack = await session.transact(write, engine=engine)
    assert (rack.name, rack.height) == ("a1", 42)
    assert racks(sql) == [("a1", 42)]


async def test_an_exception_rolls_back_both(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    error = RuntimeError("mine")

    async def write(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        await q.orm.flush()
        await q.new_machine()
        raise error

    with pytest.raises(RuntimeError) as caught:
        await session.transact(write, engine=engine)
    assert caught.value is error
    assert racks(sql) == [] and sql.execute("SELECT FROM machines").fetchall() == []
    assert set(backends(sql)) == {"idle"}


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
async def test_an_end_and_the_users_rows(
    session: bmdb.AsyncSession, engine: Any, sql: Sql, machines: MakeMachines, end: str
) -> None:
    (machine,) = machines(1)

    async def retrieve(q: bmdb.AsyncQueries) -> Any:
        return [machine]

    work = await session.work(PROCESS, retrieve)

    async def broken(q: Any) -> None:
        q.orm.add(Rack(name="b1"))
        await q.orm.flush()
        raise RuntimeError

    async def commit(q: Any) -> None:
        q.orm.add(Rack(name="a1"))

    for callback in (broken, commit):
        with contextlib.suppress(RuntimeError):
            if end == "finish":
                await work.finish(callback, engine=engine)
            elif end == "fail":
                await work.fail("no answer", bmdb.Backoff(60), commit=callback, engine=engine)
            else:
                await work.cancel(callback, engine=engine)
        if callback is broken:
            assert work.state == "active"
    assert work.state == {"finish": "finished", "fail": "failed", "cancel": "canceled"}[end]
    assert racks(sql) == [("a1", 42)]


async def test_the_orms_own_commit_and_rollback_end_nothing_but_a_savepoint(
    session: bmdb.AsyncSession, engine: Any, sql: Sql
) -> None:
    async def write(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        await q.orm.commit()
        assert racks(sql) == []
        q.orm.add(Rack(name="a2"))
        await q.orm.flush()
        await q.orm.rollback()
        q.orm.add(Rack(name="a3"))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

    await session.transact(write, engine=engine)
    assert [name for name, _ in racks(sql)] == ["a1", "a3"]

    async def fails_after_its_commit(q: Any) -> None:
        q.orm.add(Rack(name="b1"))
        await q.orm.commit()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await session.transact(fails_after_its_commit, engine=engine)
    assert [name for name, _ in racks(sql)] == ["a1", "a3"]


async def test_to_commit_the_connection_below_is_refused(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    async def commit(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        await q.orm.flush()
        await (await q.orm.connection()).commit()

    with pytest.raises(sa.exc.ProgrammingError, match="commit"):
        await session.transact(commit, engine=engine)
    assert racks(sql) == []


async def test_a_conflict_wrapped_by_sqlalchemy_is_run_again(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")
    seen: list[int] = []

    async def grow(q: Any) -> None:
        rack = await q.orm.get_one(Rack, "a1")
        seen.append(rack.height)
        if len(seen) == 1:
            sql.execute("UPDATE racks SET height = height + 1")
        rack.height += 1000

    await session.transact(grow, engine=engine)
    assert seen == [1, 2]
    assert racks(sql) == [("a1", 1002)]


@pytest.mark.parametrize("by", ["flush", "statement"])
async def test_a_swallowed_error_is_no_silent_success(
    session: bmdb.AsyncSession, engine: Any, sql: Sql, by: str
) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")

    async def swallow(q: Any) -> None:
        await q.new_machine()
        try:
            if by == "flush":
                q.orm.add(Rack(name="a1"))
                await q.orm.flush()
            else:
                await q.orm.execute(sa.text("INSERT INTO racks VALUES ('a1', 1)"))
        except sa.exc.IntegrityError:
            pass

    with pytest.raises((bmdb.DatabaseError, sa.exc.PendingRollbackError), match="racks_pkey"):
        await session.transact(swallow, engine=engine)
    assert sql.execute("SELECT FROM machines").fetchall() == []
    assert set(backends(sql)) == {"idle"}


async def test_a_conflict_swallowed_in_a_flush_is_run_again(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")
    runs: list[int] = []

    async def grow(q: Any) -> None:
        runs.append(1)
        rack = await q.orm.get_one(Rack, "a1")
        if len(runs) == 1:
            sql.execute("UPDATE racks SET height = height + 1")
        rack.height += 1000
        with contextlib.suppress(sa.exc.DBAPIError):
            await q.orm.flush()

    await session.transact(grow, engine=engine)
    assert len(runs) == 2
    assert racks(sql) == [("a1", 1002)]


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_connection_that_breaks_is_replaced_and_the_callback_run_again(
    session: bmdb.AsyncSession, engine: Any, sql: Sql, noticed: bool
) -> None:
    runs: list[int] = []

    async def cut_off(q: Any) -> None:
        runs.append(1)
        q.orm.add(Rack(name="a1"))
        await q.orm.flush()
        if len(runs) == 1:
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [q.connection.info.backend_pid])
            if not noticed:
                return
        await q.orm.execute(sa.text("UPDATE racks SET height = 7"))

    await session.transact(cut_off, engine=engine)
    assert len(runs) == 2
    assert racks(sql) == [("a1", 7)]
    assert set(backends(sql)) == {"idle"}


@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "REPEATABLE READ"}])
async def test_what_the_engine_is_set_to_does_not_matter_and_stays(
    session: bmdb.AsyncSession, engine: Any, options: dict[str, str]
) -> None:
    own = engine.execution_options(**options)

    async def level(q: Any) -> Any:
        return await q.fetch_value("SHOW transaction_isolation")

    async with own.connect() as connection:
        before = (await connection.execute(sa.text("SHOW transaction_isolation"))).scalar()
    assert await session.transact(level, engine=own) == "serializable"
    assert await session.transact(level, engine=own, isolation="read committed") == "read committed"
    async with own.connect() as connection:
        assert (await connection.execute(sa.text("SHOW transaction_isolation"))).scalar() == before


async def test_the_pool_serves_on(session: bmdb.AsyncSession, engine: Any, sql: Sql) -> None:
    async def fail(q: Any) -> None:
        await q.execute("SELECT 1 / 0")

    for _ in range(20):
        with pytest.raises(bmdb.DatabaseError):
            await session.transact(fail, engine=engine)
    assert engine.pool.checkedout() == 0
    assert len(backends(sql)) == 1


async def test_refusals(session: bmdb.AsyncSession, engine: Any, empty_database: str, database: str) -> None:
    async def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="engine must be an"):
        await session.transact(never, engine=database)  # type: ignore[call-overload]
    async with driver_async("sqlalchemy", empty_database) as elsewhere:
        with pytest.raises(bmdb.ConfigError, match="nothing would fence it"):
            await session.transact(never, **elsewhere)
        assert elsewhere["engine"].pool.checkedout() == 0
    async with driver_async("psycopg", database) as given:
        with pytest.raises(TypeError, match="not both"):
            await session.transact(never, engine=engine, **given)


async def test_q_orm_is_no_use_after_its_callback(session: bmdb.AsyncSession, engine: Any) -> None:
    kept: list[Any] = []

    async def keep(q: Any) -> None:
        kept.append(q)

    await session.transact(keep, engine=engine)
    with pytest.raises(bmdb.WorkStateError):
        _ = kept[0].orm


async def test_no_connection_to_be_had(session: bmdb.AsyncSession) -> None:
    async def never(q: Any) -> None:
        raise AssertionError

    unreachable = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(bmdb.ConnectionFailedError):
        await session.transact(never, engine=unreachable)
