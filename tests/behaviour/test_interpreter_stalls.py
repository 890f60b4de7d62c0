"""An interpreter that runs no Python while its process lives: measured, told, the end of sessions that ask for that."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import Spawn, eventually

import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]

HEAD = """
    import ctypes
    import logging
    import os
    import sys
    import threading
    import time
    import bmdb

    dsn, *arguments = sys.argv[1:]
    logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")

    def hold_the_gil(seconds):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
"""


def threads() -> list[str]:
    """The names of this process's threads, as the system knows them."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue  # it has ended meanwhile
    return sorted(names)


def observations(connection: bmdb.Connection) -> tuple[int, float]:
    """How often it was measured, and the sum in seconds."""
    (value,) = [value for name, *_, value in connection.metrics() if name == "bmdb_interpreter_stall_seconds"]
    buckets, total = value
    return buckets[-1][1], total


class TestWarning:
    def test_it_shows_the_line_that_held_the_gil(self, database: str, spawn: Spawn) -> None:
        worker = spawn(
            HEAD
            + """
    with bmdb.connect(dsn, component="greedy") as connection:
        with connection.start_session(interval=60, warn_stall=0.3):
            time.sleep(0.5)
            hold_the_gil(1.0)
            time.sleep(0.5)
        buckets, total = next(value for name, *_, value in connection.metrics() if "stall" in name)
        print("over half a second:", buckets[-1][1] - dict(buckets)[0.5], flush=True)
    """,
            database,
        )
        # On a busy machine others may follow.
        assert int(worker.expect("over half a second").split()[-1]) >= 1
        assert worker.wait() == 0
        assert any("bmdb.interpreter WARNING no Python ran for" in line for line in worker.lines)
        assert any("in hold_the_gil" in line for line in worker.lines), worker.lines
        assert worker.errors == []

    @pytest.mark.parametrize("busy", ["python", "sleeping"])
    def test_an_interpreter_that_runs_is_no_news(self, database: str, spawn: Spawn, busy: str) -> None:
        """Neither while it computes, which lets go of the GIL every few milliseconds, nor while it waits."""
        worker = spawn(
            HEAD
            + """
    with bmdb.connect(dsn, component="busy") as connection:
        with connection.start_session(interval=60, warn_stall=0.5, max_stall=0.5) as session:
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                if arguments[0] == "sleeping":
                    time.sleep(0.1)
            print("expired", session.expired, flush=True)
    """,
            database,
            busy,
        )
        assert worker.expect("expired") == "expired False"
        assert worker.wait() == 0
        assert not [line for line in worker.lines if "bmdb.interpreter" in line]


class TestEnd:
    def test_the_session_ends_while_the_gil_is_held(
        self, database: str, machines: MakeMachines, connection: bmdb.Connection, sql: Sql, spawn: Spawn
    ) -> None:
        """Its heartbeat stops at once, so its machine is free long before the interpreter comes back."""
        (machine,) = machines(1)
        worker = spawn(
            HEAD
            + f"""
    with bmdb.connect(dsn, component="greedy") as connection:
        patient = connection.start_session(interval=10)
        session = connection.start_session(interval=2, warn_stall=None, max_stall=1)
        work = session.work("{PROCESS}", lambda _: arguments)
        print("holding", patient.uuid, flush=True)
        hold_the_gil(9)
        # In one piece: the log is written to the same place at the same moment.
        sys.stdout.write(f"let go {{patient.expired}} {{work.state}}\\n")
        sys.stdout.flush()
        try:
            work.finish()
        except bmdb.SessionExpiredError as error:
            print("refused", error, flush=True)
    """,
            database,
            str(machine),
        )
        patient = worker.expect("holding").split()[1]
        with connection.start_session(interval=60) as session:

            def take() -> bool:
                connection.collect()
                try:
                    session.work(PROCESS, lambda _: [machine]).finish()
                except bmdb.WorkConflictError:
                    return False
                return True

            eventually(take, 7, every=0.1)
        assert not any("let go" in line for line in worker.lines)
        # The session that did not ask for it lives on.
        assert sql.execute("SELECT session_id::text FROM sessions").fetchall() == [(patient,)]
        assert worker.expect("let go") == "let go False lost"
        assert "interpreter stood still for more than 1 s" in worker.expect("refused")

    def test_a_task_is_cancelled_when_the_interpreter_is_back(
        self, database: str, machines: MakeMachines, spawn: Spawn
    ) -> None:
        worker = spawn(
            HEAD
            + f"""
    import asyncio

    async def main():
        async with (
            await bmdb.AsyncConnection.connect(dsn, component="greedy") as connection,
            await connection.start_session(interval=60, max_stall=0.3) as session,
        ):
            try:
                async with session.work("{PROCESS}", lambda _: arguments):
                    await asyncio.sleep(0.1)
                    hold_the_gil(1.0)
                    await asyncio.sleep(60)
            except bmdb.SessionExpiredError as error:
                print("stopped", error, flush=True)

    asyncio.run(main())
    """,
            database,
            str(machines(1)[0]),
        )
        assert "interpreter stood still" in worker.expect("stopped")
        assert worker.wait() == 0


class TestThreads:
    def test_they_run_only_while_sessions_want_them(self, connection: bmdb.Connection) -> None:
        def expect(*names: str) -> None:
            """They name themselves when they begin, and end a little after their sessions."""
            eventually(lambda: [name for name in threads() if name in ("bmdb-canary", "bmdb-sentry")] == [*names])

        expect()  # other tests' are on their way out
        with connection.start_session(interval=60, warn_stall=None):
            expect()
            with connection.start_session(interval=60), connection.start_session(interval=60):
                expect("bmdb-canary")
                with connection.start_session(interval=60, max_stall=timedelta(minutes=10)):
                    expect("bmdb-canary", "bmdb-sentry")
                expect("bmdb-canary")
            expect()
            with connection.start_session(interval=60):
                expect("bmdb-canary")

    def test_each_connection_counts(self, connection: bmdb.Connection, database: str) -> None:
        with (
            bmdb.connect(database, component="other") as other,
            connection.start_session(interval=60),
            other.start_session(interval=60),
        ):
            eventually(lambda: observations(connection)[0] >= 2 and observations(other)[0] >= 2, 5)
        assert observations(connection)[1] < 1

    def test_a_forked_child_has_its_own(self, database: str, spawn: Spawn) -> None:
        worker = spawn(
            HEAD
            + """
    logging.basicConfig(stream=sys.stdout, format=f"%(process)d %(name)s %(message)s", force=True)
    outer = bmdb.connect(dsn, component="parent")
    session = outer.start_session(interval=60, warn_stall=0.2, max_stall=30)
    time.sleep(0.4)
    child = os.fork()
    with bmdb.connect(dsn, component="either") as connection:
        with connection.start_session(interval=60, warn_stall=0.2, max_stall=30):
            hold_the_gil(0.8)
            time.sleep(0.5)
    if child:
        assert os.waitpid(child, 0)[1] == 0
        outer.close()
        print("forked", os.getpid(), child, flush=True)
    """,
            database,
        )
        _, *processes = worker.expect("forked").split()
        assert worker.wait() == 0
        for process in processes:
            assert [line for line in worker.lines if line.startswith(f"{process} bmdb.interpreter no Python ran")]


@pytest.mark.parametrize("way", ["plain", "busy", "greedy", "stalled"])
def test_an_exit_is_clean_and_quick(database: str, spawn: Spawn, way: str) -> None:
    """Whatever the threads are at, and whoever holds the GIL."""
    source = (
        HEAD
        + """
    connection = bmdb.connect(dsn, component="worker")
    session = connection.start_session(interval=60, warn_stall=0.2, max_stall=20)

    def compute():
        while True:
            pass

    def grab():
        while True:
            hold_the_gil(0.02)

    if arguments[0] in ("busy", "greedy"):
        for _ in range(2):
            threading.Thread(target=compute if arguments[0] == "busy" else grab, daemon=True).start()
    time.sleep(float(arguments[1]))
    if arguments[0] == "stalled":
        hold_the_gil(0.3)
    os.write(1, f"leaving {time.time()}\\n".encode())  # in one piece, whatever the log does
    """
    )
    for turn in range(4):
        # So that some exits meet the canary on its way to the GIL.
        worker = spawn(source, database, way, str(0.2 + turn * 0.02))
        assert worker.wait(30) == 0, worker.errors
        seconds = time.time() - float(worker.expect("leaving").split()[1])
        assert worker.errors == []
        # Each step of the exit waits for the GIL behind two threads that hold it for 20 ms at a time.
        assert seconds < (6 if way == "greedy" else 3), f"{seconds:.1f} s"


@pytest.mark.parametrize("which", ["warn_stall", "max_stall"])
@pytest.mark.parametrize(("given", "error"), [(0, ValueError), (-1.0, ValueError), ("1", TypeError), (True, TypeError)])
def test_what_makes_no_sense(connection: bmdb.Connection, which: str, given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=which):
        connection.start_session(**{which: given})
