"""The page of the fleet: its numbers, and that each panel stands and falls by itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import bmdb
import bmdb.web
from bmdb import overview
from tests.proxy import Proxy
from tests.web.conftest import Get
from tests.web.reader import read

PANELS = ["machines", "backlog", "leases", "backoffs", "losses", "ends", "collection", "sessions"]
MakeMachines = Callable[[int], list[UUID]]
Sql = psycopg.Connection[Any]


@pytest.fixture
def fleet(sql: Sql, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines) -> list[UUID]:
    """Eight machines: 0 leased and held, 1 and 2 in backoff, 3 no more, 4 in quarantine, 5 held, 6 and 7 nothing."""
    made = machines(8)
    session.work("Build", lambda q: [made[0]])
    for machine, seconds in ((made[1], 600), (made[2], 1200), (made[3], 600)):
        session.work("Check", lambda q, machine=machine: [machine]).fail("no answer", bmdb.Backoff(seconds))
    sql.execute("UPDATE work_backoff SET until = now() WHERE machine_id = %s", [made[3]])
    sql.execute(
        "INSERT INTO work_loss VALUES (%s, 'Check', 3, now(), now())",
        [made[4]],
    )
    sql.execute("INSERT INTO work_backoff VALUES (%s, 'Check', '9999-01-01Z', 'lost', 60)", [made[4]])
    for held in (made[0], made[5]):
        connection.hold(held, owner="ada", reason="a new disk")
    return made


async def test_an_empty_fleet_is_no_problem(get: Get) -> None:
    fleet = await get("/")
    assert fleet.status == 200
    assert [panel.attributes["id"] for panel in fleet.page.all("section")] == [f"panel-{name}" for name in PANELS]
    assert fleet.problems == {}
    assert fleet.panel("leases").one("p", class_="none").text == "Nothing is leased."


async def test_machines_are_counted_by_what_they_are(get: Get, fleet: list[UUID]) -> None:
    page = await get("/")
    shown = page.panel("machines").links
    assert list(shown) == ["8 in all", "1 leased", "2 in backoff", "2 held", "1 in quarantine", "3 idle"]
    assert shown["2 in backoff"] == "/machines?state=backoff"
    assert page.panel("leases").rows[0][:4] == ["Build", "1", "1", "0"]
    (backoffs,) = page.panel("backoffs").rows
    assert (backoffs[:2], backoffs[3]) == (["Check", "2"], "1")
    assert re.fullmatch(r"in (9m \d+s|10m)", backoffs[2])
    assert page.panel("ends").rows[0][:2] == ["Check", "Failed"]
    assert page.panel("ends").rows[0][3] == "3"
    for count, state in ((1, "leased"), (2, "backoff"), (2, "held"), (1, "quarantined"), (3, "idle")):
        assert len((await get("/machines", state=state)).panel("list").rows) == count, state


def test_the_overview_is_the_same_for_programs(connection: bmdb.Connection, fleet: list[UUID]) -> None:
    counted = overview.MACHINES.ask(connection)
    assert counted == overview.MachineCounts(machines=8, leased=1, waiting=2, held=2, quarantined=1, idle=3)
    (leases,) = overview.LEASES.ask(connection)
    assert (leases.process, leases.leases, leases.sessions, leases.orphaned) == ("Build", 1, 1, 0)
    assert overview.COLLECTION.ask(connection) == overview.CollectionLag(sessions=0, oldest=None, leases=0)


async def test_the_backlog_is_that_of_the_claims(
    get: Get, sql: Sql, connection: bmdb.Connection, session: bmdb.Session, fleet: list[UUID]
) -> None:
    wanted = bmdb.Process("Check", eligible=bmdb.eligible(lacking=["provided"]))
    connection.register(wanted, bmdb.Process("Build"))
    for work in session.work_many(wanted, limit=1):
        work.cancel()
    page = await get("/")
    assert page.panel("backlog").rows == [
        ["Build", "not known: it has registered no eligibility"],
        ["Check", str(connection.backlog("Check"))],
    ]
    assert page.panel("backlog").rows[1][1] == "3"
    eligible = await get(page.panel("backlog").links["3"])
    assert sorted(row[0] for row in eligible.panel("list").rows) == sorted(map(str, [fleet[3], *fleet[6:]]))
    unknown = await get("/machines", process="Build", state="eligible")
    assert unknown.panel("list").one("p", class_="none").text.startswith("That is not known")


async def test_losses_are_drawn_where_they_happened(get: Get, sql: Sql, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    for minutes in (1, 1, 1, 31, 59, 61):
        sql.execute(
            "INSERT INTO work_history (machine_id, process, event, timestamp)"
            " VALUES (%s, 'Check', 'Lost', now() - %s * interval '1 minute')",
            [machine, minutes],
        )
    (events,) = await _ask(sql, overview.LOSSES)
    assert (events.process, events.total) == ("Check", 5)
    assert {step: count for step, count in enumerate(events.steps) if count} == {29: 3, 14: 1, 0: 1}
    losses = (await get("/")).panel("losses")
    assert losses.rows[0][2] == "5"
    chart = losses.one("svg")
    assert chart.attributes["aria-label"] == "Leases of Check lost: 5 in all, at most 3 in a step"
    assert [bar.attributes["height"] for bar in chart.all("rect")] == ["7", "7", "21"]


async def _ask(sql: Sql, question: overview.Question[Any]) -> Any:
    connection = await bmdb.AsyncConnection.connect(f"{sql.info.dsn}", component="test")
    async with connection:
        return await question.ask_async(connection)


async def test_expired_sessions_wait_for_collection(get: Get, sql: Sql, machines: MakeMachines) -> None:
    # Nobody has a session, so nobody collects.
    (machine,) = machines(1)
    sql.execute(
        "WITH gone AS (INSERT INTO sessions VALUES (gen_random_uuid(), 'gone', 'nowhere', now() - interval '2 h', 5,"
        " now() - interval '1 h') RETURNING session_id)"
        " INSERT INTO work (machine_id, process, session_id, token) SELECT %s, 'Check', session_id, 1 FROM gone",
        [machine],
    )
    page = await get("/")
    assert page.panel("collection").all("p")[-1].text == (
        "1 expired session not collected, the oldest expired 1h ago; 1 lease with them."
    )
    assert page.panel("leases").rows[0][3] == "1"
    assert page.panel("sessions").rows[0][3] == "expired 1h ago"
    (line,) = (await get("/machines")).panel("list").rows
    assert line[1] == "leased for Check by gone, whose session expired 1h ago"


async def test_a_panel_is_there_alone(get: Get, fleet: list[UUID]) -> None:
    alone = await get("/", panel="leases")
    assert alone.status == 200
    assert alone.page.one("h2").text == "Leases"
    assert not alone.page.all("section") and not alone.page.all("html")
    assert (await get("/", panel="no such")).status == 404


async def test_what_takes_too_long_is_ended_and_says_so_alone(get: Get, sql: Sql, fleet: list[UUID]) -> None:
    assert (await get("/")).problems == {}
    with sql.transaction():
        sql.execute("LOCK TABLE work_backoff")
        page = await get("/")
        alone = await get("/", panel="backoffs")
    late = "late: a statement took longer than 1 s and was ended"
    assert page.status == 200
    assert page.problems == {"machines": late, "backoffs": late}
    assert page.panel("leases").rows[0][0] == "Build"
    assert (alone.status, alone.headers["panel-problem"]) == (503, "late")
    assert (await get("/")).problems == {}


class TestThroughAProxy:
    """What the pages send, and what they say when nothing comes back."""

    @pytest.fixture
    def conninfo(self, database: str, proxy: Proxy) -> str:
        return proxy.conninfo(database)

    async def test_every_look_is_read_only(self, get: Get, proxy: Proxy, fleet: list[UUID]) -> None:
        for path in ("/", "/machines?state=idle&tag=provided", f"/machines/{fleet[0]}", "/tags"):
            assert (await get(path)).problems == {}
        begun = [statement.text for statement in proxy.statements("^BEGIN")]
        assert len(begun) > 10
        assert [text for text in begun if "READ ONLY" not in text] == []

    async def test_many_who_look_at_once_cost_one_look(self, conninfo: str, proxy: Proxy, fleet: list[UUID]) -> None:
        app = bmdb.web.app(conninfo, refresh=60)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            pages = await asyncio.gather(*(client.get("/") for _ in range(5)))
            alone = await client.get("/", params={"panel": "machines"})
        await app.state.site.close()
        assert proxy.count("FROM busy") == 1
        assert [page.status_code for page in pages] == [200] * 5
        assert "in quarantine" in alone.text

    async def test_a_refusal_is_of_one_panel(self, get: Get, proxy: Proxy, fleet: list[UUID]) -> None:
        with proxy.injecting("42501", "ORDER BY s.session_created_at", message="\x1b[31m<b>no"):
            page = await get("/")
        assert page.problems == {"sessions": "refused: \\x1b[31m<b>no"}
        assert "<b>no" not in page.html

    async def test_a_database_that_is_away_is_said_and_found_again(
        self, get: Get, proxy: Proxy, fleet: list[UUID]
    ) -> None:
        assert (await get("/")).problems == {}
        with proxy.swallowing():
            page = await get("/")
            assert page.status == 200
            assert set(page.problems) == set(PANELS)
            # Nobody can know whether it is slow or gone.
            assert {text.partition(":")[0] for text in page.problems.values()} == {"late"}
            assert (await get("/", panel="machines")).status == 503
        assert (await get("/")).problems == {}


class TestWithoutADatabase:
    """The pages come up before their database does."""

    @pytest.fixture
    def conninfo(self) -> str:
        return "host=127.0.0.1 port=1 user=nobody password=hidden dbname=nothing"

    async def test_the_page_stands(self, get: Get) -> None:
        page = await get("/")
        assert page.status == 200
        assert set(page.problems) == set(PANELS)
        assert {text.partition(":")[0] for text in page.problems.values()} == {"unreachable"}
        assert page.page.one("h1").text == "Fleet"
        assert "hidden" not in page.html
        assert (await get("/machines", tag="anything")).status == 200
        assert (await get("/machines/00000000-0000-4000-8000-000000000000")).status == 200


async def test_a_mistake_in_a_panel_of_ours_costs_only_that(
    database: str, sql: Sql, machines: MakeMachines, caplog: pytest.LogCaptureFixture
) -> None:
    sql.execute("INSERT INTO work_history (machine_id, process, event) VALUES (%s, 'Check', 'Lost')", machines(1))
    app = bmdb.web.app(database)

    def mistaken(*_: object) -> str:
        raise ZeroDivisionError("secret")

    app.state.site.templates.filters["bars"] = mistaken
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        page = await client.get("/")
        alone = await client.get("/", params={"panel": "losses"})
    await app.state.site.close()
    assert page.status_code == 200
    assert [problem.text for problem in read(page.text).all(class_="problem")] == [
        "failed: ZeroDivisionError: the log has more"
    ]
    assert (alone.status_code, alone.headers["panel-problem"]) == (503, "failed")
    assert "the panel losses could not be written" in caplog.text


@pytest.mark.parametrize("refresh", [0, -1, float("nan")])
def test_a_refresh_is_a_length_of_time(refresh: float) -> None:
    with pytest.raises(ValueError, match="refresh must be more than 0 seconds"):
        bmdb.web.app("host=nowhere", refresh=refresh)


async def test_under_a_prefix_everything_leads_below_it(database: str, fleet: list[UUID]) -> None:
    app = bmdb.web.app(database)
    host = Starlette(routes=[Mount("/ops/bmdb", app)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://localhost") as client:
        for path in ("/", "/machines?state=held", f"/machines/{fleet[0]}", "/tags"):
            page = (await client.get(f"/ops/bmdb{path}")).text
            addresses = re.findall(r'\b(?:href|src|action|hx-get)="([^"]*)"', page)
            assert len(addresses) > 8
            assert [address for address in addresses if not address.startswith(("/ops/bmdb/", "#"))] == []
        for asset in re.findall(r'"(/ops/bmdb/static/[^"]*)"', page):
            assert (await client.get(asset)).status_code == 200, asset
    await app.state.site.close()
