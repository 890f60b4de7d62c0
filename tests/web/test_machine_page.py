"""One machine: its tags by type, its work, what keeps whom off it, and its history to the last event."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from bmdb.web.reading import Problem, Reading
from tests.web.conftest import Answer, Get
from tests.web.reader import Element

MakeMachines = Callable[[int], list[UUID]]
Sql = psycopg.Connection[Any]
HOSTILE = "<script>alert(1)</script> \x1b[31mred \u202egpj.exe {{ 7 * 7 }}"
SHOWN = "<script>alert(1)</script> \\x1b[31mred \\u202egpj.exe {{ 7 * 7 }}"


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    return machines(1)[0]


def _values(panel: Element) -> dict[str, Element]:
    names = [name.text for name in panel.all("dt")]
    return dict(zip(names, panel.all("dd"), strict=True))


async def test_values_are_shown_by_their_types(get: Get, sql: Sql, machine: UUID) -> None:
    sql.execute(
        'CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines, "na""me <b>" text, nothing text,'
        " empty text, at timestamptz, never timestamptz, warranty interval, few bytea, many bytea, facts jsonb,"
        " raw json, ok boolean, units int[], price numeric)"
    )
    sql.execute(
        "INSERT INTO machine_rack VALUES (%s, %s, NULL, '', now() - interval '90 s', 'infinity', '1 day 02:00',"
        " '\\x00ff', decode(repeat('4142', 5000), 'hex'), %s, '{\"b\":1.10,  \"b\":2}', true, '{1,2}', 1.100)",
        [machine, HOSTILE, '{"power": {"feed": "a", "watts": 1.10, "of": ["x", "y"]}, "more": "' + "z" * 80 + '"}'],
    )
    values = _values((await get(f"/machines/{machine}")).panel("tags"))
    assert values['na"me <b> text'].text == SHOWN
    assert values["nothing text"].text == "NULL"
    assert values["empty text"].text == "empty"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:.]+ UTC, 1m 3\ds ago", values["at timestamp with time zone"].text)
    assert values["never timestamp with time zone"].text == "infinity"
    assert values["warranty interval"].text == "1 day 02:00:00 (1d 2h)"
    assert values["few bytea"].text == "00ff 2 bytes"
    many = values["many bytea"].one("details")
    assert many.one("summary").text == f"{'4142' * 8}… 10,000 bytes"
    assert many.one("pre").text.startswith("0000 41 42 41 42 41 42 41 42 41 42 41 42 41 42 41 42 ABABABABABABABAB 0010")
    assert many.one("p").text == "Only the beginning is shown."
    facts = values["facts jsonb"].one("details")
    assert '"watts": 1.10' in facts.one("pre").text
    assert values["raw json"].text == '{"b":1.10, "b":2}'
    assert values["ok boolean"].text == "true"
    assert values["units integer[]"].text == "{1,2}"
    assert values["price numeric"].text == "1.100"


async def test_a_tag_that_cannot_be_read_costs_only_itself(get: Get, sql: Sql, machine: UUID) -> None:
    sql.execute("INSERT INTO machine_provided VALUES (%s, 'Equinix', 'srv-1')", [machine])
    sql.execute("CREATE TABLE machine_busy (machine_id uuid PRIMARY KEY REFERENCES machines)")
    sql.execute("INSERT INTO machine_busy VALUES (%s)", [machine])
    assert (await get(f"/machines/{machine}")).panel("tags").one("p", class_="none").text == "It has no fields."
    with sql.transaction():
        sql.execute("LOCK TABLE machine_busy")
        page = await get(f"/machines/{machine}")
    assert page.problems == {"tags": "late: a statement took longer than 1 s and was ended"}
    assert _values(page.panel("tags"))["provider_id character varying(128)"].text == "srv-1"


async def test_leases_backoffs_holds_and_losses_are_shown(
    get: Get, sql: Sql, connection: bmdb.Connection, session: bmdb.Session, machine: UUID
) -> None:
    session.work("Check", lambda q: [machine]).fail(HOSTILE, bmdb.Backoff(600))
    session.work("Past", lambda q: [machine]).fail("x" * 8192, bmdb.Backoff(90))
    sql.execute("UPDATE work_backoff SET until = now() - interval '5 s' WHERE process = 'Past'")
    session.work("Build", lambda q: [machine])
    connection.hold(machine, "Check", owner="ada", reason=HOSTILE)
    sql.execute("INSERT INTO work_loss VALUES (%s, 'Build', 2, now() - interval '1 min', NULL)", [machine])
    page = await get(f"/machines/{machine}")
    assert (page.status, page.problems) == (200, {})
    (lease,) = page.panel("work").rows
    assert lease[0] == "Build" and lease[2] == str(session.uuid) and lease[5] == "1"
    assert re.fullmatch(r"live, for \d(\.\d)?s without a heartbeat", lease[3])
    check, past = page.panel("backoffs").rows
    assert check[:2] == ["Check", "active"] and check[3:] == ["10m", SHOWN]
    assert past[:4] == ["Past", "passed", past[2], "1m 30s"] and past[2].endswith("ago")
    assert len(page.panel("backoffs").one("pre").text) == 8192
    holds = [paragraph.text for paragraph in page.panel("holds").all("p", class_="") or page.panel("holds").all("p")]
    assert any(text.startswith("Held for Check by ada since") and text.endswith(SHOWN) for text in holds)
    assert any(text.startswith("2 lost holders of Build in a row, the last 1m") for text in holds)
    assert "<script>alert" not in page.html and "\u202e" not in page.html and "\x1b" not in page.html


async def test_every_process_says_why(
    get: Get, connection: bmdb.Connection, session: bmdb.Session, sql: Sql, machine: UUID
) -> None:
    odd = "Odd/../<b>?x=1&#%2f"
    wanted = bmdb.Process(odd, eligible=bmdb.eligible(lacking=["provided"]))
    held = bmdb.Process("Held", eligible=bmdb.eligible(lacking=["provided"]))
    connection.register(wanted, held)
    for process in (wanted, held):
        for work in session.work_many(process, limit=1):
            work.cancel()
    connection.hold(machine, "Held", owner="ada", reason="its disk is noisy")
    page = await get(f"/machines/{machine}")
    reasons = [reason.text for reason in page.panel("why").all("li")]
    assert len(reasons) == 2
    assert reasons[0].startswith("Held not now") and "ada" in reasons[0] and "its disk is noisy" in reasons[0]
    assert reasons[1].startswith(f"{odd} may be leased now")
    for name, leasable in (("Held", False), (odd, True)):
        detail = await get(page.panel("why").links[name])
        assert (detail.status, detail.problems) == (200, {})
        assert detail.page.one("h1").text == f"{name} on machine {machine}"
        told = connection.explain(machine, name)
        assert told.leasable is leasable
        shown = [clause.one("span", class_="kind").text for clause in detail.panel("explanation").all("li")]
        assert shown == [clause.kind for clause in told.clauses]


def _events(sql: Sql, machine: UUID, count: int, moments: int) -> None:
    sql.execute(
        "INSERT INTO work_history (machine_id, process, event, timestamp, token)"
        " SELECT %s, 'Check', CASE mod(n, 2) WHEN 1 THEN 'Started' ELSE 'Failed' END,"
        " now() - interval '1 h' + mod(n, %s) * interval '1 s', n FROM generate_series(1, %s) AS n",
        [machine, moments, count],
    )


@pytest.mark.parametrize("moments", [1, 7, 1000])
async def test_history_is_paged_without_a_gap(get: Get, sql: Sql, machine: UUID, moments: int) -> None:
    """Also where more events than a page holds have the same time."""
    _events(sql, machine, 170, moments)
    page, tokens = await get(f"/machines/{machine}"), []
    for _ in range(4):
        tokens.append([int(row[3]) for row in page.panel("history").rows])
        if "Older events" not in page.panel("history").links:
            break
        page = await get(page.panel("history").links["Older events"])
    assert [len(shown) for shown in tokens] == [50, 50, 50, 20]
    rows = sql.execute('SELECT token FROM work_history ORDER BY "timestamp" DESC, token DESC')
    assert [token for shown in tokens for token in shown] == [token for (token,) in rows]
    assert page.panel("history").links["Newest events"] == f"/machines/{machine}"
    assert "hx-get" not in page.panel("history").attributes


async def test_history_tells_holder_attempt_and_duration(
    get: Get, sql: Sql, session: bmdb.Session, machine: UUID
) -> None:
    session.work("Check", lambda q: [machine]).finish()
    session.work("Check", lambda q: [machine]).fail("again\nand again", bmdb.Backoff(1))
    sql.execute("DELETE FROM work_backoff")
    session.work("Check", lambda q: [machine])
    sql.execute(
        "UPDATE work_history SET timestamp = timestamp - interval '2 min' WHERE event = 'Started' AND token = 2"
    )
    sql.execute("UPDATE work_history SET timestamp = timestamp - interval '1 h' WHERE token = 1")
    history = (await get(f"/machines/{machine}")).panel("history")
    lines = [(row[1], row[3], row[4], row[6]) for row in history.rows]
    assert lines == [
        ("Started", "3", "2", "test"),
        ("Failed", "2", "1", "test"),
        ("Started", "2", "1", "test"),
        ("Finished", "1", "1", "test"),
        ("Started", "1", "1", "test"),
    ]
    assert [row[5] for row in history.rows][0::2] == ["", "", ""]
    assert history.rows[1][5] == "2m"
    assert history.one("pre").text == "again and again"
    assert history.links["test"] in {"/", f"/sessions/{session.uuid}"}


async def test_an_attempt_is_not_guessed_where_history_is_pruned(get: Get, sql: Sql, machine: UUID) -> None:
    for process, token, event in (
        ("First", 1, "Started"), ("First", 1, "Failed"), ("First", 2, "Started"),
        ("Pruned", 41, "Started"), ("Pruned", 41, "Finished"), ("Pruned", 42, "Started"),
        ("Unknown", 7, "Started"), ("Unknown", 8, "Started"),
    ):  # fmt: skip
        sql.execute(
            "INSERT INTO work_history (machine_id, process, event, timestamp, token)"
            " VALUES (%s, %s, %s, clock_timestamp(), %s)",
            [machine, process, event, token],
        )
    rows = (await get(f"/machines/{machine}")).panel("history").rows
    assert [(row[2], row[3], row[1], row[4]) for row in reversed(rows)] == [
        ("First", "1", "Started", "1"),
        ("First", "1", "Failed", "1"),
        ("First", "2", "Started", "2"),
        ("Pruned", "41", "Started", ""),
        ("Pruned", "41", "Finished", ""),
        ("Pruned", "42", "Started", "1"),
        ("Unknown", "7", "Started", ""),
        ("Unknown", "8", "Started", ""),
    ]


async def test_a_panel_alone_does_not_ask_what_it_does_not_show(
    get: Get, sql: Sql, machine: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    attempt = Reading.attempt

    async def noted(reading: Reading, name: str, ask: Callable[..., Any]) -> tuple[Any, Problem | None]:
        asked.append(name)
        return await attempt(reading, name, ask)

    monkeypatch.setattr(Reading, "attempt", noted)
    assert (await get(f"/machines/{machine}", panel="work")).status == 200
    assert "machine" not in asked
    asked.clear()
    assert (await get(f"/machines/{machine}")).status == 200
    assert "machine" in asked


async def test_history_outlives_the_machine(get: Get, sql: Sql, machine: UUID) -> None:
    _events(sql, machine, 3, 3)
    sql.execute("DELETE FROM machines")
    page = await get(f"/machines/{machine}")
    assert (page.status, page.problems) == (404, {})
    assert page.page.one("p", role="status", class_="problem").text.startswith("There is no such machine now.")
    assert len(page.panel("history").rows) == 3
    assert (await get("/machines/no-id")).status == 404


@pytest.mark.parametrize(
    "place",
    [
        "nowhere", "2026-01-01~0", "2026-01-01T00:00:00+00:00~-1", "2026-01-01T00:00:00+00:00~x",
        "0001-01-01T00:00:00+23:59~0", "9999-12-31T23:59:59-23:59~0",
    ],
)  # fmt: skip
async def test_history_begins_nowhere_else(get: Get, machine: UUID, place: str) -> None:
    answer = await get(f"/machines/{machine}", before=place)
    assert (answer.status, answer.page.one(class_="problem").text) == (
        400,
        "history does not begin there: the place cannot be read",
    )


async def test_a_process_that_none_can_be_is_not_explained(get: Get, machine: UUID) -> None:
    for name in ("%00", "a%00b"):
        answer = await get(f"/machines/{machine}/explain/{name}")
        assert (answer.status, answer.page.one(class_="problem").text) == (
            404,
            "No process has that name: a name has no NUL in it.",
        )


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
async def test_history_may_begin_at_the_ends_of_the_calendar(get: Get, machine: UUID, at: str) -> None:
    answer = await get(f"/machines/{machine}", before=f"{at}~0")
    assert (answer.status, answer.problems) == (200, {})


async def test_pages_are_fit_for_everybody(get: Get, sql: Sql, session: bmdb.Session, machine: UUID) -> None:
    """One heading of the page, headers with a scope, labels for what is filled in, ids that are ids, nothing inline."""
    session.work("Check", lambda q: [machine]).fail("no answer\nat all", bmdb.Backoff(600))
    sql.execute("INSERT INTO machine_provided VALUES (%s, 'Equinix', 'srv-1')", [machine])
    for path in ("/", "/machines", f"/machines/{machine}", f"/machines/{machine}/explain/Check", "/tags"):
        answer = await get(path)
        assert answer.problems == {}, path
        _fit(answer)


def _fit(answer: Answer) -> None:
    page = answer.page
    assert len(page.all("h1")) == 1
    assert page.one("main").attributes["id"] == "main"
    assert [cell for cell in page.all("th") if cell.attributes.get("scope") not in {"col", "row"}] == []
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    labelled = {label.attributes["for"] for label in page.all("label")}
    inputs = [field for name in ("input", "select") for field in page.all(name)]
    assert {field.attributes["id"] for field in inputs if field.attributes.get("type") != "hidden"} <= labelled
    for element in page.all():
        assert "style" not in element.attributes and element.name != "style"
        assert not any(name.startswith("on") for name in element.attributes)
        if element.name == "script":
            assert element.text == "" and "/static/" in element.attributes["src"]
        if "aria-labelledby" in element.attributes:
            assert element.attributes["aria-labelledby"] in ids
