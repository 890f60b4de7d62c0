"""The pages and what else only looks need no more than the role of a viewer."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

import bmdb
import bmdb.web
from tests.conftest import MakeMachines
from tests.security.conftest import Fleet
from tests.web.client import TOKEN, Client, form_token
from tests.web.reader import read


@pytest.fixture
def busy(fleet: Fleet, machines: MakeMachines, sql: psycopg.Connection[Any]) -> list[str]:
    """Addresses of pages of a fleet in which each kind of thing has happened."""
    offered = machines(3)
    process = bmdb.Process("build", eligible=bmdb.eligible(lacking=("hardware_report",)), excludes=("tear down",))
    with bmdb.connect(fleet.conninfo("worker"), component="test") as connection:
        connection.register(process)
        session = connection.start_session(interval=60)
        session.work(process, lambda q: offered[:1])
        session.work("build", lambda q: offered[1:2]).fail("broken", bmdb.Backoff(600))
        sql.execute("INSERT INTO machine_provided VALUES (%s, 'p', '1')", [offered[2]])
        with bmdb.connect(fleet.conninfo("operator"), component="desk") as desk:
            desk.hold(offered[2], owner="ann", reason="disk")
        paths = ["/", "/machines", "/tags", "/processes", "/sessions", "/processes/build"]
        paths += [f"/machines/{machine}" for machine in offered]
        paths += [f"/machines/{machine}/explain/build" for machine in offered]
        paths += [f"/sessions/{session.uuid}", "/machines?process=build&state=leased"]
        # Its row stays: the pages are to show it alive.
        sql.execute("UPDATE sessions SET session_deadline = now() + interval '1 hour'")
        saved = sql.execute("SELECT * FROM sessions").fetchall()
        leases = sql.execute("SELECT * FROM work").fetchall()
    for table, rows in (("sessions", saved), ("work", leases)):
        for row in rows:
            places = ", ".join(["%s"] * len(row))
            sql.execute(f"INSERT INTO {table} VALUES ({places})", row)  # type: ignore[arg-type]
    return paths


async def test_a_viewer_sees_every_page_whole(fleet: Fleet, busy: list[str]) -> None:
    app = bmdb.web.app(fleet.conninfo("viewer"), refresh=1e-6)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", follow_redirects=True) as client:
        for path in busy:
            answer = await client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text[:300]}"
            problems = [problem.text for problem in read(answer.text).all(class_="problem")]
            assert not problems, f"{path}: {problems}"
    await app.state.site.close()


async def test_a_viewer_does_not_act(fleet: Fleet, busy: list[str], sql: psycopg.Connection[Any]) -> None:
    """Pages that were given the wrong role refuse by the database, whatever they think that their users may do."""
    app = bmdb.web.app(fleet.conninfo("viewer"), allow_actions=True, token=TOKEN, refresh=1e-6)
    (machine,) = sql.execute("SELECT machine_id FROM machine_provided").fetchone() or ("",)
    async with Client(app) as client:
        await client.log_in()
        csrf = form_token(await client.get(f"/machines/{machine}"))
        answer = await client.post(f"/machines/{machine}/hold", {"csrf": csrf, "reason": "why not", "period": "1h"})
        assert "permission denied" in answer.text
        assert answer.status_code < 500
    await app.state.site.close()


async def test_an_operator_acts_on_the_pages(fleet: Fleet, busy: list[str], sql: psycopg.Connection[Any]) -> None:
    app = bmdb.web.app(fleet.conninfo("operator"), allow_actions=True, token=TOKEN, refresh=1e-6)
    (machine,) = sql.execute("SELECT machine_id FROM work").fetchone() or ("",)
    async with Client(app) as client:
        await client.log_in()
        csrf = form_token(await client.get(f"/machines/{machine}"))
        answer = await client.post(f"/machines/{machine}/hold", {"csrf": csrf, "reason": "why not", "period": "1h"})
        assert answer.status_code == 303, answer.text[:500]
    assert sql.execute("SELECT count(*) FROM work_hold WHERE machine_id = %s", [machine]).fetchone() == (1,)
    await app.state.site.close()


def test_a_viewer_reads_statistics_and_overview(fleet: Fleet, busy: list[str]) -> None:
    with bmdb.connect(fleet.conninfo("viewer"), component="test") as connection:
        assert connection.statistics()
        assert len(connection.history_of(connection.holds()[0].machine_id)) == 1
