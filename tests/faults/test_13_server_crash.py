"""Row 13: a backend is killed, so that the server ends all others and recovers.

Promised: transactions run again, and sessions live on if the server is back within their trust.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.processes import eventually, kill

THREADS = 3
# Recovery of an empty database takes well under a second, and this leaves twelve times that.
INTERVAL = 15


def test_everybody_else_goes_on_after_a_crash(own_server: EmbeddedServer, connect: Connect) -> None:
    dsn = own_server.create_database("bmdb")
    with connect(dsn, component="survivor", migrate=True) as connection:
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute("CREATE TABLE writes (what text)")
            sql.execute("INSERT INTO machines SELECT FROM generate_series(1, 3)")
        session = connection.start_session(interval=INTERVAL)
        held = session.work("Crash", lambda q: q.fetch("SELECT machine_id FROM machines"))
        stop = threading.Event()
        committed: list[set[str]] = [set() for _ in range(THREADS)]
        denied: list[set[str]] = [set() for _ in range(THREADS)]
        unknown: list[set[str]] = [set() for _ in range(THREADS)]

        def loop(index: int) -> None:
            """Writes one row after the other, noting what it was told of each."""
            number = 0
            while not stop.is_set():
                number += 1
                what = f"{index}-{number}"

                def write(q: bmdb.Queries, what: str = what) -> None:
                    q.execute("INSERT INTO writes VALUES ($1)", what)

                try:
                    session.transact(write, isolation="read committed")
                except bmdb.AmbiguousCommitError as error:
                    try:
                        (committed if error.resolve(timeout=20) else denied)[index].add(what)
                    except TimeoutError:
                        # A server that has crashed cannot always tell: it may have given the id to another since.
                        unknown[index].add(what)
                else:
                    committed[index].add(what)

        def told() -> int:
            return sum(map(len, committed))

        with ThreadPoolExecutor(THREADS) as threads:
            loops = [threads.submit(loop, index) for index in range(THREADS)]
            try:
                eventually(lambda: told() > 50)
                with psycopg.connect(dsn, autocommit=True) as victim:
                    kill(victim.info.backend_pid)
                own_server.wait_ready()
                before = told()
                eventually(lambda: told() > before + 50)
            finally:
                stop.set()
            for each in loops:
                each.result()

        assert not session.expired
        # The crash caught each thread in one transaction at most, and no answer was lost for another reason.
        assert sum(map(len, [*denied, *unknown])) <= THREADS
        with psycopg.connect(dsn) as fresh:
            there: list[tuple[Any, ...]] = fresh.execute("SELECT what FROM writes").fetchall()
        rows: list[str] = [what for (what,) in there]
        assert len(rows) == len(set(rows)), "written twice"
        assert set[str]().union(*committed) - set(rows) == set(), "reported, and not there"
        assert set(rows) & set[str]().union(*denied) == set(), "denied, and there"
        assert set(rows) - set[str]().union(*committed) <= set[str]().union(*unknown)
        held.finish()
