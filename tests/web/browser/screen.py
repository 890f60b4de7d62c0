"""A window of the browser that notes whatever goes wrong in it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, ViewportSize

# The programs that will do, the first that is on the PATH. Keep tools/install_chromium.sh alike.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NARROW = ViewportSize(width=390, height=844)
WIDE = ViewportSize(width=1280, height=900)
SERIOUS = ("serious", "critical")

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => {
  window.violations.push(event.violatedDirective + " " + event.blockedURI);
});
"""
_OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
_WIDEST = """
[...document.querySelectorAll("body *")]
  .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 5).map(element => element.outerHTML.slice(0, 120))
"""


class Screen:
    """One page in a context of its own: it keeps its own cookies."""

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
        self._context.set_default_timeout(20_000)
        self._context.add_init_script(_WATCH)
        self.page: Page = self._context.new_page()
        self.wrong: list[str] = []
        self.forgiven: tuple[str, ...] = ()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("response", self._answered)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console {message.type}: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} for {response.url}")

    def go(self, address: str, status: int = 200) -> Page:
        """Opens an address, which must answer with this status."""
        answer = self.page.goto(address)
        assert answer is not None and answer.status == status, f"{answer and answer.status} for {address}"
        return self.page

    def check(self) -> None:
        """Nothing has gone wrong so far, but for what is forgiven."""
        wrong = [each for each in self.wrong if not any(text in each for text in self.forgiven)]
        wrong += self.page.evaluate("window.violations ?? []")
        assert not wrong, "\n".join(wrong)

    def check_accessible(self) -> None:
        """axe finds nothing serious in the page as it is shown."""
        found: dict[str, Any] = Axe().run(self.page, options={"resultTypes": ["violations"]}).response
        serious = [
            f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:3]]}"
            for violation in found["violations"]
            if violation["impact"] in SERIOUS
        ]
        assert not serious, "\n".join(serious)

    def check_fits(self) -> None:
        """Nothing is wider than the window, but for what scrolls by itself."""
        overflow = self.page.evaluate(_OVERFLOW)
        assert overflow <= 0, f"{overflow} px too wide: {self.page.evaluate(_WIDEST)}"

    def look(self, *, closely: bool = True) -> None:
        """Looks at the page in all ways: light and wide, then dark and on a telephone, then light and wide again.

        Not `closely`, axe looks at it once only: the other way finds faults of colours, which another test has seen.
        """
        if closely:
            self.check_accessible()
        self.check_fits()
        self.page.emulate_media(color_scheme="dark")
        self.page.set_viewport_size(NARROW)
        self.check_accessible()
        self.check_fits()
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.close()
