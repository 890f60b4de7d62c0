"""A queue as people write it by hand with psycopg: claim with FOR UPDATE SKIP LOCKED and a lease, end with one tag.

It gives what a lease of bmdb gives but the fence: claim and end each commit, the end leaves a row of history and sets a
tag in the same transaction, and a claim that is too old is given to another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "psycopg"
SETTING = {
    "1": "one connection, statements prepared, two transactions a unit",
    "16": "the same on 16 threads with a connection each",
}
CONTRACT = Contract(
    durable="yes: claim and end each commit before the worker goes on",
    fenced="no: the end goes by id",
    history="a row for each claim and each end",
    freed="its claim is 30 s old",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM hand_unit WHERE ended_at IS NULL)"
TABLES = ("hand_unit", "hand_history", "hand_tag")
LEASE_SECONDS, SHORT_SECONDS = 30, 2
POLL_SECONDS = 5.0

SCHEMA = """
CREATE TABLE hand_unit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claimed_by text, claimed_until timestamptz, ended_at timestamptz
);
CREATE INDEX hand_unit_open_idx ON hand_unit (id) WHERE ended_at IS NULL;
CREATE TABLE hand_history (unit_id bigint NOT NULL, event text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE hand_tag (unit_id bigint PRIMARY KEY REFERENCES hand_unit, at timestamptz NOT NULL);
"""
CLAIM = """
WITH free AS (
    SELECT id FROM hand_unit
    WHERE ended_at IS NULL AND (claimed_until IS NULL OR claimed_until < now())
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE hand_unit AS u SET claimed_by = %s, claimed_until = now() + %s * interval '1 second'
FROM free WHERE u.id = free.id RETURNING u.id
"""
CLAIMED = "INSERT INTO hand_history (unit_id, event) VALUES (%s, 'Claimed')"
TAG = "INSERT INTO hand_tag (unit_id, at) VALUES (%s, now()) ON CONFLICT (unit_id) DO UPDATE SET at = EXCLUDED.at"
END = "UPDATE hand_unit SET ended_at = now() WHERE id = %s"
ENDED = "INSERT INTO hand_history (unit_id, event) VALUES (%s, 'Ended')"


async def install(conninfo: str) -> None:
    """Three tables."""
    import psycopg

    with psycopg.connect(conninfo) as connection:
        connection.execute(SCHEMA)


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Insert units, and notify as a queue by hand would."""
    import psycopg

    with psycopg.connect(conninfo, autocommit=True) as connection:

        async def put(count: int) -> None:
            connection.execute(
                "WITH made AS (INSERT INTO hand_unit (claimed_by) SELECT NULL FROM generate_series(1, %s) RETURNING id)"
                " SELECT pg_notify('hand_unit', count(*)::text) FROM made",
                [count],
            )

        yield put


def work(conninfo: str, unit: Unit) -> None:
    """Claim, run, end; sleep on LISTEN while there is nothing."""
    import psycopg

    lease = SHORT_SECONDS if unit.short else LEASE_SECONDS
    poll = 0.5 if unit.short else POLL_SECONDS
    with psycopg.connect(conninfo, autocommit=True) as connection, connection.cursor() as cursor:
        connection.prepare_threshold = 1
        connection.execute("LISTEN hand_unit")
        while True:
            with connection.transaction():
                row = cursor.execute(CLAIM, ("worker", lease)).fetchone()
                if row is not None:
                    cursor.execute(CLAIMED, row)
            if row is None:
                for _ in connection.notifies(timeout=poll, stop_after=1):
                    pass
                continue
            unit.run()
            with connection.transaction():
                cursor.execute(TAG, row)
                cursor.execute(END, row)
                cursor.execute(ENDED, row)


async def serve(conninfo: str, unit: Unit) -> None:
    """As many threads as the variant says."""
    tell("ready")
    threads = [threading.Thread(target=work, args=(conninfo, unit), daemon=True) for _ in range(int(unit.variant))]
    for thread in threads:
        thread.start()
    await asyncio.Event().wait()
