"""What an operator does with a mouse: logs in, holds, frees and clears, and logs out. History says by whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from playwright.sync_api import Page, expect

import bmdb
from tests.web.browser.screen import Screen
from tests.web.client import TOKEN
from tests.web.fleet import HOSTILE

PROCESS = "UnitTest1"


@pytest.fixture
def connection(fleet: str) -> Iterator[bmdb.Connection]:
    with bmdb.connect(fleet, component="worker") as opened:
        yield opened


@pytest.fixture
def mine(fleet: str) -> UUID:
    """A machine that no loop cares for."""
    machine = uuid4()
    with psycopg.connect(fleet, autocommit=True) as sql:
        sql.execute("INSERT INTO machines (machine_id) VALUES (%s)", [machine])
    return machine


@pytest.fixture
def ada(screen: Screen, console: str, mine: UUID) -> Page:
    """The machine's page, as Ada sees it, who has logged in on the way there."""
    shown = screen.go(f"{console}/machines/{mine}")
    expect(shown.get_by_role("heading", level=1)).to_have_text("Log in")
    screen.check_accessible()
    shown.get_by_label("Your name").fill("Ada")
    shown.get_by_label("Token").fill(TOKEN)
    shown.get_by_role("button", name="Log in").click()
    expect(shown).to_have_url(f"{console}/machines/{mine}")
    return shown


def events(connection: bmdb.Connection, machine: UUID) -> list[tuple[str, str | None]]:
    return [(event.event, event.failed_cause) for event in connection.history_of(machine)]


def test_hold_and_release(ada: Page, screen: Screen, connection: bmdb.Connection, mine: UUID) -> None:
    screen.look()
    hold = ada.get_by_role("group", name="Hold the machine")
    hold.get_by_label("Reason").fill(HOSTILE[:100])
    hold.get_by_role("button", name="Hold").click()
    expect(ada.locator(".notice")).to_have_text("The machine is held.")
    expect(ada.locator("#panel-holds")).to_contain_text("Ada")
    screen.look(closely=False)
    group = ada.get_by_role("group", name="Hold of Ada for all processes")
    group.get_by_label("Reason").fill("mended")
    group.get_by_role("button", name="Release the hold").click()
    expect(ada.locator(".notice")).to_have_text("The hold is released.")
    assert connection.holds(mine) == []
    assert events(connection, mine) == [("Held", f"Ada: {HOSTILE[:100]}"), ("Released", "Ada: mended")]


def test_force_release(ada: Page, screen: Screen, connection: bmdb.Connection, mine: UUID) -> None:
    with connection.start_session() as session:
        work = session.work(PROCESS, lambda q: [mine])
        ada.reload()
        button = ada.get_by_role("button", name="Force-release")
        expect(button).to_be_hidden()
        ada.get_by_text(f"Force-release the lease for {PROCESS}").click()
        screen.look(closely=False)
        button.click()
        assert events(connection, mine)[-1][0] == "Started", "it was neither confirmed nor explained"
        ada.get_by_label("Its holder does no more harm").check()
        ada.locator(".force").get_by_label("Reason").fill("it hangs")
        button.click()
        expect(ada.locator(".notice")).to_have_text("The lease is ended, and its holder is fenced.")
        assert events(connection, mine)[-1] == ("Released", "Ada: it hangs")
        with pytest.raises(bmdb.LeaseLostError):
            work.finish()


def test_a_lease_of_somebody_else_by_now(ada: Page, connection: bmdb.Connection, mine: UUID) -> None:
    with connection.start_session() as session:
        work = session.work(PROCESS, lambda q: [mine])
        ada.reload()
        ada.get_by_text(f"Force-release the lease for {PROCESS}").click()
        work.finish()
        with session.work(PROCESS, lambda q: [mine]) as next_one:
            ada.get_by_label("Its holder does no more harm").check()
            ada.locator(".force").get_by_label("Reason").fill("it hangs")
            ada.get_by_role("button", name="Force-release").click()
            expect(ada.locator(".notice")).to_contain_text("Somebody else has the lease")
            next_one.finish()


def test_backoff_and_quarantine(ada: Page, screen: Screen, connection: bmdb.Connection, fleet: str, mine: UUID) -> None:
    with connection.start_session() as session:
        session.work(PROCESS, lambda q: [mine]).fail("broken", bmdb.Backoff(600, 600, 1))
    with psycopg.connect(fleet, autocommit=True) as sql:
        sql.execute("INSERT INTO work_loss VALUES (%s, 'UnitTest2', 3, now(), now())", [mine])
    ada.reload()
    screen.look(closely=False)
    group = ada.get_by_role("group", name=f"Backoff of {PROCESS}")
    group.get_by_label("Reason").fill("mended")
    group.get_by_role("button", name="End the backoff").click()
    expect(ada.locator(".notice")).to_have_text("The backoff is ended.")
    assert events(connection, mine)[-1] == ("BackoffCleared", "Ada: mended")
    group = ada.get_by_role("group", name="Quarantine of UnitTest2")
    group.get_by_label("Reason").fill("replaced")
    group.get_by_role("button", name="End the quarantine").click()
    expect(ada.locator(".notice")).to_have_text("The quarantine is ended.")
    assert events(connection, mine)[-1] == ("QuarantineReleased", "Ada: replaced")


def test_a_problem_is_told_and_leads_back(ada: Page, screen: Screen, fleet: str, mine: UUID) -> None:
    screen.forgiven = ("404",)
    with psycopg.connect(fleet, autocommit=True) as sql:
        sql.execute("DELETE FROM machines WHERE machine_id = %s", [mine])
    hold = ada.get_by_role("group", name="Hold the machine")
    hold.get_by_label("Reason").fill("why not")
    hold.get_by_role("button", name="Hold").click()
    expect(ada.get_by_role("alert")).to_have_text("There is no such machine.")
    screen.look()


def test_the_login_refuses_and_the_logout_ends(ada: Page, screen: Screen, console: str) -> None:
    screen.forgiven = ("403",)
    ada.get_by_role("button", name="Log out").click()
    expect(ada).to_have_url(f"{console}/login")
    ada.get_by_label("Your name").fill("Eve")
    ada.get_by_label("Token").fill("something else altogether")
    ada.get_by_role("button", name="Log in").click()
    expect(ada.get_by_role("alert")).to_have_text("That is not the token.")
    screen.look()
    screen.go(console)
    expect(ada.get_by_role("heading", level=1)).to_have_text("Log in")


def test_a_login_that_is_over_leads_to_the_login(ada: Page, screen: Screen, console: str) -> None:
    screen.forgiven = ("401",)
    ada.context.clear_cookies()
    # And back to the page from there.
    expect(ada).to_have_url(re.compile(re.escape(f"{console}/login?next=%2F")))
    expect(ada.get_by_role("heading", level=1)).to_have_text("Log in")


def test_whoever_only_looks_sees_no_buttons(screen: Screen, pages: str, machine: UUID) -> None:
    shown = screen.go(f"{pages}/machines/{machine}")
    expect(shown.locator("form[method=post]")).to_have_count(0)
