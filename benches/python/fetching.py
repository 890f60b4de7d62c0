"""Rows of many types into Python objects, beside psycopg's binary ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

import bmdb
from bmdb import Queries

ROWS = 1_000
# Five columns of what the library's own tables hold.
STATEMENT = f"""
    SELECT gen_random_uuid() AS machine_id, i AS number, 'text of row ' || i AS name, now() AS created_at,
        i % 2 = 0 AS even
    FROM generate_series(1, {ROWS}) AS i
"""


@contextmanager
def sides(conninfo: str) -> Iterator[dict[str, Callable[[], int]]]:
    """A transaction with the same statement on both sides, ours fenced; each act returns how many rows it has read."""
    with (
        bmdb.connect(conninfo, component="benchmark") as connection,
        connection.start_session(interval=60) as session,
        psycopg.connect(conninfo) as theirs,
        theirs.cursor(binary=True) as cursor,
    ):

        def ask(q: Queries) -> int:
            return len(q.fetch(STATEMENT))

        def ask_them() -> int:
            rows = cursor.execute(STATEMENT, prepare=True).fetchall()
            theirs.commit()
            return len(rows)

        yield {"bmdb": lambda: session.transact(ask), "psycopg": ask_them}
