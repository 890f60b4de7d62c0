"""What is shown stays true without anybody's doing, and says so when it does not."""

from __future__ import annotations

import re

import psycopg
from playwright.sync_api import Browser, expect

import bmdb
from bmdb.web import app
from tests.web.browser.screen import Screen
from tests.web.serving import serving


def test_what_happens_appears_by_itself(screen: Screen, pages: str, fleet: str) -> None:
    shown = screen.go(f"{pages}/sessions")
    expect(shown.locator("#panel-list")).not_to_contain_text("a late one")
    with bmdb.connect(fleet, component="a late one") as connection, connection.start_session():
        expect(shown.locator("#panel-list")).to_contain_text("a late one")
    expect(shown.locator("#panel-list")).not_to_contain_text("a late one")


def test_what_somebody_has_opened_and_chosen_stays(screen: Screen, pages: str, fleet: str) -> None:
    shown = screen.go(f"{pages}/sessions")
    link = shown.locator("#panel-list tbody th a").first
    link.focus()
    first = shown.locator("#panel-list time").first.inner_text()
    expect(shown.locator("#panel-list time").first).not_to_have_text(first)
    expect(link).to_be_focused()


def test_a_panel_fails_alone(screen: Screen, pages: str, fleet: str, machine: object) -> None:
    screen.forgiven = ("503",)
    shown = screen.page
    with psycopg.connect(fleet) as sql:
        sql.execute("LOCK TABLE work_backoff IN ACCESS EXCLUSIVE MODE")
        shown.goto(f"{pages}/machines/{machine}")
        expect(shown.locator("#panel-backoffs .problem")).to_be_visible()
        expect(shown.locator("#panel-work tbody tr")).not_to_have_count(0)
        expect(shown.locator("#panel-history tbody tr")).not_to_have_count(0)
        sql.rollback()
    expect(shown.locator("#panel-backoffs .problem")).to_have_count(0)


def test_old_data_says_how_old_it_is(browser: Browser, fleet: str) -> None:
    with Screen(browser) as screen:
        with serving(app(fleet, refresh=1.0)) as address:
            shown = screen.go(f"{address}/sessions")
            expect(shown.get_by_role("status")).to_have_text("Live")
        expect(shown.get_by_role("status")).to_have_text("Not up to date")
        expect(shown.locator("#panel-list .stale")).to_have_text(
            re.compile(r"[0-9]+ s old: the server does not answer")
        )
        expect(shown.locator("#panel-list tbody tr").first).to_be_visible()
