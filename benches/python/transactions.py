"""The same transaction on both sides: fenced by a session, empty or with one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID

import psycopg
import sqlalchemy

import bmdb
from bmdb import Queries, _core

STATEMENTS = dict(_core.queries())
FENCE = STATEMENTS["session_fence"]
BEGIN = "BEGIN ISOLATION LEVEL SERIALIZABLE"
# What the core sends to commit; the SELECT makes an aborted transaction fail, where COMMIT alone would report success.
COMMIT = "SELECT 1; COMMIT"
ONE_QUERY = "SELECT machine_id, machine_created_at FROM machines WHERE machine_id = $1"

Act = Callable[[], object]
Side = Callable[[str, UUID], AbstractContextManager[tuple[Act, Act]]]


@contextmanager
def bmdb_side(conninfo: str, machine: UUID) -> Iterator[tuple[Act, Act]]:
    """An empty transaction and one with one query, through `Session.transact`."""
    with (
        bmdb.connect(conninfo, component="benchmark") as connection,
        connection.start_session(interval=60) as session,
    ):

        def ask(q: Queries) -> object:
            return q.fetch_one(ONE_QUERY, machine)

        yield (lambda: session.transact(nothing)), (lambda: session.transact(ask))


@contextmanager
def psycopg_side(conninfo: str, machine: UUID) -> Iterator[tuple[Act, Act]]:
    """The same with psycopg alone: one kept connection and cursor, its statements prepared."""
    with (
        bmdb.connect(conninfo, component="benchmark") as owner,
        owner.start_session(interval=60) as session,
        psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.RawCursor) as connection,
        connection.cursor() as cursor,
    ):
        session_id = session.uuid

        def begin() -> None:
            cursor.execute(BEGIN, prepare=False)
            if cursor.execute(FENCE, (session_id,), prepare=True).fetchone() is None:
                raise RuntimeError("the session is gone")

        def empty() -> None:
            begin()
            cursor.execute(COMMIT, prepare=False)

        def one_query() -> object:
            begin()
            row = cursor.execute(ONE_QUERY, (machine,), prepare=True).fetchone()
            cursor.execute(COMMIT, prepare=False)
            return row

        yield empty, one_query


@contextmanager
def brought_sides(conninfo: str, machine: UUID) -> Iterator[dict[str, Act]]:
    """A transaction with one query: on bmdb's own connection, on one of psycopg's, on one of an SQLAlchemy engine."""
    with (
        bmdb.connect(conninfo, component="benchmark") as connection,
        connection.start_session(interval=60) as session,
        psycopg.connect(conninfo) as brought,
    ):
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))

        def ask(q: Queries) -> object:
            return q.fetch_one(ONE_QUERY, machine)

        yield {
            "bmdb": lambda: session.transact(ask),
            "psycopg": lambda: session.transact(ask, connection=brought),
            "SQLAlchemy": lambda: session.transact(ask, engine=engine),
        }
        engine.dispose()


def nothing(_: Queries) -> None:
    """A callback that does nothing."""
