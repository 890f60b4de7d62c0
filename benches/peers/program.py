"""Peers that are not Python: a program of theirs that speaks as `unit.py` does.

PROGRAM install CONNINFO
PROGRAM feed CONNINFO                       for each line, a number: enqueues as many units and says `done`
PROGRAM serve CONNINFO MODE COUNT SHORT     a worker, as of act.py
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from benches.peers.unit import Unit


async def install(program: Sequence[str], conninfo: str) -> None:
    """Have the program install its schema. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(*program, "install", conninfo)
    if await process.wait() != 0:
        raise RuntimeError(f"{program[-1]} install failed")


@asynccontextmanager
async def producer(program: Sequence[str], conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Enqueue through the program."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, "feed", conninfo, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    inlet, outlet = process.stdin, process.stdout

    async def put(count: int) -> None:
        inlet.write(f"{count}\n".encode())
        await inlet.drain()
        if await outlet.readline() != b"done\n":
            raise RuntimeError(f"{program[-1]} feed failed")

    yield put
    inlet.close()
    await process.wait()


def become(program: Sequence[str], conninfo: str, mode: str, unit: Unit) -> None:
    """Be its worker from now on, in this process."""
    arguments = ["serve", conninfo, mode, str(unit.count), "1" if unit.short else "0"]
    os.execvp(program[0], [*program, *arguments])  # noqa: S606
