"""Whether a worker that has lost its lease still writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import bmdb
from bmdb._core import Row
from bmdb.testing.hand import STATEMENTS, Hand

__all__ = ["assert_no_zombie_writes"]


@contextlib.contextmanager
def assert_no_zombie_writes(
    conninfo: str, *, tables: Sequence[str] | None = None, expect_loss: bool = True
) -> Iterator[None]:
    """Fail if, within the block, somebody writes for a lease that was lost.

    The database notes who writes, at each COMMIT. A write to a row of a machine is a zombie's when a lease of that
    machine was lost before (history `Lost`) and the transaction is neither fenced by a session that holds the machine
    now, nor the end of such a lease. That covers what bmdb refuses anyway, and what it cannot see: a worker that
    writes on a connection of its own, without the fence, or goes on with its old work in a new session.

    Watched are the tables with a column `machine_id`, tags and tables of yours, but for bmdb's own records; or just
    `tables`, which must exist when the block begins. Rows of a table without `machine_id` need any live session's
    fence after the first loss. Unfenced writes that are meant to be there (a program that stores heartbeats of
    agents) call for `tables`.

    `conninfo` leads to the database, by a role that may create tables and triggers. Several blocks may follow each
    other.

    Raises AssertionError that lists each such write; also, with `expect_loss`, when no lease was lost within the
    block, which then has shown nothing. What fails inside the block is raised unchanged.
    """
    with Hand(conninfo) as hand:
        watched = None if tables is None else list(tables)

        def begin(q: bmdb.Queries) -> int:
            q.execute(STATEMENTS["watch_writes"])
            position: int = q.fetch_value(STATEMENTS["watch_tables"], watched)
            return position

        position = hand._write(begin)
        losses = _losses(hand)
        yield
        written = hand._rows("zombie_writes", position)
        if written:
            listed = "\n".join(f"  {_told(row)}" for row in written)
            raise AssertionError(f"{len(written)} writes for leases that were lost:\n{listed}")
        if expect_loss and _losses(hand) == losses:
            raise AssertionError(
                "no lease was lost within the block, which shows nothing: expire a session, or say expect_loss=False"
            )


def _losses(hand: Hand) -> int:
    count: int = hand._rows("lost_leases")[0][0]
    return count


def _told(row: Row) -> str:
    late = (row.written_at - row.lost_at).total_seconds()
    what = row.relation if row.machine_id is None else f"{row.relation} of machine {row.machine_id}"
    fence = "without a fence" if row.session_id is None else f"in session {row.session_id}, which does not hold it"
    return (
        f"{row.operation} {what}, {late:.3f} s after session {row.lost_by} lost it under process {row.process}"
        f" (token {row.token}): {fence}, by {row.application or 'an unnamed application'} (backend {row.backend})"
    )
