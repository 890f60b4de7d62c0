"""Every Python block of every page under docs/ runs: those of one page one after the other, in one interpreter."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest
from tests.docs.test_readme import run

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    str(path.relative_to(DOCS)): re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    for path in sorted(DOCS.rglob("*.md"))
}
# These have files of their own, which also look at what comes of it.
ELSEWHERE = {"connections.md", "loops.md", "processes.md", "testing.md"}

# What a page's fragments leave to the reader's project.
AROUND = {
    "django.md": """
import functools, os
import django, psycopg
from django.conf import settings
import bmdb

found = psycopg.conninfo.conninfo_to_dict(os.environ["BMDB_CONNINFO"])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": found["dbname"], "USER": found["user"],
    "HOST": found["host"], "PORT": found["port"],
}})
django.setup()
from django.db import connection as django_connection, models

class Agent(models.Model):
    machine = models.UUIDField(null=True)
    stale = models.BooleanField(default=False)
    class Meta: app_label = "fleet"

class Failure(models.Model):
    class Meta: app_label = "fleet"

with django_connection.schema_editor() as editor:
    editor.create_model(Agent)
    editor.create_model(Failure)
BACKOFF = bmdb.Backoff(60)
connection = bmdb.connect(component="docs")
session = connection.start_session()
""",
}
# What the page's fragments must have come to, and what closes what was opened around them.
AFTER = {
    "numbers.md": """
from bmdb.janitor import Janitor

with bmdb.connect(component="docs") as connection:
    report = b'{"region": "eu", "cpu": "x"}'
    statement = "INSERT INTO machine_hardware_report SELECT machine_id, $1 FROM machines"
    connection._read(lambda q: q.execute(statement, report))
janitor = Janitor(None, [region_nodes, oldest_heartbeat])
found = {reading.kind.metric: (reading.error, reading.series) for reading in janitor.read()}
assert found["bmdb_user_region_nodes"] == (None, {("eu", "x"): 5.0}), found
assert found["bmdb_user_oldest_heartbeat_seconds"] == (None, {(): 0.0})
janitor.close()
record = logging.LogRecord("fleet", 20, "", 1, "hello", None, None)
assert handler.filter(record) and handler.format(record) == "hello machine=None token=None"
otel.uninstrument()
""",
    "django.md": """
assert [event.event for event in connection.history_of(work.machine)][-1] == "Failed"
assert (Agent.objects.count(), Failure.objects.count()) == (1, 1)
connection.close()
django_connection.close()
""",
}


def program(page: str) -> str:
    """The page's blocks as one program. `from __future__` has to stay in front."""
    blocks = [re.sub(r"^from __future__ .*$", "", block, flags=re.MULTILINE) for block in PAGES[page]]
    return "\n".join(["from __future__ import annotations", AROUND.get(page, ""), *blocks, AFTER.get(page, "")])


def test_pages_have_examples() -> None:
    """Or the pattern finds none any more."""
    assert {"loops.md", "processes.md", "django.md"} <= {page for page, blocks in PAGES.items() if blocks}


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks and page not in ELSEWHERE])
def test_the_examples_run(page: str, database: str, provided: list[UUID]) -> None:
    run(program(page), database)
