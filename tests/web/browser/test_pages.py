"""Every page in a browser: light and dark, wide and narrow, without a complaint of the browser or of axe."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from playwright.sync_api import expect

import bmdb
from tests.web.browser.screen import Screen
from tests.web.fleet import AGENT_START, INSPECTION

PAGES = {
    "fleet": "/",
    "machines": "/machines",
    "machines, filtered": "/machines?state=leased&tag=provided",
    "tags": "/tags",
    "sessions": "/sessions",
    "processes": "/processes",
    "process": f"/processes/{AGENT_START.name}",
    "machine": "/machines/{machine}",
    "explanation": "/machines/{machine}/explain/" + AGENT_START.name,
    "session": "/sessions/{session}",
}


@pytest.fixture(scope="package")
def session(fleet: str, machine: UUID) -> UUID:
    """The session that holds the machine."""
    with bmdb.connect(fleet, component="looking") as connection:
        return connection._read(lambda q: q.work_on([machine]))[0].session_id


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_fit_to_be_seen(screen: Screen, pages: str, machine: UUID, session: UUID, page: str) -> None:
    screen.go(pages + PAGES[page].format(machine=machine, session=session))
    expect(screen.page.locator(".problem")).to_have_count(0)
    expect(screen.page.get_by_role("heading", level=1)).to_have_count(1)
    screen.look()


def test_from_page_to_page(screen: Screen, pages: str) -> None:
    shown = screen.go(pages)
    navigation = shown.get_by_role("navigation", name="Pages")
    for name in ("Machines", "Sessions", "Processes", "Fleet"):
        navigation.get_by_role("link", name=name).click()
        expect(shown.get_by_role("heading", level=1)).to_have_text(name)
        expect(navigation.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
    navigation.get_by_role("link", name="Processes").click()
    shown.get_by_role("rowheader").get_by_role("link", name=INSPECTION.name).click()
    expect(shown.get_by_role("heading", level=1)).to_have_text(f"Process {INSPECTION.name}")
    navigation.get_by_role("link", name="Sessions").click()
    shown.get_by_role("row", name=re.compile("agent-starter")).first.get_by_role("link").click()
    expect(shown.locator("#panel-info")).to_contain_text("agent-starter")
    shown.locator("#panel-history").get_by_role("rowheader").get_by_role("link").first.click()
    expect(shown.get_by_role("heading", level=1)).to_contain_text("Machine ")


def test_a_process_tells_what_it_is(screen: Screen, pages: str) -> None:
    shown = screen.go(f"{pages}/processes/{AGENT_START.name}")
    expect(shown.locator("#panel-definition")).to_contain_text("after 3 losses in a row")
    expect(shown.locator("#panel-definition").get_by_role("link", name="ShepherdRecovery")).to_be_visible()
    expect(shown.locator("#panel-eligibility pre")).to_contain_text("machine_provided")
    expect(shown.locator("#panel-plan pre")).to_contain_text("cost=")
    expect(shown.locator("#panel-throughput")).to_contain_text("Finished")
    expect(shown.locator("#panel-causes")).to_contain_text(re.compile("refused|no answer|input/output"))
    expect(shown.locator("#panel-backlog")).to_contain_text("may be leased now")


def test_a_provider_is_a_link_to_its_console(screen: Screen, pages: str, machine: UUID) -> None:
    shown = screen.go(f"{pages}/machines/{machine}")
    link = shown.get_by_role("link", name="Open it at Equinix")
    answer = shown.request.get(pages + (link.get_attribute("href") or ""), max_redirects=0)
    assert answer.status == 302
    assert re.fullmatch(r"https://console\.example/devices/device-\d+", answer.headers["location"])


class TestFilters:
    def test_by_state_tag_and_process(self, screen: Screen, pages: str, machine: UUID) -> None:
        shown = screen.go(f"{pages}/machines")
        form = shown.get_by_role("search", name="Machines")
        form.get_by_label("State").select_option("leased")
        form.get_by_label("Process").fill(INSPECTION.name)
        form.get_by_label("Has tag").select_option("agent_started")
        form.get_by_role("button", name="Show").click()
        expect(shown.get_by_role("link", name=str(machine))).to_be_visible()
        rows = shown.locator("#panel-list tbody tr")
        assert 1 <= rows.count() <= 3
        form.get_by_label("Has not").select_option("agent_started")
        form.get_by_role("button", name="Show").click()
        expect(shown.locator("#panel-list")).to_contain_text("No machine is like that")

    def test_by_id(self, screen: Screen, pages: str, machine: UUID) -> None:
        shown = screen.go(f"{pages}/machines")
        shown.keyboard.press("/")
        expect(shown.get_by_label("Id begins with", exact=True)).to_be_focused()
        shown.keyboard.type(str(machine)[:8])
        shown.keyboard.press("Enter")
        expect(shown).to_have_url(re.compile(rf"prefix={str(machine)[:8]}"))
        expect(shown.locator("#panel-list tbody tr")).to_have_count(1)

    def test_by_provider_id(self, screen: Screen, pages: str) -> None:
        shown = screen.go(f"{pages}/machines?provider_id=device-7")
        expect(shown.locator("#panel-list tbody tr")).to_have_count(1)


class TestKeyboard:
    def test_the_first_stop_is_the_way_to_the_content(self, screen: Screen, pages: str) -> None:
        shown = screen.go(pages)
        shown.keyboard.press("Tab")
        expect(shown.get_by_role("link", name="Skip to the content")).to_be_focused()
        shown.keyboard.press("Enter")
        expect(shown.locator("main")).to_be_focused()

    def test_rows_are_gone_through_and_opened(self, screen: Screen, pages: str) -> None:
        shown = screen.go(f"{pages}/machines")
        links = shown.locator("#panel-list tbody tr th a")
        shown.keyboard.press("j")
        expect(links.nth(0)).to_be_focused()
        shown.keyboard.press("j")
        shown.keyboard.press("j")
        shown.keyboard.press("k")
        expect(links.nth(1)).to_be_focused()
        wanted = links.nth(1).inner_text()
        shown.keyboard.press("Enter")
        expect(shown.get_by_role("heading", level=1)).to_have_text(f"Machine {wanted}")


def test_the_theme_is_chosen_and_kept(screen: Screen, pages: str) -> None:
    shown = screen.go(pages)
    light = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    shown.get_by_role("button", name="Switch between light and dark").click()
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    shown.reload()
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    screen.check_accessible()
