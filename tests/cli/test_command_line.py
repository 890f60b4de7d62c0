"""Exit statuses, one-line errors, secrets, interruption, and the commands that need no database."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from tests.processes import Spawn

import bmdb
from bmdb import demo
from bmdb.cli import main

Output = pytest.CaptureFixture[str]
PROGRAMS = [[sys.executable, "-m", "bmdb"], [str(Path(sys.executable).with_name("bmdb"))]]


@pytest.fixture(autouse=True)
def no_database_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BMDB_CONNINFO", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mute_server() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def one_error(capsys: Output) -> str:
    """The only line of standard error; nothing was answered."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bmdb: ")
    assert captured.err.endswith("\n") and captured.err.count("\n") == 1
    return captured.err


class TestPrograms:
    @pytest.mark.parametrize("program", PROGRAMS, ids=["module", "script"])
    def test_both_names_of_the_command_answer_and_fail_alike(self, program: list[str]) -> None:
        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60)

        answered = run("backoff", "--initial", "2", "-n", "2", "--json")
        assert (answered.returncode, answered.stderr) == (0, "")
        assert [period["seconds"] for period in json.loads(answered.stdout)["periods"]] == [2, 2]
        refused = run("sessions")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == "bmdb: no database given: say --conninfo CONNINFO, or set BMDB_CONNINFO\n"
        failed = run("sessions", "--conninfo", "host=127.0.0.1 port=1 password=canary")
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
        assert failed.stderr.startswith("bmdb: could not connect to 127.0.0.1:1")
        assert "canary" not in failed.stderr

    @pytest.mark.parametrize("package", ["typer", "rich", "plotext"])
    def test_a_missing_extra_is_named(self, package: str) -> None:
        source = f"import sys; sys.modules[{package!r}] = None; from bmdb.cli import main; sys.exit(main(['backoff']))"
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr == f'bmdb: the command line needs {package}: pip install "pybmdb[cli]"\n'

    def test_another_missing_module_is_no_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "bmdb.cli.run", None)
        with pytest.raises(ModuleNotFoundError, match=r"bmdb\.cli\.run"):
            main([])

    def test_ctrl_c_ends_it_quietly(self, spawn: Spawn, mute_server: socket.socket) -> None:
        port = mute_server.getsockname()[1]
        source = "import sys; from bmdb.cli import main; sys.exit(main(sys.argv[1:]))"
        worker = spawn(source, "sessions", "-c", f"host=127.0.0.1 port={port} sslmode=disable user=u dbname=d")
        with mute_server.accept()[0] as client:
            client.recv(1)
            worker.interrupt()
            assert worker.wait(10) == 128 + signal.SIGINT
        assert worker.errors == worker.lines == []

    def test_a_closed_pipe_ends_it_quietly(self) -> None:
        command = [*PROGRAMS[0], "backoff", "-n", "10000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None and running.stderr is not None
            assert running.stdout.readline().startswith("FAILURE")
            running.stdout.close()
            assert running.stderr.read() == ""
        assert running.returncode == 128 + signal.SIGPIPE

    def test_a_full_disk_is_one_line(self) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*PROGRAMS[0], "backoff", "--json"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        assert done.returncode == 1
        assert done.stderr == "bmdb: the answer cannot be written: No space left on device\n"

    def test_what_the_encoding_lacks_is_shown_by_number_and_not_plotted(self) -> None:
        done = subprocess.run(
            [*PROGRAMS[0], "backoff", "--initial", "1ö"],
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert done.returncode == 2
        assert r"'1\xf6' is no duration" in done.stderr
        plain = subprocess.run(
            [*PROGRAMS[0], "backoff"],
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert plain.returncode == 0
        assert plain.stdout.splitlines()[-1].split()[0] == "5"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["sesions"], "No such command 'sesions'"),
            (["sessions", "--colour"], "No such option: --colour"),
            (["sessions", "--limit", "0"], "--limit"),
            (["sessions", "--after", "x"], "--after"),
            (["history"], "Missing argument 'MACHINE'"),
            (["history", "web-17"], "'MACHINE'"),
            (["migrate", "--to", "-1", "embedded:"], "--to"),
            (["migrate", "embedded:", "-c", "embedded:"], "two databases given"),
            (["machines"], "no database given"),
            (["machines", "-c", ""], "no database given"),
            (["stats", "-c", "host=x nonsense"], "conninfo"),
            (["backoff", "--initial", "soon"], "is no duration"),
            (["backoff", "--exponent", "nan"], "exponent must be finite"),
            (["backoff", "--exponent", "-1"], "exponent"),
            (["backoff", "-n", "0"], "-n"),
            (["demo", "--workers", "1"], "--workers"),
            (["demo", "--rack", "/nowhere.csv"], "--rack"),
        ],
    )
    def test_a_line_that_cannot_be_used_is_status_2(self, arguments: list[str], complaint: str, capsys: Output) -> None:
        assert main(arguments) == 2
        assert complaint in one_error(capsys)

    def test_complaints_say_where_to_read_on(self, capsys: Output) -> None:
        main(["sessions", "surplus"])
        assert one_error(capsys).endswith("(see bmdb sessions --help)\n")

    @pytest.mark.parametrize("secret", ["postgresql://u:canary@h/d", "host=h password=canary", "password = 'canary'"])
    @pytest.mark.parametrize(
        "line",
        [
            ["sessions", "{}"],
            ["{}"],
            ["--{}"],
            ["sessions", "--limit", "{}"],
            ["sessions", "--limit={}"],
            ["history", "{}"],
            ["sessions", "--conninfo={}&&"],
            ["sessions", "-c{}&&"],
            ["migrate", "{}", "{}"],
            ["backoff", "--initial", "{}"],
        ],
        ids=" ".join,
    )
    def test_no_secret_is_repeated(self, line: list[str], secret: str, capsys: Output) -> None:
        status = main([part.format(secret) for part in line])
        captured = capsys.readouterr()
        assert status in (1, 2)
        assert captured.err.count("\n") == 1
        assert "canary" not in captured.out + captured.err

    def test_help_tells_the_statuses_and_nothing_at_all_is_help_too(self, capsys: Output) -> None:
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        assert "Exit status:" in shown
        assert {"0", "1", "2", "130"} <= {line.split()[0] for line in shown.splitlines() if line.strip()}
        assert main([]) == 2
        assert capsys.readouterr().out == shown

    @pytest.mark.parametrize(
        "command",
        ["demo", "migrate", "sessions", "machines", "history", "stats", "backoff", "release-quarantine", "hold"],
    )
    def test_each_command_has_help(self, command: str, capsys: Output) -> None:
        assert main([command, "-h"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: bmdb {command} ")

    def test_version(self, capsys: Output) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"bmdb {bmdb.__version__}\n"


class TestBackoff:
    def test_periods_and_their_sum_as_json(self, capsys: Output) -> None:
        assert main(["backoff", "--initial", "1m", "--exponent", "2", "--maximum", "5m", "--json"]) == 0
        periods = [60, 120, 240, 300, 300]
        assert json.loads(capsys.readouterr().out) == {
            "initial": 60.0,
            "exponent": 2.0,
            "maximum": 300.0,
            "periods": [
                {"failure": number, "seconds": seconds, "cumulative_seconds": total}
                for number, (seconds, total) in enumerate(zip(periods, accumulate(periods), strict=True), start=1)
            ],
        }

    def test_the_table_and_the_plot(self, capsys: Output) -> None:
        assert main(["backoff", "--initial", "1m", "--exponent", "1.1", "--maximum", "1h", "-n", "45"]) == 0
        table, _, plot = capsys.readouterr().out.partition("\n\n")
        rows = [line.split(maxsplit=1) for line in table.splitlines()]
        assert rows[0] == ["FAILURE", "PERIOD   SECONDS  IN ALL"]
        assert [row[0] for row in rows[1:]] == [str(number) for number in range(1, 46)]
        assert rows[44][1].split() == ["1h", "3600", "11h", "26m"]
        assert "1h┤" in plot and "0s┤" in plot and "\x1b" not in plot
        heights = [line.count("█") for line in plot.splitlines() if "█" in line]
        assert heights == sorted(heights) and heights[0] < heights[-1]

    def test_many_periods_are_plotted_in_no_time(self, capsys: Output) -> None:
        start = time.process_time()
        assert main(["backoff", "--initial", "1", "--exponent", "2", "--maximum", "1h", "-n", "5000"]) == 0
        assert time.process_time() - start < 5
        table, _, plot = capsys.readouterr().out.partition("\n\n")
        assert len(table.splitlines()) == 5001
        assert "5000" in plot.splitlines()[-1].split()

    def test_without_a_count_it_goes_on_until_the_longest(self, capsys: Output) -> None:
        assert main(["backoff", "--initial", "1", "--exponent", "2", "--maximum", "1000", "--json"]) == 0
        seconds = [period["seconds"] for period in json.loads(capsys.readouterr().out)["periods"]]
        assert seconds == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]

    def test_an_exponent_without_a_maximum_is_warned_of(self, capsys: Output) -> None:
        assert main(["backoff", "--exponent", "2", "--json"]) == 0
        captured = capsys.readouterr()
        assert [period["seconds"] for period in json.loads(captured.out)["periods"]] == [1] * 5
        assert captured.err.startswith("bmdb: warning: ") and captured.err.count("\n") == 1


class TestDemo:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], {"machines": 240, "workers": 8, "json": False, "rack": None, "keep": None}),
            (
                ["--machines", "50", "--workers", "3", "--json", "--rack", __file__, "--keep", "x"],
                {"machines": 50, "workers": 3, "json": True, "rack": Path(__file__), "keep": Path("x")},
            ),
        ],
    )
    @pytest.mark.parametrize("status", [0, 1, 130])
    def test_it_is_run_as_told_and_its_status_is_the_commands(
        self, arguments: list[str], expected: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[dict[str, Any]] = []

        def run(**given: Any) -> int:
            calls.append(given)
            return status

        monkeypatch.setattr(demo, "run", run)
        assert main(["demo", *arguments]) == status
        assert calls == [expected]

    def test_ctrl_c_inside_is_quiet(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        def run(**_: Any) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(demo, "run", run)
        assert main(["demo"]) == 130
        assert capsys.readouterr() == ("", "")


def test_a_closed_standard_output_is_no_crash() -> None:
    closed = f"exec >&-; exec {shlex.quote(sys.executable)} -m bmdb --version"
    done = subprocess.run(["bash", "-c", closed], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
