# Generated from tests/behaviour/async_/test_migrations.py by tools/generate_sync.py: do not edit.
"""The schema: brought up, by one or by many, taken down where that is allowed, never out of step with the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb

Sql = psycopg.Connection[Any]
LATEST = 6

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def tables(sql: Sql) -> set[str]:
    return {name for (name,) in sql.execute(TABLES)}


def versions(sql: Sql) -> list[int]:
    return [version for (version,) in sql.execute("SELECT version FROM bmdb_schema ORDER BY version")]


def pretend(sql: Sql, version: int) -> None:
    """Record that a later library has migrated this database."""
    sql.execute("INSERT INTO bmdb_schema (version, name) VALUES (%s, 'from the future')", [version])


@pytest.fixture
def empty(empty_database: str) -> Iterator[Sql]:
    """A look at the database without tables."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        yield connection


class TestUp:
    def test_from_nothing_to_the_latest(self, empty_database: str, empty: Sql) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            assert connection.schema_version() == 0
            assert tables(empty) == set()
            assert connection.migrate() == LATEST
            assert connection.schema_version() == LATEST
        assert {"machines", "sessions", "work", "work_history", "work_backoff", "machine_provided"} <= tables(empty)
        assert versions(empty) == [*range(1, LATEST + 1)]

    def test_on_connecting(self, empty_database: str) -> None:
        with (
            bmdb.connect(empty_database, component="test", migrate=True) as connection,
            connection.start_session() as session,
        ):
            assert connection.schema_version() == LATEST
            assert session.transact(lambda q: q.count_machines()) == 0

    def test_again_changes_nothing(self, connection: bmdb.Connection, session: bmdb.Session, sql: Sql) -> None:
        machine = session.transact(lambda q: q.new_machine())
        before = tables(sql)
        assert connection.migrate() == LATEST
        assert connection.migrate() == LATEST
        assert tables(sql) == before
        assert versions(sql) == [*range(1, LATEST + 1)]
        assert session.transact(lambda q: q.fetch_value("SELECT machine_id FROM machines")) == machine.machine_id

    def test_step_by_step(self, empty_database: str, empty: Sql) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            assert connection.migrate(to=1) == 1
            assert "machines" in tables(empty) and "machine_provided" not in tables(empty)
            assert connection.migrate(to=1) == 1
            assert connection.migrate() == LATEST
            assert "machine_provided" in tables(empty)

    def test_one_that_fails_leaves_nothing_of_it(self, empty_database: str, empty: Sql) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            connection.migrate(to=1)
            empty.execute("CREATE TABLE machine_hardware_report (mine int)")
            before = tables(empty)
            with pytest.raises(
                bmdb.MigrationError, match=r"0002_tags up failed, and nothing was changed:.*already exists"
            ):
                connection.migrate()
            assert tables(empty) == before
            assert versions(empty) == [1]
            empty.execute("DROP TABLE machine_hardware_report")
            assert connection.migrate() == LATEST

    @pytest.mark.parametrize("to", [-1, LATEST + 1, 99])
    def test_there_are_no_other_versions(self, to: int, connection: bmdb.Connection, sql: Sql) -> None:
        with pytest.raises(bmdb.MigrationError, match=rf"no schema version {to}: choose 0 to {LATEST}"):
            connection.migrate(to=to)
        assert versions(sql) == [*range(1, LATEST + 1)]


class TestDown:
    def test_up_and_down_and_up_and_down_on_a_throw_away_server(self) -> None:
        with bmdb.connect("embedded:", component="test") as connection:
            with psycopg.connect(connection.conninfo, autocommit=True) as sql:
                for _ in range(2):
                    assert connection.migrate() == LATEST
                    assert connection.migrate() == LATEST
                    with connection.start_session() as session:
                        assert session.transact(lambda q: q.count_machines()) == 0
                        session.transact(lambda q: q.new_machine())
                    assert connection.migrate(to=0) == 0
                    assert connection.migrate(to=0) == 0
                    assert connection.schema_version() == 0
                    assert tables(sql) == {"bmdb_schema"}
                    with pytest.raises(bmdb.MigrationError, match=r"migrate\(\)"):
                        connection.start_session()

    @pytest.mark.parametrize("to", [0, 1])
    def test_refused_everywhere_else(
        self, to: int, connection: bmdb.Connection, session: bmdb.Session, sql: Sql
    ) -> None:
        session.transact(lambda q: q.new_machine())
        before = tables(sql)
        with pytest.raises(bmdb.MigrationError, match=rf"from version {LATEST} to {to} would drop data.*embedded:"):
            connection.migrate(to=to)
        assert tables(sql) == before
        assert connection.schema_version() == LATEST
        assert session.transact(lambda q: q.count_machines()) == 1


class TestVersions:
    def test_two_versions_ahead_is_refused_on_connecting(self, database: str, sql: Sql) -> None:
        pretend(sql, LATEST + 1)
        pretend(sql, LATEST + 2)
        for migrate in [False, True]:
            with pytest.raises(bmdb.MigrationError, match=rf"version {LATEST + 2}.*knows {LATEST}: upgrade pybmdb"):
                bmdb.connect(database, component="test", migrate=migrate)
        assert versions(sql) == [*range(1, LATEST + 3)]

    def test_two_versions_ahead_is_not_migrated(self, connection: bmdb.Connection, sql: Sql) -> None:
        """Somebody upgraded the fleet while this connection was open."""
        pretend(sql, LATEST + 2)
        with pytest.raises(bmdb.MigrationError, match="upgrade pybmdb"):
            connection.migrate()

    def test_one_version_ahead_is_a_rolling_upgrade(self, database: str, sql: Sql) -> None:
        pretend(sql, LATEST + 1)
        with bmdb.connect(database, component="test", migrate=True) as connection:
            assert connection.schema_version() == LATEST + 1
            assert connection.migrate() == LATEST + 1
            with connection.start_session() as session:
                assert session.transact(lambda q: q.count_machines()) == 0
        assert versions(sql) == [*range(1, LATEST + 2)]


class TestOlderSchema:
    """A library needs its own schema at least: workers are upgraded after the schema, or migrate it themselves."""

    def test_a_session_is_refused(self, empty_database: str) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            connection.migrate(to=2)
            with pytest.raises(bmdb.MigrationError, match=r"migrate\(\)"):
                connection.register(bmdb.Process("A", excludes=("B",)))
            connection.migrate(to=LATEST - 1)
            with pytest.raises(bmdb.MigrationError, match=rf"version {LATEST - 1}.*needs {LATEST}.*migrate=True"):
                connection.start_session()
            connection.migrate()
            with connection.start_session() as session:
                session.transact(lambda q: q.new_machine())

    def test_who_may_use_leases_may_use_what_came_later(self, empty_database: str, empty: Sql) -> None:
        """Workers of the version before, with few rights, run on when somebody migrates beside them."""
        role = f"bmdb_role_{uuid4().hex[:12]}"
        with bmdb.connect(empty_database, component="test") as connection:
            connection.migrate(to=2)
            empty.execute(f"CREATE ROLE {role} LOGIN")  # type: ignore[arg-type]
            try:
                empty.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")  # type: ignore[arg-type]
                connection.migrate()
                lowly = make_conninfo(empty_database, user=role)
                with (
                    bmdb.connect(lowly, component="lowly") as later,
                    later.start_session() as session,
                ):
                    machine = session.transact(lambda q: q.new_machine()).machine_id
                    process = bmdb.Process("A", excludes=("B",), quarantine_after=1)
                    session.work(process, lambda q: [machine]).finish()
                    assert not later.release_quarantine(machine, "A")
            finally:
                empty.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = %s", [role])
                empty.execute(f"DROP OWNED BY {role}")  # type: ignore[arg-type]
                empty.execute(f"DROP ROLE {role}")  # type: ignore[arg-type]


class TestWithoutSchema:
    """Connecting is allowed, so that migrate() can be called; whatever needs the tables says what to do."""

    def test_a_session_is_refused(self, empty_database: str, empty: Sql) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            with pytest.raises(bmdb.MigrationError, match=r"no bmdb schema.*migrate\(\).*migrate=True"):
                connection.start_session()
            assert tables(empty) == set()
            connection.migrate()
            connection.start_session().close()

    def test_looking_is_refused(self, empty_database: str) -> None:
        with bmdb.connect(empty_database, component="test") as connection:
            looks: list[Callable[[], object]] = [
                connection.statistics,
                connection.collect,
                lambda: connection.history_of(uuid4()),
                lambda: connection.session_info(uuid4()),
            ]
            for look in looks:
                with pytest.raises(bmdb.MigrationError, match=r"migrate\(\)"):
                    look()
