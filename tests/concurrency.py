"""Several calls at once: in threads, and as tasks of an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Longer than anything that runs together here.
WAIT_SECONDS = 60.0


def together(*calls: Callable[[], T]) -> list[T]:
    """Run each call in a thread of its own; what they answered, in their order.

    Raises the first one's exception that raised, once all have ended, and TimeoutError when they do not end.
    """
    answers: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[], T]) -> None:
        try:
            answers[number] = call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    deadline = time.monotonic() + WAIT_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    if len(answers) < len(calls):
        raise TimeoutError(f"{len(calls) - len(answers)} of {len(calls)} calls did not end within {WAIT_SECONDS} s")
    return [answers[number] for number in range(len(calls))]


async def together_async(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """Run each call as a task; what they answered, in their order.

    Raises the first one's exception that raised, once all have ended, and TimeoutError when they do not end.
    """

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        return await call()

    async with asyncio.timeout(WAIT_SECONDS):
        answers = await asyncio.gather(*(run(call) for call in calls), return_exceptions=True)
    values: list[T] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        values.append(answer)
    return values
