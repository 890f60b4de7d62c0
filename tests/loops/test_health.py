"""The pages that --listen serves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb.loops.health import split
from tests.conftest import MakeMachines
from tests.loops.conftest import MakeLoop, Start, agent_started
from tests.loops.test_outcomes import Events
from tests.processes import eventually


def get(runner: bmdb.Runner, page: str) -> tuple[int, str]:
    """Status and body of the page."""
    assert runner.address is not None
    host, port = runner.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{page}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def health(runner: bmdb.Runner) -> tuple[int, dict[str, Any]]:
    """Status and document of /healthz."""
    status, body = get(runner, "/healthz")
    return status, json.loads(body)


def test_it_is_well_while_every_loop_has_a_session(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(3)
    runner = start(make_loop(agent_started), listen="127.0.0.1:0")
    eventually(lambda: len(events()) == 3)
    eventually(lambda: health(runner)[0] == 200)
    _, document = health(runner)
    assert document["status"] == "ok"
    (loop,) = document["loops"]
    assert (loop["name"], loop["process"], loop["running"]) == ("agent_started", "ShepherdAgentStart", 0)
    assert (loop["leased"], loop["ended"], loop["well"]) == (3, {"finished": 3}, True)
    assert loop["session"]


def test_it_is_not_well_before_the_database_is_reached(make_loop: MakeLoop) -> None:
    runner = bmdb.Runner(make_loop(agent_started), "host=127.0.0.1 port=1", listen="127.0.0.1:0").start()
    try:
        assert health(runner) == (503, {"status": "starting", "hints": False, "loops": []})
    finally:
        runner.stop()
        assert runner.wait(10.0)


def test_it_is_not_well_after_a_while_without_a_session(
    make_loop: MakeLoop, start: Start, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmdb.loops.state.PATIENCE", 0.0)
    runner = start(make_loop(agent_started, interval=1.0, max_idle=0.1), listen="127.0.0.1:0")
    eventually(lambda: health(runner)[0] == 200)
    sql.execute("ALTER TABLE sessions RENAME TO hidden")
    eventually(lambda: health(runner)[0] == 503)
    _, document = health(runner)
    assert document["status"] == "unwell" and document["loops"][0]["session"] is None
    sql.execute("ALTER TABLE hidden RENAME TO sessions")
    eventually(lambda: health(runner)[0] == 200)


def test_it_is_not_well_while_it_stops(
    start: Start, provided: MakeMachines, has_leases: Any, make_loop: MakeLoop
) -> None:
    import threading

    from tests.loops.conftest import PROCESS, waiting

    provided(1)
    release = threading.Event()

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0)
    def hold(work: bmdb.Work) -> None:
        release.wait(20)

    runner = start(hold, listen="127.0.0.1:0")
    has_leases(1)
    runner.stop()
    status, document = health(runner)
    assert (status, document["status"], document["loops"][0]["running"]) == (503, "stopping", 1)
    release.set()
    assert runner.wait(10.0)
    with pytest.raises(urllib.error.URLError):
        get(runner, "/healthz")


def test_metrics_are_those_of_all_connections(make_loop: MakeLoop, start: Start, provided: MakeMachines) -> None:
    provided(2)
    runner = start(make_loop(agent_started), listen="127.0.0.1:0")
    eventually(lambda: runner.states() and runner.states()[0].ended == {"finished": 2})
    status, body = get(runner, "/metrics")
    assert status == 200
    (line,) = [
        line for line in body.splitlines() if line.startswith("bmdb_work_finished{") and 'result="finished"' in line
    ]
    assert 'processor="ShepherdAgentStart"' in line and line.endswith(" 2.0")


def test_other_pages_are_not_there(make_loop: MakeLoop, start: Start) -> None:
    runner = start(make_loop(agent_started), listen="[::1]:0")
    assert get_6(runner) == 404


def get_6(runner: bmdb.Runner) -> int:
    assert runner.address is not None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://[::1]:{runner.address[1]}/secrets", timeout=5)
    with caught.value as error:
        return int(error.code)


@pytest.mark.parametrize("listen", ["8080", "host:", "host:port", "host:65536", "[::1]"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(bmdb.ConfigError, match="HOST:PORT"):
        split(listen)


def test_a_port_that_is_taken_is_told_at_the_start(make_loop: MakeLoop, start: Start, database: str) -> None:
    runner = start(make_loop(agent_started), listen="127.0.0.1:0")
    assert runner.address is not None
    with pytest.raises(bmdb.ConfigError, match="cannot listen on"):
        bmdb.Runner(make_loop(agent_started), database, listen=f"127.0.0.1:{runner.address[1]}").start()
