"""What operators do from a machine's page: what becomes of it, what history says, what is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

import bmdb
from bmdb.model import HistoryEvent
from bmdb.web import app
from bmdb.web.access import Access
from bmdb.web.visits import NOTICE_SECONDS, Visits
from tests.conftest import MakeMachines
from tests.web.client import NOWHERE, TOKEN, Client, form_token

HEADER = "X-Forwarded-User"
PROCESS = "UnitTest1"
WHY = "its <b>disk</b>"


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    """Ada, whom a proxy names, with actions."""
    application = app(database, allow_actions=True, trusted_header=HEADER)
    async with Client(application, headers={HEADER: "Ada"}) as opened:
        yield opened
    await application.state.site.close()


@pytest.fixture
def machine(machines: MakeMachines) -> UUID:
    (made,) = machines(1)
    return made


async def act(client: Client, machine: UUID, action: str, **form: str) -> httpx.Response:
    """Sends a form as the machine's page has it."""
    page = await client.get(f"/machines/{machine}")
    return await client.post(f"/machines/{machine}/{action}", {"csrf": form_token(page), **form})


def said(answer: httpx.Response, machine: UUID) -> str:
    """What the page then says, by its name; the answer must lead back to the machine's page."""
    assert answer.status_code == 303, answer.text
    matched = re.fullmatch(
        rf"/machines/{machine}\?said=([a-z-]+)\.\d+\.[0-9a-f]+\.[0-9a-f]+", answer.headers["location"]
    )
    assert matched is not None, answer.headers["location"]
    return matched[1]


def latest(connection: bmdb.Connection, machine: UUID) -> HistoryEvent:
    return connection.history_of(machine)[-1]


class TestHold:
    async def test_the_machine_is_kept(self, client: Client, connection: bmdb.Connection, machine: UUID) -> None:
        answer = await act(client, machine, "hold", process="", period="", reason=WHY)
        assert said(answer, machine) == "held"
        (hold,) = connection.holds(machine)
        assert (hold.process, hold.owner, hold.reason, hold.until) == (None, "Ada", WHY, None)
        event = latest(connection, machine)
        assert (event.event, event.failed_cause, event.component) == ("Held", f"Ada: {WHY}", "bmdb web")
        page = await client.get(answer.headers["location"])
        assert "The machine is held." in page.text
        assert "<b>disk" not in page.text

    async def test_from_a_process_for_a_time(self, client: Client, connection: bmdb.Connection, machine: UUID) -> None:
        await act(client, machine, "hold", process=f" {PROCESS} ", period="4h", reason=WHY)
        (hold,) = connection.holds(machine)
        assert hold.process == PROCESS and hold.until is not None
        assert abs(hold.until - datetime.now(UTC) - timedelta(hours=4)) < timedelta(minutes=1)

    async def test_the_person_is_who_the_guard_knows(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        await act(client, machine, "hold", reason=WHY, owner="Eve", person="Eve")
        (hold,) = connection.holds(machine)
        assert hold.owner == "Ada"

    @pytest.mark.parametrize(
        "form", [{"reason": ""}, {"reason": " \n"}, {"reason": "x" * 2001}, {"reason": "x", "process": "p" * 201},
                 {"reason": "x", "period": "9y"}, {}],
    )  # fmt: skip
    async def test_what_cannot_be_done_is_told(
        self, client: Client, connection: bmdb.Connection, machine: UUID, form: dict[str, str]
    ) -> None:
        answer = await act(client, machine, "hold", **form)
        assert answer.status_code == 422 and 'role="alert"' in answer.text
        assert f'href="/machines/{machine}"' in answer.text
        assert connection.holds(machine) == []

    async def test_a_name_that_no_process_can_have_is_told(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        answer = await act(client, machine, "hold", process="p" * 129, reason=WHY)
        assert answer.status_code == 422 and "128" in answer.text and 'role="alert"' in answer.text
        assert connection.holds(machine) == []

    async def test_an_unknown_machine_cannot_be(self, client: Client, machine: UUID) -> None:
        csrf = form_token(await client.get(f"/machines/{machine}"))
        answer = await client.post(f"/machines/{uuid4()}/hold", {"csrf": csrf, "reason": WHY})
        assert answer.status_code == 404 and "no such machine" in answer.text

    async def test_it_is_not_done_without_the_forms_token(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        answer = await client.post(f"/machines/{machine}/hold", {"reason": WHY})
        assert answer.status_code == 403
        assert connection.holds(machine) == []


class TestRelease:
    async def test_the_hold_on_the_page_is_ended(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        connection.hold(machine, owner="Bob", reason="lunch")
        (hold,) = connection.holds(machine)
        page = await client.get(f"/machines/{machine}")
        assert f'name="since" value="{hold.held_at.isoformat()}"' in page.text
        answer = await act(client, machine, "release", process="", since=hold.held_at.isoformat(), reason=WHY)
        assert said(answer, machine) == "released"
        assert connection.holds(machine) == []
        event = latest(connection, machine)
        assert (event.event, event.failed_cause, event.component) == ("Released", f"Ada: {WHY}", "bmdb web")

    async def test_the_hold_of_a_process_is_another(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        connection.hold(machine, owner="Bob", reason="all")
        connection.hold(machine, PROCESS, owner="Bob", reason="one")
        (one,) = (hold for hold in connection.holds(machine) if hold.process == PROCESS)
        assert (
            said(
                await act(client, machine, "release", process=PROCESS, since=one.held_at.isoformat(), reason=WHY),
                machine,
            )
            == "released"
        )
        assert [hold.process for hold in connection.holds(machine)] == [None]

    async def test_one_that_came_in_its_place_stays(
        self, client: Client, connection: bmdb.Connection, machine: UUID
    ) -> None:
        connection.hold(machine, owner="Bob", reason="lunch")
        (seen,) = connection.holds(machine)
        connection.hold(machine, owner="Eve", reason="I am under the rack")
        answer = await act(client, machine, "release", process="", since=seen.held_at.isoformat(), reason=WHY)
        assert said(answer, machine) == "another-hold"
        assert [hold.owner for hold in connection.holds(machine)] == ["Eve"]

    async def test_none_is_told(self, client: Client, machine: UUID) -> None:
        assert said(await act(client, machine, "release", process="", since="x", reason=WHY), machine) == "not-held"


class TestForceRelease:
    async def test_the_holder_is_fenced(
        self, client: Client, connection: bmdb.Connection, session: bmdb.Session, machine: UUID
    ) -> None:
        work = session.work(PROCESS, lambda q: [machine])
        form = {"process": PROCESS, "token": str(work.token), "reason": WHY, "sure": "yes"}
        assert said(await act(client, machine, "force-release", **form), machine) == "freed"
        with pytest.raises(bmdb.LeaseLostError):
            work.finish()
        event = latest(connection, machine)
        assert (event.event, event.failed_cause, event.token) == ("Released", f"Ada: {WHY}", work.token)
        assert said(await act(client, machine, "force-release", **form), machine) == "not-leased"

    async def test_the_lease_of_the_next_holder_stays(
        self, client: Client, session: bmdb.Session, machine: UUID
    ) -> None:
        session.work(PROCESS, lambda q: [machine]).finish()
        with session.work(PROCESS, lambda q: [machine]) as work:
            form = {"process": PROCESS, "token": str(work.token - 1), "reason": WHY, "sure": "yes"}
            assert said(await act(client, machine, "force-release", **form), machine) == "another-lease"
            work.finish()

    @pytest.mark.parametrize("missing", ["sure", "reason", "process"])
    async def test_it_must_be_confirmed_and_explained(
        self, client: Client, session: bmdb.Session, machine: UUID, missing: str
    ) -> None:
        with session.work(PROCESS, lambda q: [machine]) as work:
            form = {"process": PROCESS, "token": str(work.token), "reason": WHY, "sure": "yes"}
            del form[missing]
            assert (await act(client, machine, "force-release", **form)).status_code == 422
            work.finish()


class TestBackoffs:
    async def test_one_is_ended(
        self, client: Client, connection: bmdb.Connection, session: bmdb.Session, machine: UUID
    ) -> None:
        session.work(PROCESS, lambda q: [machine]).fail("broken", bmdb.Backoff(600, 600, 1))
        assert said(await act(client, machine, "clear-backoff", process=PROCESS, reason=WHY), machine) == "cleared"
        event = latest(connection, machine)
        assert (event.event, event.failed_cause) == ("BackoffCleared", f"Ada: {WHY}")
        assert said(await act(client, machine, "clear-backoff", process=PROCESS, reason=WHY), machine) == "no-backoff"

    async def test_a_quarantine_is_ended(
        self, client: Client, connection: bmdb.Connection, sql: psycopg.Connection[Any], machine: UUID
    ) -> None:
        sql.execute("INSERT INTO work_loss VALUES (%s, %s, 3, now(), now())", [machine, PROCESS])
        sql.execute("INSERT INTO work_backoff VALUES (%s, %s, '9999-12-31Z', 'lost')", [machine, PROCESS])
        page = await client.get(f"/machines/{machine}")
        assert f"Quarantine of {PROCESS}" in page.text
        assert "End the backoff" not in page.text
        assert said(await act(client, machine, "release-quarantine", process=PROCESS, reason=WHY), machine) == "trusted"
        event = latest(connection, machine)
        assert (event.event, event.failed_cause) == ("QuarantineReleased", f"Ada: {WHY}")
        assert (
            said(await act(client, machine, "release-quarantine", process=PROCESS, reason=WHY), machine)
            == "no-quarantine"
        )


class TestNotices:
    """What the page says after an action, and to whom."""

    DONE = "The machine is held."

    async def test_it_is_said_once(self, client: Client, machine: UUID) -> None:
        address = (await act(client, machine, "hold", reason=WHY)).headers["location"]
        assert self.DONE in (await client.get(address)).text
        assert self.DONE not in (await client.get(address)).text

    @pytest.mark.parametrize(
        "given", ["held", "held.1.a.b", "held...", ".", "\u0660.\ud7ff", "held.9" + "9" * 5000 + ".a.b"]
    )
    async def test_an_address_that_somebody_made_up_says_nothing(
        self, client: Client, machine: UUID, given: str
    ) -> None:
        page = await client.get(f"/machines/{machine}", params={"said": given})
        assert page.status_code == 200 and self.DONE not in page.text and 'class="notice"' not in page.text

    async def test_it_is_said_to_nobody_else_and_of_no_other_machine(
        self, client: Client, machine: UUID, machines: MakeMachines
    ) -> None:
        (other,) = machines(1)
        address = (await act(client, machine, "hold", reason=WHY)).headers["location"]
        assert self.DONE not in (await client.get(address, headers={HEADER: "Eve"})).text
        assert self.DONE not in (await client.get(address.replace(str(machine), str(other)))).text
        assert self.DONE in (await client.get(address)).text

    def test_it_is_not_said_later(self) -> None:
        now = [1000.0]
        visits = Visits(Access(token=TOKEN), lambda: now[0])
        given = visits.notice("person Ada", "there", "held")
        now[0] += NOTICE_SECONDS
        assert visits.noticed("person Ada", "there", given) is None
        now[0] -= 1
        assert visits.noticed("person Ada", "there", given) == "held"


async def test_a_database_that_is_away_is_told() -> None:
    application = app(NOWHERE, allow_actions=True, trusted_header=HEADER, token=TOKEN)
    csrf = Visits(Access(token=TOKEN)).form_token("person Ada")
    async with Client(application, headers={HEADER: "Ada"}) as client:
        answer = await client.post(f"/machines/{uuid4()}/hold", {"csrf": csrf, "reason": WHY})
        assert answer.status_code == 503 and "does not answer" in answer.text
    await application.state.site.close()


async def test_the_page_of_whoever_may_not_act_has_no_forms(database: str, machine: UUID) -> None:
    application = app(database)
    async with Client(application) as client:
        page = await client.get(f"/machines/{machine}")
        assert page.status_code == 200 and '<form method="post"' not in page.text
    await application.state.site.close()
