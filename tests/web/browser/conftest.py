"""One Chromium for all tests here, a fleet at work, and the pages behind a real server.

The browser is Debian's, or any other on the PATH: `make test` installs it where it can. Without one these tests are
skipped, except in CI (the variable CI is set), where that is a failure. Playwright's loop stays on the thread that it
was started on, which pytest-asyncio needs for others: so all fixtures end with this folder, and no test here is async.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

import bmdb
from bmdb.web import app
from tests.database import Server
from tests.processes import eventually
from tests.web.browser.screen import BROWSERS, Screen
from tests.web.client import TOKEN
from tests.web.fleet import Hostile, hostile, populate, working
from tests.web.serving import serving

MACHINES = 40
# Milliseconds that something may take to appear: long, for the sake of busy computers.
PATIENCE = 20_000

Open = Callable[..., Screen]


@pytest.fixture(scope="package")
def chromium() -> Path:
    """The browser's program."""
    for name in BROWSERS:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    missing = "there is no chromium, so the pages were tested in NO BROWSER: install Debian's package chromium"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="package")
def browser(chromium: Path) -> Iterator[Browser]:
    """The browser, running, without a window."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def fleet(server: Server, template: str, chromium: Path) -> Iterator[str]:
    """Connection string of a database in which loops work on machines; some have been started, some have failed."""
    with server.temporary_database(template) as conninfo:
        populate(conninfo, MACHINES)
        with working(conninfo), bmdb.connect(conninfo, component="looking") as connection:

            def under_way() -> bool:
                counted = connection.statistics()
                return (
                    sum(counted.active_backoffs.values()) >= 1 and counted.active_work.get("HardwareInspection", 0) >= 3
                )

            eventually(under_way)
            yield conninfo


@pytest.fixture(scope="package")
def enemy(fleet: str) -> Iterator[Hostile]:
    """What hostile people have put into the fleet."""
    with hostile(fleet) as there:
        yield there


@pytest.fixture(scope="package")
def pages(fleet: str) -> Iterator[str]:
    """Address of the pages, for everybody to look at."""
    providers = {"Equinix": "https://console.example/devices/{provider_id}"}
    with serving(app(fleet, providers=providers, refresh=1.0)) as address:
        yield address


@pytest.fixture(scope="package")
def console(fleet: str) -> Iterator[str]:
    """Address of the pages with actions, for those who have the token."""
    with serving(app(fleet, allow_actions=True, token=TOKEN, refresh=1.0)) as address:
        yield address


@pytest.fixture
def screen(browser: Browser) -> Iterator[Screen]:
    """A window of the browser that knows nobody yet. At its end nothing may have gone wrong in it."""
    with Screen(browser) as opened:
        yield opened
        opened.check()


@pytest.fixture(scope="package")
def machine(fleet: str) -> UUID:
    """A machine that is leased for a while."""
    with bmdb.connect(fleet, component="looking") as connection:
        machines = [known.machine_id for known in connection._read(lambda q: q.machines(None, 1000))]
        leased = [
            work for work in connection._read(lambda q: q.work_on(machines)) if work.process == "HardwareInspection"
        ]
        return leased[0].machine_id
