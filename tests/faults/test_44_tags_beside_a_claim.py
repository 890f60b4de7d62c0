"""Row 44: somebody tags machines that a batch is just claiming.

Promised: neither waits for the other. A claim locks machines as for a change of what is no key, which the check of a
tag's foreign key passes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

import bmdb
from tests.conftest import MakeMachines
from tests.faults.figures import Figure
from tests.proxy import Proxy

PROCESS = "Tagged"


def test_a_tag_is_written_while_its_machine_is_being_claimed(
    proxy: Proxy, proxied: bmdb.Connection, sql: psycopg.Connection[Any], machines: MakeMachines, figure: Figure
) -> None:
    chosen = machines(3)
    sql.execute("CREATE TABLE machine_seen (machine_id uuid PRIMARY KEY REFERENCES machines)")
    with (
        proxied.start_session(interval=60) as session,
        ThreadPoolExecutor(1) as threads,
        proxy.holding_before("COMMIT", executed="work_token") as commit,
    ):
        claiming = threads.submit(session.work_many, PROCESS, 3, bmdb.eligible(where="true"))
        commit.wait()
        sql.execute("SET lock_timeout = '1s'")
        started = time.monotonic()
        sql.execute("INSERT INTO machine_seen SELECT unnest(%s::uuid[])", [chosen])
        figure("the tags took", time.monotonic() - started, "s")
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,), "the claim had ended already"
        commit.release()
        works = claiming.result(20)
        assert {work.machine for work in works} == set(chosen)
        for work in works:
            work.cancel()
