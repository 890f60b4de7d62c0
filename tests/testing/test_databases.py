"""The kit's databases: one for each test, from one server, which goes when the run has ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

import bmdb
from bmdb import testing

seen: list[str] = []


@pytest.mark.parametrize("number", range(3))
def test_each_test_has_a_fresh_database_of_its_own(
    bmdb_database: str, bmdb_connection: bmdb.Connection, number: int
) -> None:
    assert bmdb_database not in seen
    seen.append(bmdb_database)
    assert bmdb_connection.statistics().machines == 0
    with bmdb_connection.start_session() as session:
        session.transact(lambda q: q.new_machine())
    assert bmdb_connection.statistics().machines == 1


def test_the_database_of_an_earlier_test_is_gone(bmdb_server: testing.Server) -> None:
    conninfo = bmdb_server.create()
    bmdb_server.drop(conninfo)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(conninfo)


def test_a_database_is_dropped_under_an_open_connection(bmdb_server: testing.Server) -> None:
    with bmdb_server.database() as conninfo:
        left_open = psycopg.connect(conninfo)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_a_test_rarely_waits_for_its_database(bmdb_server: testing.Server) -> None:
    """They are made ahead: a test that takes longer than making one finds the next one there."""
    waited = []
    for _ in range(5):
        time.sleep(0.3)
        began = time.monotonic()
        with bmdb_server.database():
            waited.append(time.monotonic() - began)
    assert sorted(waited)[2] < 0.03


def test_a_server_that_runs_already_is_left_as_it_was(bmdb_server: testing.Server) -> None:
    def databases() -> set[str]:
        with psycopg.connect(bmdb_server.conninfo) as connection:
            rows = connection.execute("SELECT datname FROM pg_database WHERE datname ~ '^bmdb_(test|template)_'")
            return {name for (name,) in rows}

    with testing.Server(conninfo=bmdb_server.conninfo) as server:
        with server.database() as conninfo, bmdb.connect(conninfo, component="tests") as connection:
            assert connection.schema_version() > 0
            made = {name for name in databases() if name.startswith("bmdb_template_")}
        assert len(made) == 1
    assert not made & databases()


HOLDER = """
import sys
from bmdb import testing
server = testing.Server(sys.argv[1])
server.create()
print(server._own.path, server.conninfo, flush=True)
sys.stdin.readline()
server.close()
"""


def hold(run: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_processes_of_a_run_share_a_server_which_goes_with_the_last_even_if_it_is_killed(tmp_path: Path) -> None:
    run = tmp_path.name + str(time.time_ns())
    first, place = hold(run)
    second, place_again = hold(run)
    assert place and place == place_again
    home = Path(place.split()[0])
    first.communicate("done\n", timeout=30)
    assert first.returncode == 0
    with psycopg.connect(place.split(maxsplit=1)[1]) as connection:
        assert connection.execute("SELECT count(*) FROM pg_database WHERE datname = 'bmdb_template'").fetchone() == (1,)
    postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
    second.kill()
    second.communicate()
    testing.eventually(lambda: not home.exists(), 20.0, "the directory is there")
    testing.eventually(lambda: not Path(f"/proc/{postmaster}/stat").exists(), 20.0, "the server runs on")
