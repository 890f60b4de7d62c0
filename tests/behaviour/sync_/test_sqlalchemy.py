# Generated from tests/behaviour/async_/test_sqlalchemy.py by tools/generate_sync.py: do not edit.
"""An SQLAlchemy engine of the user's: ORM rows and bmdb's land together, and connections go back clean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine as create_async_engine
from sqlalchemy import orm
from tests.conftest import MakeMachines
from tests.drivers import driver

import bmdb

Sql = psycopg.Connection[Any]
PROCESS = "UnitTest1"


class Base(orm.DeclarativeBase):
    pass


class Rack(Base):
    __tablename__ = "racks"
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    height: orm.Mapped[int] = orm.mapped_column(default=42)


@pytest.fixture
def engine(database: str, sql: Sql) -> Iterator[Any]:
    sql.execute("CREATE TABLE racks (name text PRIMARY KEY, height int NOT NULL)")
    with driver("sqlalchemy", database) as given:
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


def test_rows_of_both_land_together(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    def write(q: Any) -> Any:
        q.orm.add(Rack(name="a1"))
        machine = q.new_machine()
        q.orm.flush()
        assert q.fetch_value("SELECT height FROM racks WHERE name = $1", "a1") == 42
        q.connection.execute("UPDATE racks SET height = 47")
        assert racks(sql) == []
        return machine

    machine = session.transact(write, engine=engine)
    assert racks(sql) == [("a1", 47)]
    assert sql.execute("SELECT machine_id FROM machines").fetchall() == [(machine.machine_id,)]
    assert set(backends(sql)) == {"idle"}


def test_what_is_not_flushed_is_before_the_commit_and_objects_can_be_returned(
    session: bmdb.Session, engine: Any, sql: Sql
) -> None:
    def write(q: Any) -> Rack:
        rack = Rack(name="a1")
        q.orm.add(rack)
        return rack

    rack = session.transact(write, engine=engine)
    assert (rack.name, rack.height) == ("a1", 42)
    assert racks(sql) == [("a1", 42)]


def test_an_exception_rolls_back_both(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    error = RuntimeError("mine")

    def write(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        q.orm.flush()
        q.new_machine()
        raise error

    with pytest.raises(RuntimeError) as caught:
        session.transact(write, engine=engine)
    assert caught.value is error
    assert racks(sql) == [] and sql.execute("SELECT FROM machines").fetchall() == []
    assert set(backends(sql)) == {"idle"}


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_an_end_and_the_users_rows(
    session: bmdb.Session, engine: Any, sql: Sql, machines: MakeMachines, end: str
) -> None:
    (machine,) = machines(1)

    def retrieve(q: bmdb.Queries) -> Any:
        return [machine]

    work = session.work(PROCESS, retrieve)

    def broken(q: Any) -> None:
        q.orm.add(Rack(name="b1"))
        q.orm.flush()
        raise RuntimeError

    def commit(q: Any) -> None:
        q.orm.add(Rack(name="a1"))

    for callback in (broken, commit):
        with contextlib.suppress(RuntimeError):
            if end == "finish":
                work.finish(callback, engine=engine)
            elif end == "fail":
                work.fail("no answer", bmdb.Backoff(60), commit=callback, engine=engine)
            else:
                work.cancel(callback, engine=engine)
        if callback is broken:
            assert work.state == "active"
    assert work.state == {"finish": "finished", "fail": "failed", "cancel": "canceled"}[end]
    assert racks(sql) == [("a1", 42)]


def test_the_orms_own_commit_and_rollback_end_nothing_but_a_savepoint(
    session: bmdb.Session, engine: Any, sql: Sql
) -> None:
    def write(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        q.orm.commit()
        assert racks(sql) == []
        q.orm.add(Rack(name="a2"))
        q.orm.flush()
        q.orm.rollback()
        q.orm.add(Rack(name="a3"))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sql.execute("SELECT FROM sessions FOR UPDATE NOWAIT")

    session.transact(write, engine=engine)
    assert [name for name, _ in racks(sql)] == ["a1", "a3"]

    def fails_after_its_commit(q: Any) -> None:
        q.orm.add(Rack(name="b1"))
        q.orm.commit()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        session.transact(fails_after_its_commit, engine=engine)
    assert [name for name, _ in racks(sql)] == ["a1", "a3"]


def test_to_commit_the_connection_below_is_refused(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    def commit(q: Any) -> None:
        q.orm.add(Rack(name="a1"))
        q.orm.flush()
        q.orm.connection().commit()

    with pytest.raises(sa.exc.ProgrammingError, match="commit"):
        session.transact(commit, engine=engine)
    assert racks(sql) == []


def test_a_conflict_wrapped_by_sqlalchemy_is_run_again(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")
    seen: list[int] = []

    def grow(q: Any) -> None:
        rack = q.orm.get_one(Rack, "a1")
        seen.append(rack.height)
        if len(seen) == 1:
            sql.execute("UPDATE racks SET height = height + 1")
        rack.height += 1000

    session.transact(grow, engine=engine)
    assert seen == [1, 2]
    assert racks(sql) == [("a1", 1002)]


@pytest.mark.parametrize("by", ["flush", "statement"])
def test_a_swallowed_error_is_no_silent_success(session: bmdb.Session, engine: Any, sql: Sql, by: str) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")

    def swallow(q: Any) -> None:
        q.new_machine()
        try:
            if by == "flush":
                q.orm.add(Rack(name="a1"))
                q.orm.flush()
            else:
                q.orm.execute(sa.text("INSERT INTO racks VALUES ('a1', 1)"))
        except sa.exc.IntegrityError:
            pass

    with pytest.raises((bmdb.DatabaseError, sa.exc.PendingRollbackError), match="racks_pkey"):
        session.transact(swallow, engine=engine)
    assert sql.execute("SELECT FROM machines").fetchall() == []
    assert set(backends(sql)) == {"idle"}


def test_a_conflict_swallowed_in_a_flush_is_run_again(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    sql.execute("INSERT INTO racks VALUES ('a1', 1)")
    runs: list[int] = []

    def grow(q: Any) -> None:
        runs.append(1)
        rack = q.orm.get_one(Rack, "a1")
        if len(runs) == 1:
            sql.execute("UPDATE racks SET height = height + 1")
        rack.height += 1000
        with contextlib.suppress(sa.exc.DBAPIError):
            q.orm.flush()

    session.transact(grow, engine=engine)
    assert len(runs) == 2
    assert racks(sql) == [("a1", 1002)]


@pytest.mark.parametrize("noticed", [True, False])
def test_a_connection_that_breaks_is_replaced_and_the_callback_run_again(
    session: bmdb.Session, engine: Any, sql: Sql, noticed: bool
) -> None:
    runs: list[int] = []

    def cut_off(q: Any) -> None:
        runs.append(1)
        q.orm.add(Rack(name="a1"))
        q.orm.flush()
        if len(runs) == 1:
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [q.connection.info.backend_pid])
            if not noticed:
                return
        q.orm.execute(sa.text("UPDATE racks SET height = 7"))

    session.transact(cut_off, engine=engine)
    assert len(runs) == 2
    assert racks(sql) == [("a1", 7)]
    assert set(backends(sql)) == {"idle"}


@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "REPEATABLE READ"}])
def test_what_the_engine_is_set_to_does_not_matter_and_stays(
    session: bmdb.Session, engine: Any, options: dict[str, str]
) -> None:
    own = engine.execution_options(**options)

    def level(q: Any) -> Any:
        return q.fetch_value("SHOW transaction_isolation")

    with own.connect() as connection:
        before = connection.execute(sa.text("SHOW transaction_isolation")).scalar()
    assert session.transact(level, engine=own) == "serializable"
    assert session.transact(level, engine=own, isolation="read committed") == "read committed"
    with own.connect() as connection:
        assert connection.execute(sa.text("SHOW transaction_isolation")).scalar() == before


def test_the_pool_serves_on(session: bmdb.Session, engine: Any, sql: Sql) -> None:
    def fail(q: Any) -> None:
        q.execute("SELECT 1 / 0")

    for _ in range(20):
        with pytest.raises(bmdb.DatabaseError):
            session.transact(fail, engine=engine)
    assert engine.pool.checkedout() == 0
    assert len(backends(sql)) == 1


def test_refusals(session: bmdb.Session, engine: Any, empty_database: str, database: str) -> None:
    def never(q: Any) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="engine must be an"):
        session.transact(never, engine=database)  # type: ignore[call-overload]
    with driver("sqlalchemy", empty_database) as elsewhere:
        with pytest.raises(bmdb.ConfigError, match="nothing would fence it"):
            session.transact(never, **elsewhere)
        assert elsewhere["engine"].pool.checkedout() == 0
    with driver("psycopg", database) as given:
        with pytest.raises(TypeError, match="not both"):
            session.transact(never, engine=engine, **given)


def test_q_orm_is_no_use_after_its_callback(session: bmdb.Session, engine: Any) -> None:
    kept: list[Any] = []

    def keep(q: Any) -> None:
        kept.append(q)

    session.transact(keep, engine=engine)
    with pytest.raises(bmdb.WorkStateError):
        _ = kept[0].orm


def test_no_connection_to_be_had(session: bmdb.Session) -> None:
    def never(q: Any) -> None:
        raise AssertionError

    unreachable = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(bmdb.ConnectionFailedError):
        session.transact(never, engine=unreachable)
