"""Takes the pictures in docs/web: `make screenshots`. Of a small fleet at work, on a server that is thrown away."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from playwright.sync_api import Browser, ViewportSize, sync_playwright

import bmdb
from bmdb.web import app
from tests.database import open_server
from tests.processes import eventually
from tests.web.browser.screen import BROWSERS
from tests.web.fleet import AGENT_START, INSPECTION, populate, working
from tests.web.serving import serving

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "web"
LARGEST = 150_000
WIDE = ViewportSize(width=1200, height=760)
NARROW = ViewportSize(width=390, height=760)


@dataclass(frozen=True)
class Picture:
    """A page as it is to be seen."""

    name: str
    path: str
    colours: Literal["light", "dark"] = "light"
    narrow: bool = False


def pictures(failed: UUID) -> list[Picture]:
    """Which pictures there are; `failed` is a machine with something to tell."""
    return [
        Picture("fleet", "/"),
        Picture("fleet-dark", "/", "dark"),
        Picture("machines", "/machines"),
        Picture("machine", f"/machines/{failed}"),
        Picture("machine-narrow", f"/machines/{failed}", narrow=True),
        Picture("process", f"/processes/{AGENT_START.name}"),
    ]


def take(browser: Browser, address: str, picture: Picture) -> None:
    """Writes one picture."""
    page = browser.new_page(
        viewport=NARROW if picture.narrow else WIDE, color_scheme=picture.colours, reduced_motion="reduce"
    )
    page.goto(address + picture.path)
    page.wait_for_load_state("networkidle")
    path = FOLDER / f"{picture.name}.png"
    page.screenshot(path=path)
    page.close()
    size = path.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"error: {path} has {size} bytes, and {LARGEST} at most is wanted")
    print(f"{path}: {size // 1024} KiB")


def troubled(connection: bmdb.Connection) -> UUID:
    """A machine on which starting the agent failed, made more interesting by a person."""
    machines = [machine.machine_id for machine in connection._read(lambda q: q.machines(None, 1000))]
    backoff = connection._read(lambda q: q.backoffs_of(machines))[0]
    connection.hold(backoff.machine_id, INSPECTION, owner="ada", reason="its power supply is on my desk")
    return backoff.machine_id


def main() -> None:
    """Takes them all."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("error: there is no chromium: install Debian's package")
    FOLDER.mkdir(exist_ok=True)
    with (
        open_server() as server,
        server.template() as template,
        server.temporary_database(template) as conninfo,
        bmdb.connect(conninfo, component="screenshots") as connection,
    ):
        populate(conninfo, 48)
        with working(conninfo), serving(app(conninfo, refresh=60.0)) as address, sync_playwright() as playwright:
            eventually(lambda: connection.statistics().active_work.get(INSPECTION.name, 0) >= 3)
            eventually(lambda: sum(connection.statistics().active_backoffs.values()) >= 5)
            machine = troubled(connection)
            browser = playwright.chromium.launch(executable_path=program)
            for picture in pictures(machine):
                take(browser, address, picture)
            browser.close()


if __name__ == "__main__":
    main()
