"""What the pages of processes and sessions say, asked for without a browser, on a real database."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import bmdb
from bmdb.web import app
from tests.conftest import MakeMachines
from tests.web.client import Client

QUERIES = Path(__file__).resolve().parents[2] / "rust" / "core" / "queries" / "web"
PROCESS = "UnitTest1"


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    """Somebody who looks."""
    application = app(database)
    async with Client(application) as opened:
        yield opened
    await application.state.site.close()


async def panel(client: Client, path: str, name: str) -> str:
    """The text of one panel, without its tags."""
    answer = await client.get(path, params={"panel": name})
    assert answer.status_code == 200, answer.text
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text)))


def happened(
    sql: psycopg.Connection[Any], session: UUID | None, count: int, *, apart: str = "1 second", **columns: Any
) -> None:
    """Writes history: so many events, the latest one now."""
    values = {"process": PROCESS, "event": "Failed", "failed_cause": "refused", "ago": "0 seconds"} | columns
    sql.execute(
        """
        INSERT INTO work_history (machine_id, process, event, "timestamp", failed_cause, session_id, component, token)
        SELECT gen_random_uuid(), %s, %s, now() - %s::interval - n * %s::interval, %s, %s, 'test', n
        FROM generate_series(1, %s) AS n
        """,
        [values["process"], values["event"], values["ago"], apart, values["failed_cause"], session, count],
    )


class TestSession:
    async def test_who_where_and_what_it_holds(
        self, client: Client, session: bmdb.Session, machines: MakeMachines
    ) -> None:
        held, done = machines(2)
        session.work("Done", lambda q: [done]).finish()
        with session.work(PROCESS, lambda q: [held]) as work:
            path = f"/sessions/{session.uuid}"
            info = await panel(client, path, "info")
            assert "Owner test" in info and "live : expires in" in info and "Interval 5 s" in info
            leases = await panel(client, path, "leases")
            assert str(held) in leases and f"{PROCESS} {work.token}" in leases and str(done) not in leases
            history = await panel(client, path, "history")
            assert re.findall("Started|Finished", history) == ["Started", "Finished", "Started"]
            work.finish()

    async def test_one_that_is_gone_is_known_by_its_deeds(
        self, client: Client, connection: bmdb.Connection, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        with connection.start_session() as gone:
            gone.work(PROCESS, lambda q: [machine]).fail("it is <b>gone</b>")
        page = await client.get(f"/sessions/{gone.uuid}")
        assert page.status_code == 200
        assert "There is no such session now" in page.text
        assert "it is &lt;b&gt;gone" in page.text

    async def test_one_that_never_was(self, client: Client) -> None:
        page = await client.get(f"/sessions/{uuid4()}")
        assert "History knows nothing of it" in page.text
        assert (await client.get("/sessions/not-an-id")).status_code == 404

    @pytest.mark.parametrize("apart", ["1 second", "0 seconds"])
    async def test_everything_it_ever_did_page_by_page(
        self, client: Client, sql: psycopg.Connection[Any], apart: str
    ) -> None:
        mine, other = uuid4(), uuid4()
        happened(sql, mine, 120, apart=apart)
        happened(sql, other, 10, apart=apart)
        rows = sql.execute(
            'SELECT machine_id FROM work_history WHERE session_id = %s ORDER BY "timestamp" DESC, machine_id DESC',
            [mine],
        ).fetchall()
        path, found, pages = f"/sessions/{mine}", [], 0
        while path:
            page = (await client.get(path)).text
            found += re.findall(r'<th scope="row"><a href="/machines/([0-9a-f-]+)"', page)
            older = re.search(r'href="([^"]*)" rel="next"', page)
            path = html.unescape(older[1]) if older else ""
            pages += 1
        assert found == [str(machine) for (machine,) in rows]
        assert pages == 3

    async def test_a_lease_is_as_long_as_it_was_held(self, client: Client, sql: psycopg.Connection[Any]) -> None:
        machine, session = uuid4(), uuid4()
        for event, ago, token in (("Started", 90, 7), ("Started", 60, 8), ("Failed", 30, 8), ("Finished", 10, 7)):
            sql.execute(
                "INSERT INTO work_history VALUES (%s, %s, %s, now() - make_interval(secs => %s), NULL, %s, NULL, %s)",
                [machine, PROCESS, event, ago, session, token],
            )
        history = await panel(client, f"/sessions/{session}", "history")
        assert re.findall(r"(\d+) (1m 20s|30s)", history) == [("7", "1m 20s"), ("8", "30s")]

    @pytest.mark.parametrize(
        "before",
        [
            "", "x", "2026-01-01~x~y~z", "2026-01-01T00:00:00~00000000-0000-0000-0000-000000000000~a~b",
            "0001-01-01T00:00:00+23:59~00000000-0000-0000-0000-000000000000~a~b",
        ],
    )  # fmt: skip
    async def test_a_place_that_is_none(self, client: Client, before: str) -> None:
        answer = await client.get(f"/sessions/{uuid4()}", params={"before": before})
        assert answer.status_code == 400

    def test_an_index_finds_it_among_many(self, sql: psycopg.Connection[Any]) -> None:
        sql.execute(
            """
            INSERT INTO work_history (machine_id, process, event, "timestamp", session_id, token)
            SELECT gen_random_uuid(), 'P', 'Started', now() - n * interval '1 second', md5((n / 100)::text)::uuid, n
            FROM generate_series(1, 20000) AS n
            """
        )
        sql.execute("ANALYZE work_history")
        statement = (QUERIES / "session_history.sql").read_text(encoding="utf-8")
        sql.execute(f"PREPARE history (uuid, timestamptz, uuid, text, text, bigint) AS {statement}")
        first = "md5('7')::uuid, NULL, NULL, NULL, NULL, 51"
        later = "md5('7')::uuid, now() - interval '750 seconds', gen_random_uuid(), 'P', 'Started', 51"
        for arguments in (first, later):
            plan = "\n".join(row[0] for row in sql.execute(f"EXPLAIN EXECUTE history ({arguments})"))
            assert "session_id_timestamp" in plan or "work_history_session_idx" in plan, plan
            # Partitions without rows cost nothing either way.
            for partition in set(re.findall(r"Seq Scan on (\w+)", plan)):
                assert sql.execute(f"SELECT count(*) FROM {partition}").fetchone() == (0,), plan


class TestSessions:
    async def test_page_by_page(self, client: Client, sql: psycopg.Connection[Any], session: bmdb.Session) -> None:
        sql.execute(
            "INSERT INTO sessions"
            " (session_component_name, session_runtime_info, session_interval_seconds, session_deadline)"
            " SELECT 'c' || n, '', 5, now() - interval '1 minute' FROM generate_series(1, 149) AS n"
        )
        first = (await client.get("/sessions")).text
        assert first.count('<th scope="row">') == 100
        older = re.search(r'href="([^"]*)" rel="next"', first)
        assert older is not None
        second = (await client.get(html.unescape(older[1]))).text
        assert second.count('<th scope="row">') == 50
        assert 'rel="next"' not in second
        assert (first + second).count("expired</span>") == 149
        assert (first + second).count(f'"session-{session.uuid}"') == 1

    async def test_a_place_that_is_none(self, client: Client) -> None:
        assert (await client.get("/sessions?after=x")).status_code == 400


class TestProcesses:
    async def test_all_that_are_known_are_listed(
        self, client: Client, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines,
        sql: psycopg.Connection[Any],
    ) -> None:  # fmt: skip
        connection.register(bmdb.Process("Registered", quarantine_after=2))
        (one, two) = machines(2)
        session.work("Failing", lambda q: [one]).fail("x", bmdb.Backoff(600, 600, 1))
        connection.hold(one, "Held", owner="ada", reason="x")
        sql.execute("INSERT INTO work_loss VALUES (%s, 'Quarantined', 3, now(), now())", [one])
        sql.execute("INSERT INTO work_backoff VALUES (%s, 'Quarantined', '9999-12-31Z', 'lost')", [one])
        happened(sql, None, 3, process="Once", event="Finished", ago="2 hours")
        with session.work("Leased", lambda q: [two]) as work:
            text = await panel(client, "/processes", "list")
            for name, numbers in {
                "Failing not registered": "0 1 0 0 0 1 0", "Held not registered": "0 0 0 1 0 0 0",
                "Leased not registered": r"1 [\d.]+m?s ago 0 0 0 0 0 0", "Once not registered": "0 0 0 0 0 0 0",
                "Quarantined not registered": "0 0 1 0 0 0 0", "Registered": r"[\d.]+m?s ago 0 0 0 0 0 0 0",
            }.items():  # fmt: skip
                assert re.search(rf"{name} {numbers}", text), (name, text)
            work.finish()

    async def test_what_is_registered(self, client: Client, connection: bmdb.Connection) -> None:
        connection.register(
            bmdb.Process("P", excludes=("Q",), crash_backoff=bmdb.Backoff(60, 3600, 2), quarantine_after=3)
        )
        text = await panel(client, "/processes/P", "definition")
        assert "Excludes Q" in text and "Backoff after a loss 1m, ×2 each time, at most 1h" in text
        assert "after 3 losses in a row" in text

    async def test_what_needs_it_how_that_is_found_and_how_many(
        self, client: Client, session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines
    ) -> None:
        asked = bmdb.Process("P", eligible=bmdb.eligible(having=("provided",), where="machine_provided.provider = 'X'"))
        with pytest.raises(bmdb.NothingToDo):
            session.work(asked)
        for number, machine in enumerate(machines(5)):
            sql.execute(
                "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, %s, %s)",
                [machine, "X" if number < 3 else "Y", str(number)],
            )
        assert "machine_provided.provider = 'X'" in await panel(client, "/processes/P", "eligibility")
        assert "machine_provided" in await panel(client, "/processes/P", "plan")
        assert "3 machines may be leased now" in await panel(client, "/processes/P", "backlog")
        sql.execute("DROP TABLE machine_provided CASCADE")
        assert "provided" in await panel(client, "/processes/P", "eligibility")
        lost = await client.get("/processes/P?panel=backlog")
        assert lost.status_code == 503 and "no tag" in lost.text

    async def test_what_a_row_says_is_planned_and_never_carried_out(
        self, client: Client, sql: psycopg.Connection[Any]
    ) -> None:
        for number, query in enumerate(
            (
                "SELECT machine_id FROM machines); DROP TABLE work_backoff; --",
                "ANALYZE DELETE FROM machines",
                "SELECT 1/0",
            )
        ):
            sql.execute(
                "INSERT INTO process_eligibility (process, fingerprint, having_tags, lacking_tags, query, version)"
                " VALUES (%s, %s, '{}', '{}', %s, '1')",
                [f"P{number}", str(number), query],
            )
            page = await client.get(f"/processes/P{number}")
            assert page.status_code == 200
            assert (await client.get(f"/processes/P{number}?panel=plan")).status_code in (200, 503)
        assert sql.execute("SELECT to_regclass('work_backoff') IS NOT NULL").fetchone() == (True,)

    async def test_one_that_nothing_is_known_of(self, client: Client) -> None:
        page = (await client.get("/processes/none")).text
        assert "it runs by its name alone" in page and "Nothing registered says which machines need it" in page

    async def test_a_name_that_none_can_have(self, client: Client) -> None:
        answer = await client.get("/processes/a%00b")
        assert answer.status_code == 404 and "No process has that name" in answer.text

    async def test_throughput(self, client: Client, sql: psycopg.Connection[Any]) -> None:
        happened(sql, None, 3, event="Started")
        happened(sql, None, 2, event="Finished", ago="2 hours")
        happened(sql, None, 5, event="Lost", ago="25 hours")
        happened(sql, None, 7, process="Other", event="Started")
        happened(sql, None, 1, event="Odd")
        text = await panel(client, f"/processes/{PROCESS}", "throughput")
        assert "Started 3 3 Finished 0 2 Failed 0 0 Lost 0 0 Canceled 0 0 Odd 1 1" in text

    async def test_causes_that_begin_alike_are_one(self, client: Client, sql: psycopg.Connection[Any]) -> None:
        happened(sql, None, 3, failed_cause="refused")
        happened(sql, None, 1, failed_cause="x" * 500 + "one")
        happened(sql, None, 1, failed_cause="x" * 500 + "two")
        happened(sql, None, 9, failed_cause="of yesterday", ago="25 hours")
        happened(sql, None, 9, failed_cause="of others", process="Other")
        text = await panel(client, f"/processes/{PROCESS}", "causes")
        counts = re.findall(r"(\d+) (\d+) [\dms. ]+ago [0-9a-f-]{36} (refused|x)", text)
        assert counts == [("3", "3", "refused"), ("2", "2", "x")]
        assert "others" not in text and "yesterday" not in text

    async def test_a_cause_that_goes_on_says_so(self, client: Client, sql: psycopg.Connection[Any]) -> None:
        happened(sql, None, 2, failed_cause="x" * 500)
        text = await panel(client, f"/processes/{PROCESS}", "causes")
        assert "only the beginning" not in text
        happened(sql, None, 1, failed_cause="x" * 501)
        text = await panel(client, f"/processes/{PROCESS}", "causes")
        assert text.count("(only the beginning is shown)") == 1
