"""What goes on behind an asyncio task that was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

_BEHIND: set[asyncio.Future[None]] = set()


async def given_back(giving: Awaitable[None]) -> None:
    """Runs what gives something back. Cancelled meanwhile, it raises that at once, and what was begun runs on alone."""
    task = asyncio.ensure_future(giving)
    # The event loop itself holds tasks weakly.
    _BEHIND.add(task)
    task.add_done_callback(_BEHIND.discard)
    await asyncio.shield(task)
