# Generated from tests/behaviour/async_/test_history.py by tools/generate_sync.py: do not edit.
"""History by months: partitions are there before they are needed, old months go at once, queries do not notice."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import MakeMachines, MakeRole

import bmdb

Sql = psycopg.Connection[Any]
PARTITIONS = "SELECT partition::text, lower, upper FROM work_history_partitions() ORDER BY lower NULLS FIRST, upper"
OLD = (
    "INSERT INTO work_history (machine_id, process, event, timestamp) SELECT %s, 'A', 'Started', now() - interval '{}'"
)


def counts(sql: Sql) -> dict[str, int]:
    rows = sql.execute("SELECT tableoid::regclass::text, count(*) FROM work_history GROUP BY 1").fetchall()
    return dict(rows)


def one(sql: Sql, query: str) -> Any:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_the_months_to_come_are_there_without_a_gap(sql: Sql) -> None:
    rows = sql.execute(PARTITIONS).fetchall()
    months = [(lower, upper) for _, lower, upper in rows if upper is not None]
    assert len(months) == 4 and len(rows) == 5
    assert one(sql, "SELECT date_trunc('month', now(), 'UTC')") == months[0][0]
    assert all(upper == lower for (_, upper), (lower, _) in pairwise(months))


def test_collection_makes_what_is_missing_and_moves_what_came_meanwhile(
    database: str, sql: Sql, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    current = one(sql, "SELECT to_char(now() AT TIME ZONE 'UTC', '\"work_history_\"YYYY_MM')")
    sql.execute(f"DROP TABLE {current}".encode())
    with (
        bmdb.connect(database, component="test") as connection,
        connection.start_session() as session,
    ):
        session.work("A", lambda q: [machine]).finish()
        assert counts(sql) == {"work_history_other": 2}
        connection.collect()
        assert counts(sql) == {current: 2}
        assert [event.event for event in connection.history_of(machine)] == ["Started", "Finished"]


def test_two_that_look_ahead_at_once_do_it_once(database: str, sql: Sql) -> None:
    newest = one(sql, "SELECT partition::text FROM work_history_partitions() ORDER BY upper DESC NULLS LAST LIMIT 1")
    sql.execute(f"DROP TABLE {newest}".encode())
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        assert first.execute("SELECT work_history_ahead()").fetchone() == (1,)
        assert second.execute("SELECT work_history_ahead()").fetchone() == (0,)
    assert one(sql, "SELECT work_history_ahead()") == 0


def test_nobody_waits_for_somebody_who_reads_history(database: str, sql: Sql) -> None:
    newest = one(sql, "SELECT partition::text FROM work_history_partitions() ORDER BY upper DESC NULLS LAST LIMIT 1")
    sql.execute(f"DROP TABLE {newest}".encode())
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM work_history")
        assert one(sql, "SELECT work_history_ahead()") == 0
    assert one(sql, "SELECT work_history_ahead()") == 1


def test_pruning_removes_what_is_older_and_only_that(
    connection: bmdb.Connection, sql: Sql, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    for days in (200, 100, 91, 89, 1):
        sql.execute(OLD.format(f"{days} days").encode(), [machine])
    pruned = connection.prune_history(timedelta(days=90), limit=2)
    assert (pruned.rows, pruned.partitions) == (2, [])
    assert connection.prune_history(timedelta(days=90), limit=2).rows == 1
    assert connection.prune_history(timedelta(days=90)).rows == 0
    assert len(connection.history_of(machine)) == 2
    for wrong in (timedelta(minutes=59), timedelta(0), timedelta(days=-1)):
        with pytest.raises(ValueError, match="an hour"):
            connection.prune_history(wrong)
    with pytest.raises(ValueError, match="limit"):
        connection.prune_history(timedelta(days=1), limit=0)


@pytest.fixture
def old_month(sql: Sql) -> str:
    """A partition for a month of last year."""
    sql.execute(
        "CREATE TABLE work_history_old PARTITION OF work_history"
        " FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2025-02-01 00:00+00')"
    )
    return "work_history_old"


def fill(sql: Sql, machine: UUID) -> None:
    sql.execute(
        "INSERT INTO work_history (machine_id, process, event, timestamp)"
        " SELECT %s, 'A', 'Started', '2025-01-15 12:00+00' FROM generate_series(1, 50)",
        [machine],
    )


def test_an_old_month_goes_as_a_whole(
    connection: bmdb.Connection, sql: Sql, machines: MakeMachines, old_month: str
) -> None:
    (machine,) = machines(1)
    fill(sql, machine)
    assert connection.prune_history(timedelta(days=90), limit=10) == (50, [old_month])
    assert one(sql, "SELECT to_regclass('work_history_old')") is None
    assert connection.prune_history(timedelta(days=90)) == (0, [])


def test_an_old_month_that_somebody_reads_goes_row_by_row(
    connection: bmdb.Connection, database: str, sql: Sql, machines: MakeMachines, old_month: str
) -> None:
    (machine,) = machines(1)
    fill(sql, machine)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM work_history")
        assert connection.prune_history(timedelta(days=90), limit=40) == (40, [])
        assert connection.prune_history(timedelta(days=90), limit=40) == (10, [])
    assert connection.prune_history(timedelta(days=90)) == (0, [old_month])


def test_a_role_that_does_not_own_history_prunes_row_by_row(
    role: MakeRole, sql: Sql, machines: MakeMachines, old_month: str
) -> None:
    (machine,) = machines(1)
    fill(sql, machine)
    with bmdb.connect(role(), component="test") as connection:
        assert connection.prune_history(timedelta(days=90)) == (50, [])
        assert counts(sql) == {}


def test_a_history_from_before_becomes_a_partition(empty_database: str) -> None:
    with bmdb.connect(empty_database, component="test") as connection:
        connection.migrate(4)
        with psycopg.connect(empty_database, autocommit=True) as sql:
            [machine] = one(sql, "INSERT INTO machines DEFAULT VALUES RETURNING ARRAY[machine_id]")
            sql.execute(OLD.format("2 years").encode(), [machine])
            sql.execute(OLD.format("1 minute").encode(), [machine])
            sql.execute("CREATE ROLE bmdb_history_reader; GRANT SELECT ON work_history TO bmdb_history_reader")
            try:
                connection.migrate()
                assert counts(sql) == {"work_history_before": 2}
                assert len(connection.history_of(machine)) == 2
                assert one(sql, "SELECT has_table_privilege('bmdb_history_reader', 'work_history', 'SELECT')")
                assert connection.prune_history(timedelta(days=365)) == (1, [])
                assert one(sql, "SELECT work_history_ahead()") == 0
            finally:
                sql.execute("DROP OWNED BY bmdb_history_reader; DROP ROLE bmdb_history_reader")


@pytest.mark.parametrize("rows", [0, 1])
def test_views_of_history_read_the_new_table(empty_database: str, rows: int) -> None:
    with bmdb.connect(empty_database, component="test") as connection:
        connection.migrate(4)
        with psycopg.connect(empty_database, autocommit=True) as sql:
            [machine] = one(sql, "INSERT INTO machines DEFAULT VALUES RETURNING ARRAY[machine_id]")
            sql.execute(
                'CREATE VIEW "my events" WITH (security_invoker = true) AS SELECT h.event FROM work_history AS h;'
                ' CREATE VIEW above AS SELECT event FROM "my events"'
            )
            for _ in range(rows):
                sql.execute(OLD.format("1 minute").encode(), [machine])
            connection.migrate()
            sql.execute(OLD.format("-40 days").encode(), [machine])
            assert one(sql, "SELECT count(*) FROM above") == rows + 1
            assert one(sql, "SELECT reloptions FROM pg_class WHERE relname = 'my events'") == ["security_invoker=true"]


def test_a_materialized_view_of_history_is_named_before_anything_is_done(empty_database: str) -> None:
    with bmdb.connect(empty_database, component="test") as connection:
        connection.migrate(4)
        with psycopg.connect(empty_database, autocommit=True) as sql:
            sql.execute("CREATE MATERIALIZED VIEW mine AS SELECT event FROM work_history")
            with pytest.raises(bmdb.MigrationError, match=r"public\.mine reads work_history: drop it"):
                connection.migrate()
            assert connection.schema_version() == 4
            sql.execute("DROP MATERIALIZED VIEW mine")
            assert connection.migrate() == 6


def test_one_month_goes_at_a_time(
    connection: bmdb.Connection, sql: Sql, machines: MakeMachines, old_month: str
) -> None:
    """Dropping one locks history until the transaction ends, so it is the last that is done in it."""
    sql.execute(
        "CREATE TABLE work_history_older PARTITION OF work_history"
        " FOR VALUES FROM ('2024-12-01 00:00+00') TO ('2025-01-01 00:00+00')"
    )
    (machine,) = machines(1)
    sql.execute(OLD.format("100 days").encode(), [machine])
    pruned = [connection.prune_history(timedelta(days=90)) for _ in range(4)]
    assert pruned == [(1, ["work_history_older"]), (0, [old_month]), (0, []), (0, [])]
    assert connection.prune_history(timedelta.max) == (0, [])


@pytest.mark.direct("PgBouncer 1.18 passes no options on")
def test_a_schema_with_an_odd_name(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as sql:
        sql.execute('CREATE SCHEMA "a%b C"')
    odd = make_conninfo(empty_database, options='-c search_path="a%b\\ C"')
    with bmdb.connect(odd, component="test", migrate=True) as connection:
        assert connection.schema_version() == 6
        assert connection.prune_history(timedelta(days=90)) == (0, [])
