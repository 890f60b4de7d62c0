"""`bmdb stats`: once, and for Prometheus; statistics of one's own in both, and in `bmdb run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Answer, Documents, fail
from tests.processes import eventually

import bmdb

OWN = """
    import bmdb

    @bmdb.statistic("nodes", labels=("region", "kind"))
    def nodes(q):
        return q.fetch("SELECT 'eu', 'big', count(*) FROM machines")

    @bmdb.statistic("answer")
    async def answer(q):
        return 42

    @bmdb.statistic("wrong")
    def wrong(q):
        raise LookupError("hostile \\x1b[31m")

    @bmdb.loop("UnitTest1", retrieve=lambda q: [])
    def one(work): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of statistics in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stats_own.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "stats_none.py").write_text("")
    return tmp_path


def test_once_as_a_table_and_as_json(
    session: bmdb.Session, machines: Any, document: Documents, bmdb_command: Answer
) -> None:
    (machine, *_) = machines(3)
    fail(session, machine, "no")
    with session.work("UnitTest2", lambda q: [machine]):
        numbers = document("stats")
        rows = [line.split() for line in bmdb_command("stats")[1].splitlines()]
    assert numbers["machines"] == 3 and numbers["sessions"] == {"live": 1, "expired": 0}
    assert (numbers["active_work"], numbers["active_backoffs"]["UnitTest1"]) == ({"UnitTest2": 1}, 1)
    assert (numbers["user"], numbers["errors"]) == ({}, {})
    assert ["machines", "3"] in rows
    assert ["active", "work", "UnitTest2", "1"] in rows


@pytest.mark.usefixtures("own")
def test_a_statistic_that_fails_takes_no_other_away_and_is_told(bmdb_command: Answer, machines: Any) -> None:
    machines(1)
    status, output, errors = bmdb_command("stats", "--statistics", "stats_own")
    rows = [line.split() for line in output.splitlines()]
    assert status == 1
    assert (
        ["machines", "1"] in rows and ["user", "nodes", "eu,", "big", "1"] in rows and ["user", "answer", "42"] in rows
    )
    assert errors.count("\n") == 2 + 1  # the log's warning, the statistic, and the sum of it
    assert r"user wrong cannot be read: LookupError: hostile \x1b[31m" in errors
    status, output, _ = bmdb_command("stats", "--statistics", "stats_own", "--json")
    told = json.loads(output)
    assert status == 1 and told["errors"] == {"user wrong": "LookupError: hostile \x1b[31m"}
    assert told["user"] == {"answer": 42, "nodes": [{"region": "eu", "kind": "big", "value": 1}]}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--statistics", "stats_none"], "stats_none defines no statistics"),
        (["--statistics", "stats_nowhere"], "there is no module stats_nowhere"),
        (["--every", "soon"], "soon"),
        (["--listen", "here"], "HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--json"], "leave out one"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(arguments: list[str], told: str, bmdb_command: Answer) -> None:
    status, output, errors = bmdb_command("stats", *arguments)
    assert (status, output) == (2, "") and told in errors


@contextmanager
def running(database: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of its own process in that folder."""
    environment = {**os.environ, "BMDB_CONNINFO": database}
    command = [sys.executable, "-m", "bmdb", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_listening_it_serves_until_it_is_told_to_end(database: str, own: Path, machines: Any) -> None:
    machines(2)
    with running(database, own, "stats", "--listen", "127.0.0.1:0", "--statistics", "stats_own") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        status, page = get(url)
        assert status == 200
        assert "bmdb_stats_machines 2.0" in page and 'bmdb_user_nodes{kind="big",region="eu"} 2.0' in page
        assert 'bmdb_statistic_up{process="",statistic="user_wrong"} 0.0' in page
        status, health = get(url.replace("/metrics", "/healthz"))
        assert status == 503 and list(json.loads(health)["failing"]) == ["wrong"]
        # Asked once in a minute, however often it is scraped.
        machines(1)
        assert "bmdb_stats_machines 2.0" in get(url)[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_in_bmdb_run_they_stand_beside_the_workers_own(database: str, own: Path, machines: Any) -> None:
    machines(1)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(
        database, own, "run", "stats_own", "--listen", f"127.0.0.1:{port}", "--statistics-every", "1s"
    ) as process:

        def page() -> str:
            try:
                return get(f"http://127.0.0.1:{port}/metrics")[1]
            except urllib.error.URLError:
                return ""

        eventually(lambda: "bmdb_user_answer 42.0" in page())
        told = page()
        assert "bmdb_stats_machines 1.0" in told and 'bmdb_session_started{processor="UnitTest1"} 1.0' in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
