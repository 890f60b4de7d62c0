"""The list of machines: what each filter leaves, pages that follow a key, and tags by reflection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from starlette.datastructures import QueryParams

import bmdb
from bmdb.web.catalogue import Catalogue
from bmdb.web.filters import Filter
from tests.web.conftest import Answer, Get

MakeMachines = Callable[[int], list[UUID]]
Sql = psycopg.Connection[Any]
ODD = "o\"dd'; <b>tag</b>"


def listed(answer: Answer) -> list[str]:
    """The ids on the page, in its order."""
    assert (answer.status, answer.problems) == (200, {})
    return [row[0] for row in answer.panel("list").rows]


@pytest.fixture
def fleet(sql: Sql) -> dict[str, str]:
    """Machines by what they have, each made a minute after the one before."""
    names = ["a", "b", "c", "d", "e", "f"]
    ids = {name: f"{name}0000000-0000-4000-8000-00000000000{n}" for n, name in enumerate(names)}
    for n, machine in enumerate(reversed(ids.values())):
        sql.execute("INSERT INTO machines VALUES (%s, now() - interval '1 h' + %s * interval '1 min')", [machine, n])
    for name, provider_id in (("a", "srv-1"), ("b", "srv-10"), ("c", "other%")):
        sql.execute("INSERT INTO machine_provided VALUES (%s, 'Equinix', %s)", [ids[name], provider_id])
    quoted = ODD.replace('"', '""')
    sql.execute(f'CREATE TABLE "machine_{quoted}" (machine_id uuid PRIMARY KEY REFERENCES machines)')
    sql.execute(f'INSERT INTO "machine_{quoted}" VALUES (%s), (%s)', [ids["b"], ids["d"]])
    sql.execute("INSERT INTO sessions VALUES (gen_random_uuid(), 'w', '', now(), 60, now() + interval '1 h')")
    for name, process in (("a", "Build"), ("b", "Check")):
        sql.execute(
            "INSERT INTO work (machine_id, process, session_id, token) SELECT %s, %s, session_id, 1 FROM sessions",
            [ids[name], process],
        )
    sql.execute("INSERT INTO work_backoff VALUES (%s, 'Build', now() + interval '1 h', 'no answer')", [ids["c"]])
    sql.execute("INSERT INTO work_backoff VALUES (%s, 'Build', now() - interval '1 h', 'no answer')", [ids["d"]])
    sql.execute("INSERT INTO work_hold VALUES (%s, '', 'ada', 'disk')", [ids["d"]])
    sql.execute("INSERT INTO work_hold VALUES (%s, 'Check', 'ada', 'disk', now(), now() - interval '1 s')", [ids["e"]])
    sql.execute("INSERT INTO work_loss VALUES (%s, 'Check', 3, now(), now())", [ids["e"]])
    sql.execute("INSERT INTO work_backoff VALUES (%s, 'Check', '9999-01-01Z', 'lost')", [ids["e"]])
    return ids


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, "abcdef"),
        ({"sort": "-id"}, "fedcba"),
        ({"sort": "created"}, "fedcba"),
        ({"sort": "-created"}, "abcdef"),
        ({"tag": "provided"}, "abc"),
        ({"without": "provided"}, "def"),
        ({"tag": ["provided", ODD]}, "b"),
        ({"tag": ODD, "without": "provided"}, "d"),
        ({"state": "leased"}, "ab"),
        ({"state": "leased", "process": "Check"}, "b"),
        ({"state": "backoff"}, "c"),
        ({"state": "backoff", "process": "Check"}, ""),
        ({"state": "held"}, "d"),
        ({"state": "held", "process": "Check"}, "d"),
        ({"state": "quarantined"}, "e"),
        ({"state": "quarantined", "process": "Build"}, ""),
        ({"state": "idle"}, "f"),
        ({"state": "idle", "process": "Check"}, "acf"),
        ({"process": "Build"}, "acd"),
        ({"prefix": "b"}, "b"),
        ({"prefix": "C0000000-00"}, "c"),
        ({"prefix": "b1"}, ""),
        ({"provider_id": "srv-1"}, "ab"),
        ({"provider_id": "other%"}, "c"),
        ({"provider_id": "%"}, ""),
        ({"provider_id": "srv", "state": "leased", "process": "Build", "sort": "-created"}, "a"),
    ],
    ids=str,
)
async def test_a_filter_leaves(get: Get, fleet: dict[str, str], query: dict[str, Any], names: str) -> None:
    assert listed(await get("/machines", **query)) == [fleet[name] for name in names]


async def test_a_line_says_what_is_going_on(get: Get, fleet: dict[str, str]) -> None:
    lines = {row[0]: row for row in (await get("/machines")).panel("list").rows}
    states = {name: lines[machine][1] for name, machine in fleet.items()}
    assert states["a"] == "leased for Build by w"
    assert states["c"] in {"backoff of Build, ends in 1h: no answer", "backoff of Build, ends in 59m 59s: no answer"}
    assert states["d"] == "held: ada: disk"
    assert states["e"].startswith("quarantine of Check since ") and states["e"].endswith("after 3 losses")
    assert states["f"] == "idle"
    assert lines[fleet["b"]][2] == f"{ODD}, provided"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"tag": "provided; DROP TABLE machines"}, "there is no tag provided; DROP TABLE machines"),
        ({"without": "nothing"}, "there is no tag nothing"),
        ({"state": "leased' OR true"}, "there is no state leased' OR true"),
        ({"state": "eligible"}, "eligible for which process?"),
        ({"sort": "machine_id"}, "machines are not sorted by machine_id"),
        ({"prefix": "xyz"}, "no id begins with xyz"),
        ({"after": "nowhere"}, "the page begins nowhere"),
        ({"after": "2026-01-01~00000000-0000-4000-8000-000000000000"}, "the page begins at a place of another order"),
        (
            {"sort": "created", "after": "2026-01-01~00000000-0000-4000-8000-000000000000"},
            "the page begins nowhere: its time cannot be read, or has no zone",
        ),
        (
            {"sort": "created", "after": "0001-01-01T00:00:00+23:59~00000000-0000-4000-8000-000000000000"},
            "the page begins nowhere: its time cannot be read, or has no zone",
        ),
        ({"process": "x" * 300}, "process is longer than anything"),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_is_told(
    get: Get, fleet: dict[str, str], query: dict[str, Any], complaint: str
) -> None:
    answer = await get("/machines", **query)
    assert answer.status == 400
    assert answer.page.one(class_="problem").text.startswith(complaint)
    assert len(listed(await get("/machines"))) == len(fleet)


@pytest.mark.parametrize("sort", ["id", "-id", "created", "-created"])
async def test_pages_hold_every_machine_once(get: Get, sql: Sql, machines: MakeMachines, sort: str) -> None:
    # In the order of time many are made at one moment.
    machines(120)
    machines(130)
    column = "machine_created_at, machine_id" if sort.endswith("created") else "machine_id"
    order = column.replace(",", " DESC,") + " DESC" if sort.startswith("-") else column
    expected = [str(machine) for (machine,) in sql.execute(f"SELECT machine_id FROM machines ORDER BY {order}")]
    answers = [await get("/machines", sort=sort)]
    while "Next" in answers[-1].panel("list").links:
        answers.append(await get(answers[-1].panel("list").links["Next"]))
    pages = [listed(answer) for answer in answers]
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [machine for page in pages for machine in page] == expected
    assert "Previous" not in answers[0].panel("list").links
    back = [answers[-1]]
    while "Previous" in back[-1].panel("list").links:
        back.append(await get(back[-1].panel("list").links["Previous"]))
    assert [listed(answer) for answer in back[1:]] == pages[1::-1]


async def test_a_page_begins_where_a_machine_was(get: Get, sql: Sql, machines: MakeMachines) -> None:
    machines(101)
    first = await get("/machines")
    sql.execute("DELETE FROM machines WHERE machine_id = %s", [listed(first)[-1]])
    (last,) = sql.execute("SELECT machine_id::text FROM machines ORDER BY machine_id DESC LIMIT 1").fetchone() or ()
    assert listed(await get(first.panel("list").links["Next"])) == [last]


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("id", "00000000-0000-4000-8000-000000000000", "ffffffff-0000-4000-8000-000000000000"),
        (
            "-created",
            "9000-01-01T00:00:00+00:00~00000000-0000-4000-8000-000000000000",
            "1000-01-01T00:00:00+00:00~00000000-0000-4000-8000-000000000000",
        ),
    ],
)
async def test_a_page_beyond_the_last_machine_leads_back(
    get: Get, fleet: dict[str, str], sort: str, first: str, last: str
) -> None:
    wanted = {"sort": sort, "tag": "provided"}
    machines = listed(await get("/machines", **wanted))
    for place, link in ({"after": last}, "Previous"), ({"before": first}, "Next"):
        beyond = await get("/machines", **wanted, **place)
        assert listed(beyond) == []
        assert "No machine is like that on this side of the list." in beyond.panel("list").text
        assert list(beyond.panel("list").links) == [link]
        assert listed(await get(beyond.panel("list").links[link])) == machines
    nothing = (await get("/machines", prefix="77")).panel("list")
    assert "No machine is like that." in nothing.text and nothing.links == {}


async def test_a_panel_of_a_filtered_page_asks_for_the_same(get: Get, fleet: dict[str, str]) -> None:
    page = await get("/machines", tag=["provided", ODD], state="leased")
    address = page.panel("list").attributes["hx-get"]
    alone = await get(address)
    assert [row[0] for row in alone.page.rows] == listed(page) == [fleet["b"]]


async def test_tags_are_read_again_on_demand(get: Get, sql: Sql, fleet: dict[str, str]) -> None:
    assert len((await get("/tags")).panel("list").rows) == 7
    sql.execute("CREATE TABLE machine_new (machine_id uuid PRIMARY KEY REFERENCES machines, note text, at timestamptz)")
    sql.execute("INSERT INTO machine_new VALUES (%s)", [fleet["f"]])
    assert (await get("/machines", tag="new")).status == 400
    again = (await get("/tags")).page.links["Read it again now"]
    tags = await get(again)
    assert tags.status == 200
    (new,) = [row for row in tags.panel("list").rows if row[0] == "new"]
    assert new == ["new", "1", "note text, at timestamp with time zone"]
    assert listed(await get("/machines", tag="new")) == [fleet["f"]]


def unread(answer: Answer, name: str) -> list[str]:
    """What a panel says of tags that could not be read."""
    return [line.text for line in answer.panel(name).all("p", class_="unread")]


async def test_a_tag_that_has_gone_meanwhile_is_missed_once(get: Get, sql: Sql, fleet: dict[str, str]) -> None:
    whole = {row[0]: row[2] for row in (await get("/machines")).panel("list").rows}
    assert whole[fleet["b"]] == f"{ODD}, provided"
    sql.execute("DROP TABLE machine_provided")
    page = await get("/machines")
    assert listed(page) == [fleet[name] for name in "abcdef"]
    assert {row[0]: row[2] for row in page.panel("list").rows}[fleet["b"]] == ODD
    (said,) = unread(page, "list")
    assert said.startswith("provided could not be read: gone: ")
    again = await get("/machines")
    assert (again.problems, unread(again, "list"), unread(again, "tags")) == ({}, [], [])
    assert "provided" not in [row[0] for row in again.panel("tags").rows]


async def test_a_filter_by_a_tag_that_has_gone_is_refused_at_the_next_look(
    get: Get, sql: Sql, fleet: dict[str, str]
) -> None:
    await get("/machines")
    sql.execute("DROP TABLE machine_provided")
    assert set((await get("/machines", tag="provided")).problems) == {"list"}
    assert (await get("/machines", tag="provided")).status == 400


async def test_a_locked_tag_costs_its_names_only(get: Get, sql: Sql, fleet: dict[str, str]) -> None:
    with sql.transaction():
        sql.execute("LOCK TABLE machine_provided")
        page, tags = await get("/machines"), await get("/tags")
    assert listed(page) == [fleet[name] for name in "abcdef"]
    assert {row[0]: row[2] for row in page.panel("list").rows}[fleet["b"]] == ODD
    for answer, name in ((page, "list"), (page, "tags"), (tags, "list")):
        (said,) = unread(answer, name)
        assert said.startswith("provided could not be read: late: ")
    assert ODD in [row[0] for row in tags.panel("list").rows]


class TestAsARoleThatMayNotReadOneTag:
    """Whoever runs the pages need not see everything."""

    @pytest.fixture
    def conninfo(self, database: str, sql: Sql, fleet: dict[str, str]) -> Iterator[str]:
        sql.execute("CREATE ROLE web_looker LOGIN PASSWORD 'looker'")
        sql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO web_looker")
        sql.execute("REVOKE SELECT ON machine_provided FROM web_looker")
        yield f"{database} user=web_looker password=looker"
        sql.execute("DROP OWNED BY web_looker")
        sql.execute("DROP ROLE web_looker")

    async def test_its_names_are_missing(self, get: Get, fleet: dict[str, str]) -> None:
        page = await get("/machines")
        assert listed(page) == [fleet[name] for name in "abcdef"]
        for name in ("list", "tags"):
            (said,) = unread(page, name)
            assert said.startswith("provided could not be read: refused: ")


@pytest.fixture
async def looking(database: str) -> AsyncIterator[bmdb.AsyncConnection]:
    async with await bmdb.AsyncConnection._reading(database, component="test", pool_size=1) as connection:
        yield connection


@pytest.mark.parametrize(
    "query", ["", "prefix=5", "after=80000000-0000-4000-8000-000000000000", "sort=-id", "tag=most"]
)
async def test_a_page_reads_no_more_rows_than_it_shows(
    looking: bmdb.AsyncConnection, sql: Sql, machines: MakeMachines, query: str
) -> None:
    """However large the fleet: the key leads to the first machine, and no more than one beyond the page is read."""
    machines(20_000)
    sql.execute("CREATE TABLE machine_most (machine_id uuid PRIMARY KEY REFERENCES machines)")
    sql.execute("INSERT INTO machine_most SELECT machine_id FROM machines WHERE machine_id::text < 'f'")
    sql.execute("ANALYZE")
    statement, params = Filter.read(QueryParams(query)).statement(await Catalogue().tags(looking), 101)
    plan = await looking._read(lambda q: q.fetch_value(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *params))
    plan = json.loads(plan) if isinstance(plan, str) else plan
    scans = list(_scans(plan[0]["Plan"]))
    assert {scan["Relation Name"] for scan in scans} <= {"machines", "machine_most"}
    assert max(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) <= 202


def _scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    below = [scan for part in plan.get("Plans", []) for scan in _scans(part)]
    return [plan, *below] if "Relation Name" in plan else below
