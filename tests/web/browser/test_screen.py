"""What the other tests here rely on: a screen notices when something is wrong."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.web.browser.screen import Screen

ADDRESS = "http://pages.invalid/"
PAGE = "<!doctype html><html lang=en><title>A page</title><main><h1>A page</h1>{}</main>"


def shown(browser: Browser, inside: str, policy: str = "default-src 'self'") -> Screen:
    """A screen with such a page, which the caller closes."""
    screen = Screen(browser)
    headers = {"content-type": "text/html", "content-security-policy": policy}
    screen.page.route(f"{ADDRESS}*", lambda route: route.fulfill(body=PAGE.format(inside), headers=headers))
    screen.go(ADDRESS)
    return screen


def test_a_page_in_order_passes(browser: Browser) -> None:
    with shown(browser, "<p>Text</p>") as screen:
        screen.look()
        screen.check()


@pytest.mark.parametrize(
    ("inside", "complaint"),
    [
        ("<script>1</script>", "script-src"),
        ("<p style='color: red'>Text</p>", "style-src"),
        ("<img alt='' src='http://evil.invalid/x.png'>", "img-src"),
    ],
)
def test_what_the_policy_forbids_is_noticed(browser: Browser, inside: str, complaint: str) -> None:
    with shown(browser, inside) as screen, pytest.raises(AssertionError, match=complaint):
        screen.check()


def test_errors_are_noticed(browser: Browser) -> None:
    with shown(browser, "<script>console.error('oh'); undefined.x</script>", "default-src 'unsafe-inline'") as screen:
        with pytest.raises(AssertionError, match="console error: oh") as raised:
            screen.check()
        assert "page error" in str(raised.value)


@pytest.mark.parametrize("inside", ["<img src='/x.png'>", "<input>", "<button></button>", "<p lang=nonsense>Text</p>"])
def test_what_not_everybody_can_use_is_noticed(browser: Browser, inside: str) -> None:
    with shown(browser, inside, "default-src 'self' data:") as screen, pytest.raises(AssertionError):
        screen.check_accessible()


def test_what_is_too_wide_is_noticed(browser: Browser) -> None:
    wide = f"<p>{'unbroken' * 20}</p>"
    with shown(browser, wide) as screen, pytest.raises(AssertionError, match="px too wide"):
        screen.look()
