"""Backoff in real time, as long as it takes: for the sync twin alone, as the wait is the database's."""

from __future__ import annotations

import time

import pytest
from tests.conftest import MakeMachines

import bmdb

PROCESS = "UnitTest1"
GROWING = bmdb.Backoff(1, 5, 2.0)

ELIGIBLE = """
    SELECT m.machine_id FROM machines AS m
    WHERE NOT EXISTS (
        SELECT 1 FROM work_backoff AS b
        WHERE b.machine_id = m.machine_id AND b.process = $1 AND b.until > now()
    )
"""


def out_of_backoff(q: bmdb.Queries) -> list[bmdb.Row]:
    """The retrieval of a user who respects backoffs."""
    return q.fetch(ELIGIBLE, PROCESS)


def lease_when_possible(session: bmdb.Session) -> tuple[bmdb.Work, float]:
    """Ask again and again for work; it, and how many seconds that took."""
    began = time.monotonic()
    while True:
        try:
            return session.work(PROCESS, out_of_backoff), time.monotonic() - began
        except bmdb.NothingToDo:
            assert time.monotonic() - began < 10, "the machine never came back"
            time.sleep(0.02)


@pytest.mark.slow
def test_periods_double_to_the_maximum_and_start_over_after_a_finish(
    session: bmdb.Session, machines: MakeMachines
) -> None:
    """Fails with other waits when a period is not stored, not enforced, not capped, or not forgiven by finish."""
    machines(1)
    waits: list[int] = []

    def fail_once() -> None:
        work, waited = lease_when_possible(session)
        waits.append(round(waited))
        # A poll, a busy machine and a retry may add to the period; nothing may take from it.
        assert waits[-1] <= waited + 0.05 and waited < waits[-1] + 0.5
        work.fail("no answer", GROWING)

    for _ in range(5):
        fail_once()
    work, waited = lease_when_possible(session)
    waits.append(round(waited))
    work.finish()
    assert waits == [0, 1, 2, 4, 5, 5]
    waits.clear()
    for _ in range(3):
        fail_once()
    assert waits == [0, 1, 2]
