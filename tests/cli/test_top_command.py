"""`bmdb top`: one look for scripts, and the live view in a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from rich.cells import cell_len
from tests.cli.conftest import PROCESS, Answer, Documents, fail
from tests.database import EmbeddedServer

import bmdb

COLUMNS, LINES = 80, 24
ENTER, LEAVE, SHOW_CURSOR, HIDE_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h", "\x1b[?25l"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOSTILE = "\x1b[2J\u202ehostile"


@pytest.fixture
def fleet(session: bmdb.Session, machines: Any, sql: psycopg.Connection[Any]) -> bmdb.Session:
    """A lease, a backoff, a hold, a finished and a lost lease of this minute, and one that is left to collect."""
    leased, waiting, held, finished, orphaned = machines(5)
    session.work(PROCESS, lambda q: [finished]).finish()
    session.work(PROCESS, lambda q: [leased])
    fail(session, waiting, "no answer")
    session.connection.hold(held, owner="ada", reason=HOSTILE)
    sql.execute("INSERT INTO work_history (machine_id, process, event) VALUES (%s, %s, 'Lost')", [finished, PROCESS])
    sql.execute(
        "WITH gone AS (INSERT INTO sessions (session_component_name, session_runtime_info,"
        " session_interval_seconds, session_deadline)"
        " VALUES (%s, '', 5, clock_timestamp() - interval '90 seconds') RETURNING session_id)"
        " INSERT INTO work SELECT %s, 'Other', session_id, 1 FROM gone",
        [HOSTILE, orphaned],
    )
    return session


class TestOnce:
    def test_as_json(self, fleet: bmdb.Session, document: Documents) -> None:
        # The fleet's own session may collect what is left in the meantime, which the test must not wait for.
        taken = document("top")
        assert taken["errors"] == {}
        assert taken["machines"]["machines"] == 5
        assert taken["machines"]["held"] == 1
        (process,) = (row for row in taken["processes"] if row["process"] == PROCESS)
        assert (process["leases"], process["backoffs"], process["quarantined"]) == (1, 1, 0)
        assert process["last_minute"] == {"claims": 3, "finishes": 1, "failures": 1, "losses": 1}
        assert taken["holds"][0]["reason"] == HOSTILE
        assert taken["sessions"]["live"] == 1

    def test_as_text_where_there_is_no_terminal(self, fleet: bmdb.Session, bmdb_command: Answer) -> None:
        status, output, errors = bmdb_command("top")
        assert (status, errors) == (0, "")
        assert output.startswith("machines   5: ")
        (row,) = (line for line in output.splitlines() if line.startswith(PROCESS))
        assert row.split()[1] == "1"
        assert row.split()[-4:] == ["3", "1", "1", "1"]
        assert r"ada    \x1b[2J\u202ehostile" in output
        assert not {mark for mark in output if unicodedata.category(mark) in {"Cc", "Cf"}} - {"\n"}
        assert bmdb_command("top", "--once")[0] == 0

    def test_a_question_that_fails_spoils_no_other(
        self, fleet: bmdb.Session, bmdb_command: Answer, document: Documents, sql: Any
    ) -> None:
        sql.execute("ALTER TABLE work_hold RENAME COLUMN owner TO keeper")
        taken = document("top")
        assert set(taken["errors"]) == {"holds"}
        assert taken["machines"] is not None
        assert "\nholds: " in bmdb_command("top")[1]

    def test_what_is_left_to_collect(self, machines: Any, bmdb_command: Answer, document: Documents, sql: Any) -> None:
        sql.execute(
            "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES ('gone', '', 5, clock_timestamp() - interval '90 seconds')"
        )
        assert document("top")["collection"]["sessions"] == 1
        told = bmdb_command("top")[1]
        assert re.search(r"^collection 1 expired sessions keep 0 leases, the first for 1m \d+s$", told, re.MULTILINE)


class Terminal:
    """`bmdb top` on a pseudo terminal."""

    def __init__(self, database: str, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._before = termios.tcgetattr(theirs)
        self._theirs = theirs
        environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bmdb", "top", "--interval", "0.2", "-c", database, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.output = ""

    def read_until(self, text: str, *, times: int = 1, seconds: float = 30.0) -> None:
        """Reads on until the text has come so often."""
        deadline = time.monotonic() + seconds
        while self.output.count(text) < times:
            assert time.monotonic() < deadline, self.output
            self._read(0.1)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def end(self, how: int | bytes) -> int:
        """Ends it by a signal, or by a key; its status, once all is read."""
        if isinstance(how, bytes):
            os.write(self._ours, how)
        else:
            self.process.send_signal(how)
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self._read(0.05)
        while select.select([self._ours], [], [], 0)[0] and self._read(0):
            pass
        return self.process.returncode

    def frames(self) -> Iterator[list[str]]:
        """What was drawn from the upper left corner, each time, as lines."""
        for drawn in self.output.split("\x1b[H")[1:]:
            yield SEQUENCE.sub("", drawn.partition(LEAVE)[0]).replace("\r", "").rstrip("\n").split("\n")

    def clean(self) -> bool:
        """Whether the terminal is as it was."""
        return termios.tcgetattr(self._theirs) == self._before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(database: str) -> Iterator[Terminal]:
    opened = Terminal(database)
    try:
        yield opened
    finally:
        opened.close()


class TestLive:
    @pytest.mark.parametrize(("how", "status"), [(b"\x03", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143)])
    def test_it_leaves_the_terminal_as_it_was(
        self, how: int | bytes, status: int, fleet: bmdb.Session, terminal: Terminal
    ) -> None:
        terminal.read_until("bmdb top, every 0.2 s", times=3)
        assert terminal.output.startswith(ENTER) or ENTER in terminal.output[:40]
        assert terminal.end(how) == status
        assert terminal.output.rindex(LEAVE) > terminal.output.rindex("bmdb top")
        assert terminal.output.rindex(SHOW_CURSOR) > terminal.output.rindex(HIDE_CURSOR)
        assert "Traceback" not in terminal.output
        assert terminal.clean()

    def test_it_fits_and_shows_what_comes(
        self, fleet: bmdb.Session, terminal: Terminal, machines: Any, sql: Any
    ) -> None:
        terminal.read_until(PROCESS)
        assert "Later" not in terminal.output
        later, *held = machines(31)
        fleet.work("Later", lambda q: [later])
        for machine in held:
            fleet.connection.hold(machine, owner="ada", reason="x" * 300)
        terminal.read_until("Later")
        terminal.read_until("more lines")
        terminal.end(signal.SIGTERM)
        frames = list(terminal.frames())
        assert frames
        for frame in frames:
            assert len(frame) <= LINES
            assert all(cell_len(line) <= COLUMNS for line in frame), frame
        assert frames[-1][0].startswith("bmdb top, every 0.2 s")
        shown = "\n".join("\n".join(frame) for frame in frames)
        assert not {mark for mark in shown if unicodedata.category(mark) in {"Cc", "Cf"}} - {"\n"}

    def test_a_server_that_goes_is_said_and_the_last_look_stays_until_it_is_back(
        self, own_server: EmbeddedServer
    ) -> None:
        with bmdb.connect(own_server.dsn(), component="test", migrate=True):
            pass
        terminal = Terminal(own_server.dsn())
        try:
            terminal.read_until("machines   0")
            own_server.stop("immediate")
            terminal.read_until(" ago: could not connect")
            assert "machines   0" in "\n".join(list(terminal.frames())[-1])
            own_server.start()
            deadline = time.monotonic() + 30
            while " ago: " in terminal.output[terminal.output.rindex("bmdb top") :]:
                assert time.monotonic() < deadline
                terminal.read_until("bmdb top", times=terminal.output.count("bmdb top") + 1)
                # The rest of what was drawn comes with it, or soon after.
                terminal.read_until("collection", times=terminal.output.count("bmdb top"))
            assert terminal.end(b"\x03") == 0
        finally:
            terminal.close()

    def test_a_question_that_cannot_be_answered_any_more_is_said(
        self, fleet: bmdb.Session, terminal: Terminal, sql: Any
    ) -> None:
        terminal.read_until(PROCESS)
        sql.execute("ALTER TABLE machines RENAME TO machines_gone")
        terminal.read_until("machines: ")
        assert terminal.process.poll() is None
        sql.execute("ALTER TABLE machines_gone RENAME TO machines")
        assert terminal.end(b"\x03") == 0
