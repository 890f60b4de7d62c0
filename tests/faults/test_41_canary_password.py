"""Row 41: a password that must not show.

Promised: the password of a connection string is in no log record of any level, no representation, no error or its
traceback, no metric, no page, no answer of the command line and no event of the core.
"""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import bmdb
import bmdb.metrics
import bmdb.web
from tests.tls_server import CANARY, TlsServer

Spill = list[str]


@pytest.fixture
def logged() -> Iterator[Spill]:
    """All that any logger says, of every level, with all attributes of its records."""
    said: Spill = []

    class Everything(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{record.getMessage()} {record.__dict__!r} {logging.Formatter().format(record)}")

    handler, root = Everything(level=1), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield said
    root.removeHandler(handler)
    root.setLevel(before)


def uri(tls: TlsServer, **parameters: str) -> str:
    """The same server, as a URI."""
    found: dict[str, Any] = {**conninfo_to_dict(tls.conninfo()), **parameters}
    return f"postgresql://ann:{quote(CANARY)}@{found['hostaddr']}:{found['port']}/postgres"


def ways(tls: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str) -> str:
    """A connection string whose password comes from here or there."""
    if way == "string":
        return tls.conninfo()
    if way == "URI":
        return uri(tls)
    if way == "variable":
        monkeypatch.setenv("PGPASSWORD", CANARY)
    else:
        (tmp_path / "passwords").write_text(f"*:*:*:*:{CANARY}\n")
        (tmp_path / "passwords").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    found: dict[str, Any] = conninfo_to_dict(tls.conninfo())
    del found["password"]
    return make_conninfo("", **found)


@pytest.mark.parametrize("way", ["string", "URI", "variable", "file"])
def test_a_life_tells_nobody_the_password(
    way: str,
    connect: Callable[..., Any],
    tls: TlsServer,
    logged: Spill,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    shown: Spill = []
    connection = connect(ways(tls, monkeypatch, tmp_path, way), component="canary", migrate=True)
    try:
        session = connection.start_session(interval=1)
        machine = session.transact(lambda q: q.new_machine()).machine_id
        work = session.work("build", lambda q: [machine])
        with pytest.raises(bmdb.DatabaseError) as failed:
            session.transact(lambda q: q.execute("SELECT nonsense"))
        shown += [repr(connection), repr(session), repr(work), str(connection), *traced(failed.value)]
        with psycopg.connect(tls.local, autocommit=True) as admin:
            # Beats and statements meet a connection that is gone, and tell it.
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'")
        work.fail(f"no disk on {machine}", bmdb.Backoff(1))
        shown += [repr(connection.metrics()), repr(connection.history_of(machine)), repr(connection.statistics())]
        session.close()
    finally:
        connection.close()
    assert logged, "there is something to look through"
    spilled = sum(CANARY in text for text in [*shown, *logged])
    figure("places that showed the password", spilled, of=len(shown) + len(logged))
    assert spilled == 0


def traced(error: BaseException) -> list[str]:
    """The error in each of the ways in which it is shown."""
    return [str(error), repr(error), repr(error.__dict__), "".join(traceback.format_exception(error))]


@pytest.mark.parametrize(
    "conninfo",
    [
        f"host=127.0.0.1 port=1 user=ann password={CANARY} connect_timeout=2",
        f"host=/nowhere user=ann password={CANARY}",
        f"host=127.0.0.1 user=ann password='{CANARY}",
        f"host=127.0.0.1 user=ann password={CANARY} with spaces",
        f"postgresql://ann:{CANARY}@[::1/postgres",
        f"postgresql://ann:{CANARY}%zz@127.0.0.1/postgres",
        f"host=127.0.0.1 port={CANARY} user=ann",
        f"host=127.0.0.1 sslmode={CANARY} user=ann",
        f"host=127.0.0.1 {CANARY}=x user=ann",
        f"host=127.0.0.1 sslpassword={CANARY} user=ann",
        f"host=127.0.0.1 connect_timeout={CANARY} user=ann",
        f"postgresql://ann:{CANARY}\0@127.0.0.1/postgres",
    ],
    ids=[
        "refused",
        "no socket",
        "quote",
        "space",
        "bracket",
        "percent",
        "port",
        "mode",
        "keyword",
        "key",
        "limit",
        "NUL",
    ],
)
def test_no_failure_to_connect_tells_the_password(conninfo: str, connect: Callable[..., Any], logged: Spill) -> None:
    with pytest.raises(bmdb.Error) as caught:
        connect(conninfo, component="canary")
    assert not [text for text in [*traced(caught.value), *logged] if CANARY in text]


def test_a_wrong_password_is_not_told(connect: Callable[..., Any], tls: TlsServer, logged: Spill) -> None:
    with pytest.raises(bmdb.ConnectionFailedError) as caught:
        connect(tls.conninfo(password=f"{CANARY}-wrong"), component="canary")
    assert not [text for text in [*traced(caught.value), *logged] if CANARY in text]


@pytest.mark.one_twin
async def test_no_page_and_no_metric_shows_the_password(tls: TlsServer, logged: Spill) -> None:
    with bmdb.connect(tls.conninfo(), component="canary", migrate=True) as connection:
        registry = CollectorRegistry()
        registry.register(bmdb.metrics.Collector(connection))
        assert CANARY not in generate_latest(registry).decode()
        with connection.start_session() as session:
            machine = session.transact(lambda q: q.new_machine()).machine_id
            for conninfo in (tls.conninfo(), tls.conninfo(port="1", connect_timeout="2")):
                app = bmdb.web.app(conninfo, refresh=1e-6)
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="http://localhost", follow_redirects=True
                ) as client:
                    for path in (
                        "/",
                        "/machines",
                        f"/machines/{machine}",
                        f"/sessions/{session.uuid}",
                        "/sessions",
                        "/no",
                    ):
                        answer = await client.get(path)
                        assert CANARY not in f"{answer.text} {answer.headers}"
                assert CANARY not in f"{app!r} {app.state.site!r} {vars(app.state)!r}"
                await app.state.site.close()
    assert not [text for text in logged if CANARY in text]


@pytest.mark.one_twin
@pytest.mark.parametrize("verb", ["doctor", "sessions", "migrate", "stats"])
@pytest.mark.parametrize("reachable", [True, False], ids=["reachable", "unreachable"])
def test_the_command_line_does_not_show_the_password(verb: str, reachable: bool, tls: TlsServer) -> None:
    conninfo = tls.conninfo() if reachable else tls.conninfo(port="1", connect_timeout="2")
    ended = subprocess.run(
        [sys.executable, "-m", "bmdb", verb, "--json", "-c", conninfo],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode == 0) is reachable or verb == "doctor"
    assert CANARY not in ended.stdout + ended.stderr


@pytest.mark.one_twin
def test_printing_all_that_a_connection_knows_of_itself_shows_no_password(tls: TlsServer) -> None:
    """As a debugger or an error tracker does: the conninfo alone may hold it, and says so."""
    with bmdb.connect(tls.conninfo(), component="canary", migrate=True) as connection:
        out = io.StringIO()
        for name in dir(connection):
            if not name.startswith("__") and name not in ("conninfo", "_conninfo"):
                print(name, repr(getattr(connection, name)), file=out)
        assert CANARY not in out.getvalue()
