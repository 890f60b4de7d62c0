"""What hostile people write into a fleet is text: it neither runs, nor turns around, nor breaks a layout."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.web.browser.screen import Screen
from tests.web.fleet import HOSTILE_PROCESS, SCRIPT, Hostile

UNSEEN = "\u202e\u2066\x1b\x07"
PAGES = {
    "fleet": "/",
    "machines": "/machines",
    "machine": "/machines/{machine}",
    "explanation": "/machines/{machine}/explain/" + quote(HOSTILE_PROCESS, safe=""),
    "sessions": "/sessions",
    "session": "/sessions/{session}",
    "processes": "/processes",
    "process": "/processes/" + quote(HOSTILE_PROCESS, safe=""),
    "tags": "/tags",
}


@pytest.mark.parametrize("page", PAGES)
def test_it_is_text(screen: Screen, pages: str, enemy: Hostile, page: str) -> None:
    shown = screen.go(pages + PAGES[page].format(machine=enemy.machine, session=enemy.session))
    for summary in shown.locator("main details > summary").all():
        summary.click()
    whole = shown.evaluate("document.documentElement.textContent")
    assert not set(UNSEEN) & set(whole)
    assert shown.evaluate("window.pwned") is None
    assert shown.locator("main img, main b[onclick], main script").count() == 0
    screen.look(closely=False)


def test_it_is_there_to_be_read(screen: Screen, pages: str, enemy: Hostile) -> None:
    shown = screen.go(f"{pages}/machines/{enemy.machine}")
    shown.locator("#panel-history details > summary").first.click()
    expect(shown.locator("#panel-history")).to_contain_text(SCRIPT)
    expect(shown.locator("#panel-history")).to_contain_text("\\u202e")
    expect(shown.locator("#panel-tags")).to_contain_text(SCRIPT)
    expect(shown.locator("#panel-holds")).to_contain_text("\\x1b[31mred")
    shown = screen.go(f"{pages}/sessions/{enemy.session}")
    expect(shown.locator("#panel-info")).to_contain_text(SCRIPT)
    expect(shown.locator("#panel-info")).to_contain_text("{{7*7}}")


def test_its_links_lead_to_its_pages(screen: Screen, pages: str, enemy: Hostile) -> None:
    shown = screen.go(f"{pages}/sessions/{enemy.session}")
    shown.locator("#panel-leases tbody td a").first.click()
    expect(shown.get_by_role("heading", level=1)).to_contain_text("Hostile/../<b onclick=x>&?#%2f")
    expect(shown.locator("#panel-definition")).to_contain_text("1")
    expect(shown.locator("#panel-causes")).to_contain_text("Traceback")


def test_a_hostile_address_is_text(screen: Screen, pages: str) -> None:
    screen.forgiven = ("400", "404")
    script = quote(SCRIPT, safe="")
    for path in (f"/machines?prefix={script}", f"/processes/{script}", f"/machines?said={script}"):
        screen.page.goto(pages + path)
        assert screen.page.evaluate("window.pwned") is None
        assert screen.page.locator("main img").count() == 0
