"""What must not end an instance of a loop, whatever its function does: another machine is worked on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.loops.conftest import PROCESS, MakeLoop, Start, agent_started, waiting
from tests.processes import eventually

Events = Callable[[], list[tuple[str, str | None]]]


class Unprintable(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise LookupError


def first_time(error: BaseException) -> Callable[[Any], Any]:
    """A function that raises this once and works from then on."""
    errors = [error]

    def body(work: Any) -> Any:
        if errors:
            raise errors.pop()
        return agent_started(work)

    return body


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2), Unprintable()], ids=lambda e: type(e).__name__)
def test_whatever_it_raises_fails_the_work_and_the_next_machine_follows(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events, error: BaseException
) -> None:
    provided(2)
    start(make_loop(first_time(error)))
    eventually(lambda: [event for event, _ in events()] == ["Failed", "Finished"])
    assert str(events()[0][1]).startswith(type(error).__name__)


def test_ctrl_c_in_the_retrieval_is_looked_past(
    make_loop: MakeLoop, start: Start, provided: MakeMachines, events: Events
) -> None:
    provided(1)
    errors = [KeyboardInterrupt()]

    def retrieve(q: Any) -> Any:
        if errors:
            raise errors.pop()
        return waiting(q)

    start(make_loop(agent_started, retrieve=retrieve))
    eventually(lambda: [event for event, _ in events()] == ["Finished"])


async def fails() -> None:
    raise ValueError


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def fails_in_a_group_then_awaits_what_is_cancelled() -> None:
    """On some versions of Python a group that failed leaves its parent's count of cancellations raised."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
    except* ValueError:
        pass
    child = asyncio.create_task(asyncio.sleep(5))
    child.cancel()
    await child


@pytest.mark.parametrize("trouble", [cancels_itself, fails_in_a_group_then_awaits_what_is_cancelled])
def test_a_cancellation_of_its_own_making_fails_the_work(
    start: Start, provided: MakeMachines, events: Events, trouble: Callable[[], Any]
) -> None:
    provided(2)
    called: list[Any] = []

    @bmdb.loop(PROCESS, retrieve=waiting, rate=0.0, max_idle=0.5)
    async def work_on(work: Any) -> Any:
        called.append(work)
        if len(called) == 1:
            await trouble()
        return agent_started(work)

    start(work_on)
    eventually(lambda: [event for event, _ in events()] == ["Failed", "Finished"])


@pytest.mark.parametrize("after", ["x", True, b""])
def test_a_time_to_retry_after_is_a_time(after: Any) -> None:
    with pytest.raises(TypeError, match="after"):
        bmdb.Retry(after=after)


def test_a_time_to_retry_after_ends_somewhere() -> None:
    with pytest.raises(ValueError, match="hundred years"):
        bmdb.Retry(after=1e12)
    with pytest.raises(TypeError, match="after="):
        bmdb.Retry(60)  # type: ignore[arg-type]
