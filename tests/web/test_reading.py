"""Connections that look: what they refuse, and what they cost others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb.web import reading
from bmdb.web.settings import Settings


@pytest.fixture
def looking(database: str) -> Iterator[bmdb.Connection]:
    with bmdb.Connection._reading(database, component="looking", pool_size=2) as connection:
        yield connection


def test_nothing_is_written(looking: bmdb.Connection, sql: psycopg.Connection[Any]) -> None:
    for write in (
        lambda: looking._read(lambda q: q.new_machine()),
        lambda: looking._look(lambda q: q.new_machine()),
        lambda: looking.register(bmdb.Process("Check", excludes=["Build"])),
        lambda: looking.start_session(),
    ):
        with pytest.raises(bmdb.DatabaseError) as refused:
            write()
        assert refused.value.sqlstate == "25006"
    for table in ("machines", "sessions", "processes", "process_exclusion"):
        (rows,) = sql.execute(f"SELECT count(*) FROM {table}").fetchone() or ()  # type: ignore[arg-type]
        assert rows == 0, table


def test_a_look_locks_nobody_out(looking: bmdb.Connection) -> None:
    settings = {
        name: looking._read(lambda q, name=name: q.fetch_value(f"SHOW {name}"))
        for name in ("transaction_isolation", "transaction_read_only", "statement_timeout")
    }
    assert settings == {
        "transaction_isolation": "read committed",
        "transaction_read_only": "on",
        "statement_timeout": "1s",
    }


def test_what_takes_longer_than_a_second_is_ended_and_the_next_look_goes_on(looking: bmdb.Connection) -> None:
    for look in (looking._read, looking._look):
        with pytest.raises(bmdb.DatabaseError) as ended:
            look(lambda q: q.fetch("SELECT pg_sleep(5)"))
        assert ended.value.sqlstate == "57014"
    assert looking._read(lambda q: q.count_machines()) == 0


def test_what_operators_ask_may_be_asked(looking: bmdb.Connection, connection: bmdb.Connection) -> None:
    with connection.start_session() as session:
        machine = session.transact(lambda q: q.new_machine()).machine_id
        wanted = bmdb.Process("Check", eligible=bmdb.eligible(lacking=["provided"]))
        session.work(wanted).cancel()
    assert looking.explain(machine, "Check").leasable
    assert looking.backlog("Check") == 1
    assert [tag[0] for tag in looking.tags()][:2] == ["agent_heartbeat", "agent_started"]
    assert looking.tags_of([machine]) == {}


async def test_what_was_done_in_time_stays_when_another_part_of_the_panel_is_slow(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PANEL_SECONDS", 1.0)
    looks = reading.Reading(Settings(conninfo=database))

    async def part(connection: bmdb.AsyncConnection, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def parts(_: bmdb.AsyncConnection) -> list[tuple[float | None, reading.Problem | None]]:
        # It takes its time before its parts begin.
        await asyncio.sleep(0.2)
        return await asyncio.gather(
            *(looks.attempt("part", lambda connection, each=each: part(connection, each)) for each in (0.0, 30.0))
        )

    await looks.connection()
    panel = await looks.panel("parts", parts)
    await looks.close()
    assert panel.problem is None and panel.value is not None
    done, slow = panel.value
    assert done == (0.0, None)
    assert slow == (None, reading.Problem("late", "there was no answer within 0.5 s"))
    alone = await looks.panel("part", lambda connection: part(connection, 30.0))
    assert alone.problem == reading.Problem("late", "there was no answer within 1.0 s")
    await looks.close()
