"""Row 33: a fork at a bad moment: in a callback, while claims queue up, with a child that slept past its parent's
trust.

Promised: the same.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import MakeMachines
from tests.processes import Spawn


def test_a_child_forked_inside_a_callback_cannot_use_its_parents_transaction(spawn: Spawn, database: str) -> None:
    source = """
        import os
        import sys
        import bmdb

        connection = bmdb.connect(sys.argv[1], component="parent")
        session = connection.start_session()

        def fn(q):
            pid = os.fork()
            if pid == 0:
                try:
                    print("child got", q.fetch_value("SELECT 42"), flush=True)
                except bmdb.ConfigError as error:
                    print("child refused", error, flush=True)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            return q.fetch_value("SELECT 7")

        print("parent got", session.transact(fn), flush=True)
        connection.close()
    """
    parent = spawn(source, database)
    assert parent.wait() == 0, parent.errors
    assert parent.lines[0].startswith("child refused")
    assert parent.lines[1] == "parent got 7"


def test_a_child_that_leaves_its_parents_callback_neither_commits_nor_rolls_back(
    spawn: Spawn, database: str, sql: psycopg.Connection[Any], writes: str
) -> None:
    source = """
        import os
        import sys
        import bmdb

        connection = bmdb.connect(sys.argv[1], component="parent")
        session = connection.start_session()
        pid = None

        def fn(q):
            global pid
            q.execute("INSERT INTO writes VALUES ('parent')")
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                q.execute("INSERT INTO writes VALUES ('parent')")

        try:
            session.transact(fn)
        except bmdb.ConfigError as error:
            print("child refused", error, flush=True)
        if pid == 0:
            os._exit(0)
        connection.close()
    """
    parent = spawn(source, database)
    assert parent.wait() == 0, parent.errors
    assert parent.lines[0].startswith("child refused")
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (2,)


@pytest.mark.timeout(60)
def test_a_claim_in_the_child_is_refused_at_once_though_the_parents_gate_was_full(
    spawn: Spawn, database: str, machines: MakeMachines
) -> None:
    machines(1)
    source = """
        import os
        import sys
        import threading
        import time
        import bmdb

        connection = bmdb.connect(sys.argv[1], component="parent", pool_size=1)
        session = connection.start_session(interval=60)
        inside, done = threading.Event(), threading.Event()

        def slow(q):
            inside.set()
            done.wait()
            return []

        def claim():
            try:
                session.work("UnitTest1", slow)
            except bmdb.NothingToDo:
                pass

        thread = threading.Thread(target=claim)
        thread.start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            started = time.monotonic()
            try:
                session.work("UnitTest1", lambda q: [])
            except bmdb.Error as error:
                print(type(error).__name__, time.monotonic() - started, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        done.set()
        thread.join()
        connection.close()
    """
    parent = spawn(source, database)
    kind, seconds = parent.expect("Error", timeout=50).split()
    assert kind == "ConfigError"
    assert float(seconds) < 0.5


def test_a_child_is_told_that_it_is_one_also_after_trust_has_ended_in_it(spawn: Spawn, database: str) -> None:
    source = """
        import os
        import sys
        import time
        import bmdb

        connection = bmdb.connect(sys.argv[1], component="parent")
        session = connection.start_session(interval=1)
        pid = os.fork()
        if pid == 0:
            time.sleep(1.2)
            for call in (lambda: session.transact(lambda q: None), lambda: session.work("UnitTest1", lambda q: [])):
                try:
                    call()
                except bmdb.Error as error:
                    print(type(error).__name__, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        connection.close()
    """
    parent = spawn(source, database)
    assert parent.wait() == 0
    assert parent.lines == ["ConfigError", "ConfigError"]
