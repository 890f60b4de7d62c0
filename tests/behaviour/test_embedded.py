"""Servers of our own: thrown away whatever way their process ends, or kept and shared by processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from bmdb import embedded
from bmdb.errors import ConfigError, ConnectionFailedError

# Starts a server on its argument (none: throw-away), tells where it is, and waits for a line to end as told.
HOLDER = """
import sys
from bmdb import embedded
server = embedded.start(sys.argv[1] if len(sys.argv) > 1 else None)
print(server.path, server.conninfo, sep="\\n", flush=True)
order = sys.stdin.readline().strip()
if order == "fail":
    raise RuntimeError("as told")
"""


class Holder:
    """A process that holds a server."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", HOLDER, *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdout is not None
        self.path = Path(self._process.stdout.readline().strip())
        self.conninfo = self._process.stdout.readline().strip()

    def end(self, order: str) -> None:
        """Let it return or fail, or send it the signal of this name."""
        if order.startswith("SIG"):
            self._process.send_signal(signal.Signals[order])
        self._process.communicate(f"{order}\n", timeout=60)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the user who runs root's servers may enter, too."""
    with tempfile.TemporaryDirectory(prefix="bmdb-kept-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def answers(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("order", ["return", "fail", "SIGINT", "SIGTERM", "SIGKILL"])
def test_a_throw_away_server_goes_with_its_process(order: str) -> None:
    holder = Holder()
    assert answers(holder.conninfo)
    holder.end(order)
    assert eventually(lambda: not holder.path.exists())
    assert not answers(holder.conninfo)


def test_a_throw_away_server_goes_when_stopped_and_stopping_twice_is_nothing() -> None:
    with embedded.start() as server:
        assert answers(server.conninfo)
        server.stop()
        assert not server.path.exists()


def test_two_throw_away_servers_are_apart() -> None:
    with embedded.start() as one, embedded.start() as other:
        with psycopg.connect(one.conninfo, autocommit=True) as connection:
            connection.execute("CREATE TABLE mine ()")
        with psycopg.connect(other.conninfo) as connection:
            assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_a_forked_child_leaves_the_server_alone() -> None:
    with embedded.start() as server:
        child = os.fork()
        if child == 0:
            server.stop()
            embedded.stop_all()
            os._exit(0)
        os.waitpid(child, 0)
        assert answers(server.conninfo)


def test_a_throw_away_server_goes_though_a_forked_child_lives_on() -> None:
    server = embedded.start()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        server.stop()
        assert not server.path.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_only_the_throw_away_server_is_careless_with_its_data(directory: Path) -> None:
    for path, expected in [(None, "off"), (str(directory / "kept"), "on")]:
        with embedded.start(path) as server, psycopg.connect(server.conninfo) as connection:
            assert connection.execute("SHOW fsync").fetchone() == (expected,)


def test_kept_data_is_there_next_time(directory: Path) -> None:
    path = str(directory / "deep" / "server")
    with embedded.start(path) as server, psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")
    with embedded.start(path) as server, psycopg.connect(server.conninfo) as connection:
        assert connection.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)


def test_a_kept_server_runs_until_its_last_process_ends(directory: Path) -> None:
    path = str(directory / "server")
    first, second = Holder(path), Holder(path)
    assert first.conninfo == second.conninfo
    first.end("return")
    assert answers(second.conninfo)
    second.end("return")
    assert eventually(lambda: not answers(second.conninfo))


def test_a_killed_process_leaves_its_kept_server_to_the_next(directory: Path) -> None:
    path = str(directory / "server")
    holder = Holder(path)
    holder.end("SIGKILL")
    assert answers(holder.conninfo)
    with embedded.start(path) as server:
        assert server.conninfo == holder.conninfo
    assert not answers(holder.conninfo)


@pytest.mark.parametrize("name", ["x" * 120, "two words, and a comma"])
def test_paths_that_do_not_fit_a_socket_work(name: str, directory: Path) -> None:
    with embedded.start(str(directory / name)) as server:
        assert answers(server.conninfo)


def test_a_directory_with_other_files_is_refused(directory: Path) -> None:
    (directory / "letter.txt").write_text("private")
    with pytest.raises(ConfigError, match="holds other files"):
        embedded.start(str(directory))
    assert [path.name for path in directory.iterdir()] == ["letter.txt"]


def test_a_server_that_does_not_start_tells_its_complaint(directory: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="nonsense"):
        embedded.start(settings={"max_connections": "nonsense"})


def test_the_environment_does_not_redirect_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded.start() as server:
        for variable, value in [("PGHOSTADDR", "127.0.0.1"), ("PGPORT", "1"), ("PGDATABASE", "atlantis")]:
            monkeypatch.setenv(variable, value)
        assert answers(server.conninfo)
