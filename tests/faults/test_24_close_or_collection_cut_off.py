"""Row 24: a close, or a collection, falls silent before its COMMIT.

Promised: that does not keep the machine from everybody.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.processes import eventually
from tests.proxy import Proxy

PROCESS = "UnitTest1"


@pytest.mark.parametrize("what", ["close", "collect"])
def test_the_server_ends_it_and_another_pass_takes_the_session(
    proxy: Proxy,
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    sql: psycopg.Connection[Any],
    machines: MakeMachines,
    what: str,
    connect: Connect,
) -> None:
    """Its backend holds rows that every collection passes over, and hears nothing of its client's end."""
    (machine,) = machines(1)
    gained: list[bmdb.Work] = []

    def gain() -> bool:
        connection.collect()
        with contextlib.suppress(bmdb.WorkConflictError):
            gained.append(session.work(PROCESS, lambda q: [machine]))
        return bool(gained)

    with ThreadPoolExecutor(1) as threads, connect(proxy.conninfo(database), component="holder") as holding:
        holder = holding.start_session(interval=1 if what == "close" else 100)
        holder.work(PROCESS, lambda q: [machine])
        with proxy.holding_before() as commit:
            if what == "collect":
                sql.execute(
                    "UPDATE sessions SET session_deadline = now() - interval '1 s' WHERE session_id = %s",
                    [holder.uuid],
                )
            ended = threads.submit(holder.close if what == "close" else holding.collect)
            commit.wait()
            with proxy.swallowing():
                try:
                    eventually(gain, 8)
                finally:
                    proxy.reset()
        with contextlib.suppress(bmdb.Error):
            ended.result(20)
