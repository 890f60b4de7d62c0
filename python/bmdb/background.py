"""What goes on although the asyncio task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

_BEHIND: set[asyncio.Future[None]] = set()


async def given_back(giving: Awaitable[None]) -> None:
    """Runs what gives something back. Cancelled meanwhile, it raises that at once, and what was begun runs on alone."""
    task = asyncio.ensure_future(giving)
    # The event loop itself holds tasks weakly.
    _BEHIND.add(task)
    task.add_done_callback(_BEHIND.discard)
    await asyncio.shield(task)


async def outlasted(
    awaitable: Awaitable[T], limit: float | None = None
) -> tuple[asyncio.Future[T], asyncio.CancelledError | None]:
    """Waits for it to the end, however often this task is cancelled meanwhile.

    Answers the future, which is done, and the last of those cancellations, which the caller has to raise. After `limit`
    seconds what is waited for is cancelled itself.
    """
    future = asyncio.ensure_future(awaitable)
    loop = asyncio.get_running_loop()
    deadline = None if limit is None else loop.time() + limit
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            future.cancel()
            left = deadline = None
        try:
            if left is None:
                await _done(future, loop)
            else:
                await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    return future, cancelled


async def _done(future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    """Waits for it without cancelling it: `asyncio.wait` for one future, of which it makes less."""
    waiter = loop.create_future()

    def tell(_: asyncio.Future[T]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(tell)
    try:
        await waiter
    finally:
        future.remove_done_callback(tell)
