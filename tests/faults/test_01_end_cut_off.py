"""Row 1: the holder falls silent between the statement of an end and its COMMIT.

Promised: that does not keep the machine from others either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

import bmdb
from tests.faults.conftest import Connect
from tests.processes import eventually
from tests.proxy import Proxy

PROCESS = "Silent"

# With a callback: without one an end is one statement, which never stays open.
ENDS: dict[str, Callable[[bmdb.Work], None]] = {
    "finish": lambda work: work.finish(lambda _: None),
    "fail": lambda work: work.fail("no answer", commit=lambda _: None),
    "cancel": lambda work: work.cancel(lambda _: None),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_that_never_gets_to_its_commit_does_not_keep_the_machine(
    proxy: Proxy,
    database: str,
    connection: bmdb.Connection,
    session: bmdb.Session,
    machines: Callable[[int], list[UUID]],
    end: str,
    connect: Connect,
) -> None:
    """Its backend holds the lease's row, and hears nothing of its client's end: an advisory lock tells on it."""
    (machine,) = machines(1)
    gained: list[bmdb.Work] = []

    def gain() -> bool:
        connection.collect()
        with contextlib.suppress(bmdb.WorkConflictError):
            gained.append(session.work(PROCESS, lambda _: [machine]))
        return bool(gained)

    with (
        ThreadPoolExecutor(1) as threads,
        connect(proxy.conninfo(database), component="holder") as holding,
        holding.start_session(interval=1) as holder,
    ):
        work = holder.work(PROCESS, lambda _: [machine])
        with proxy.holding_before() as commit:
            ended = threads.submit(ENDS[end], work)
            commit.wait()
            with proxy.swallowing():
                eventually(gain, 5)
        # What was cut off stays dead; broken, it is noticed at once.
        proxy.reset()
        with contextlib.suppress(bmdb.Error):
            ended.result(20)
        assert work.lost
    assert [event.event for event in connection.history_of(machine)] == ["Started", "Lost", "Started"]
    gained[0].finish()
