"""Rows of tables: what a live panel knows them by, and what the keyboard goes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg

import bmdb
from bmdb.web.texts import named
from tests.web.conftest import Answer, Get

MakeMachines = Callable[[int], list[UUID]]
Sql = psycopg.Connection[Any]


def ids(answer: Answer, name: str) -> list[str]:
    """The ids of the rows of a panel: each has one, and no two have the same."""
    assert (answer.status, answer.problems) == (200, {})
    rows = [row for body in answer.panel(name).all("tbody") for row in body.all("tr")]
    found = [row.attributes["id"] for row in rows]
    assert found and len(set(found)) == len(found) and not any(set(name) & set(" \t\n") for name in found)
    return found


def _failed(sql: Sql, machine: UUID, session: UUID | None, process: str, cause: str, ago: int) -> None:
    sql.execute(
        "INSERT INTO work_history VALUES (%s, %s, 'Failed', now() - make_interval(secs => %s), %s, %s, 'test', 3)",
        [machine, process, ago, cause, session],
    )


async def test_events_keep_their_ids_when_others_come_before_them(get: Get, sql: Sql, machines: MakeMachines) -> None:
    (machine,), session = machines(1), uuid4()
    for path in (f"/machines/{machine}", f"/sessions/{session}"):
        sql.execute("DELETE FROM work_history")
        with sql.transaction():
            # Of one moment, which is that of the transaction.
            for process in ("B b", "D"):
                _failed(sql, machine, session, process, "x", 30)
            _failed(sql, machine, session, "E", "x", 60)
        before = ids(await get(path), "history")
        sql.execute(
            "INSERT INTO work_history SELECT machine_id, 'A', event, \"timestamp\", failed_cause, session_id,"
            " component, token FROM work_history WHERE process = 'D'"
        )
        _failed(sql, machine, session, "E", "x", 0)
        later = ids(await get(path), "history")
        assert [name for name in later if name in before] == before, path
        assert len(later) == 5


async def test_causes_keep_their_ids_when_their_order_changes(get: Get, sql: Sql) -> None:
    for cause, times in (("one", 2), ("two\n" + "x" * 200, 1)):
        for _ in range(times):
            _failed(sql, uuid4(), None, "P", cause, 30)
    before = ids(await get("/processes/P"), "causes")
    for _ in range(3):
        _failed(sql, uuid4(), None, "P", "two\n" + "x" * 200, 20)
    assert ids(await get("/processes/P"), "causes") == before[::-1]


async def test_processes_and_sessions_keep_their_ids_when_others_come(
    get: Get, connection: bmdb.Connection, session: bmdb.Session
) -> None:
    connection.register(bmdb.Process("M"), bmdb.Process("Z <z>"))
    before = ids(await get("/processes"), "list")
    assert ids(await get("/sessions"), "list") == [f"session-{session.uuid}"]
    connection.register(bmdb.Process("A"))
    assert ids(await get("/processes"), "list")[1:] == before


async def test_backoffs_keep_their_ids_when_another_is_longer(
    get: Get, session: bmdb.Session, machines: MakeMachines
) -> None:
    (machine,) = machines(1)
    session.work("P", lambda q: [machine]).fail("x" * 200, bmdb.Backoff(60))
    before = ids(await get(f"/machines/{machine}"), "backoffs")
    session.work("Q", lambda q: [machine]).fail("y" * 200, bmdb.Backoff(600))
    assert ids(await get(f"/machines/{machine}"), "backoffs")[1:] == before


async def test_the_keyboard_goes_through_every_table_that_leads_on(
    get: Get, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
) -> None:
    one, two = machines(2)
    connection.register(bmdb.Process("P"))
    for machine in (one, two):
        session.work("P", lambda q, machine=machine: [machine]).fail("x", bmdb.Backoff(60))
    with session.work("Q", lambda q: [one]) as work:
        for path, panels in {
            "/": {"backlog", "leases", "backoffs", "ends", "sessions"},
            "/machines": {"list", "tags"},
            f"/machines/{one}": {"work", "backoffs", "history"},
            "/sessions": {"list"},
            f"/sessions/{session.uuid}": {"leases", "history"},
            "/processes": {"list"},
            "/processes/P": {"causes"},
            "/tags": {"list"},
        }.items():
            answer = await get(path)
            assert (answer.status, answer.problems) == (200, {})
            tables = {
                section.attributes["id"].removeprefix("panel-"): table
                for section in answer.page.all("section")
                for table in section.all("table")
                if table.links
            }
            assert tables.keys() == panels, path
            assert [name for name, table in tables.items() if "data-rows" not in table.attributes] == [], path
        work.finish()


def test_rows_that_are_alike_are_counted() -> None:
    first, second, third = named([1j, 1j, 2j], "number", "real", "imag")
    assert second[0] == f"{first[0]}-2" and third[0] not in (first[0], second[0])
    assert [row for _, row in (first, second, third)] == [1j, 1j, 2j]
