"""Tables that are written all the time stay small: renewals touch no index, and vacuum comes by number."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import bmdb
from bmdb import _core

Sql = psycopg.Connection[Any]

RENEW = dict(_core.queries())["session_renew"]
SESSIONS = 500
BEATS = 300


def updates(sql: Sql) -> tuple[int, int]:
    sql.execute("SELECT pg_stat_force_next_flush()")
    row = sql.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'").fetchone()
    assert row is not None
    return row[0], row[1]


def size(sql: Sql, relation: str) -> int:
    row = sql.execute("SELECT pg_relation_size(%s::regclass)", [relation]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("share", [1.0, 0.1], ids=["all in one statement", "a tenth in each"])
def test_every_renewal_stays_on_its_page(share: float, sql: Sql) -> None:
    """Without a vacuum, for hundreds of beats: pruning alone makes the room that the next versions need."""
    sql.execute("ALTER TABLE sessions SET (autovacuum_enabled = off)")
    ids = sql.execute(
        "INSERT INTO sessions SELECT gen_random_uuid(), 'worker', 'host.example.org, pid 12345, Python 3.13.1', now(),"
        " 60, now() + interval '1 hour' FROM generate_series(1, %s) RETURNING session_id",
        [SESSIONS],
    ).fetchall()
    before = size(sql, "sessions"), size(sql, "sessions_pkey")
    raw = psycopg.RawCursor(sql)
    part = int(SESSIONS * share)
    for _ in range(BEATS):
        for start in range(0, SESSIONS, part):
            raw.execute(RENEW, [[row[0] for row in ids[start : start + part]]])
    assert updates(sql) == (SESSIONS * BEATS, SESSIONS * BEATS)
    assert (size(sql, "sessions"), size(sql, "sessions_pkey")) == before


def test_a_snapshot_that_is_held_open_costs_nothing_afterwards(sql: Sql, database: str) -> None:
    """While it is open the old versions stay, and pages fill; then renewals are HOT again by themselves."""
    ids = sql.execute(
        "INSERT INTO sessions SELECT gen_random_uuid(), 'worker', '', now(), 60, now() + interval '1 hour'"
        " FROM generate_series(1, 100) RETURNING session_id"
    ).fetchall()
    raw = psycopg.RawCursor(sql)
    with psycopg.connect(database) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM sessions")
        for _ in range(20):
            raw.execute(RENEW, [[row[0] for row in ids]])
    sql.execute("VACUUM sessions")
    written, hot = updates(sql)
    assert hot < written
    for _ in range(20):
        raw.execute(RENEW, [[row[0] for row in ids]])
    after = updates(sql)
    assert after[0] - written == after[1] - hot == 2000


def test_vacuum_of_what_is_written_all_the_time_comes_by_number(connection: bmdb.Connection, sql: Sql) -> None:
    """A share of the rows would let the dead ones of a large fleet pile up for hours."""
    options = "SELECT relname, coalesce(reloptions, '{}') FROM pg_class WHERE relname = ANY(%s)"
    hot = ["sessions", "work", "work_token", "work_attention", "work_backoff", "work_loss", "machines"]
    stored = dict(sql.execute(options, [hot]).fetchall())
    assert sorted(stored) == sorted(hot)
    for name, given in stored.items():
        assert "autovacuum_vacuum_scale_factor=0" in given, name
    parts = [name for (name,) in sql.execute("SELECT partition::text FROM work_history_partitions()")]
    history = dict(sql.execute(options, [parts]).fetchall())
    assert sorted(history) == sorted(parts) and len(parts) == 5
    for name, given in history.items():
        assert {"autovacuum_vacuum_insert_scale_factor=0", "autovacuum_freeze_min_age=0"} <= set(given), name
    # Each event pays for each of these; the one on time is a few bytes for many pages.
    indexes = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'work_history'::regclass ORDER BY 1"
    assert [name for (name,) in sql.execute(indexes)] == [
        "work_history_machine_idx",
        "work_history_session_idx",
        "work_history_timestamp_idx",
    ]
