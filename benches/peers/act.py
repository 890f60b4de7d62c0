"""One act of an adapter, in a process of its own.

act.py prepare MODULE VARIANT CONNINFO COUNT        install the schema and enqueue COUNT units
act.py feed MODULE VARIANT CONNINFO                 enqueue one unit a line; tells `sent T`, `committed T`
act.py serve MODULE VARIANT CONNINFO MODE COUNT SHORT   be a worker until killed
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers.unit import Unit, tell


async def prepare(adapter: ModuleType, conninfo: str, count: int) -> None:
    """The schema, and as many units."""
    await adapter.install(conninfo)
    if count:
        async with adapter.producer(conninfo) as put:
            await put(count)


async def feed(adapter: ModuleType, conninfo: str) -> None:
    """A unit for each line."""
    async with adapter.producer(conninfo) as put:
        tell("ready")
        while await asyncio.to_thread(sys.stdin.readline):
            sent = time.monotonic()
            await put(1)
            committed = time.monotonic()
            tell("sent", sent)
            tell("committed", committed)


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    act, module, variant, conninfo, *rest = arguments
    adapter = importlib.import_module(f"benches.peers.adapters.{module}")
    if act == "prepare":
        uvloop.run(prepare(adapter, conninfo, int(rest[0])))
    elif act == "feed":
        uvloop.run(feed(adapter, conninfo))
    else:
        mode, count, short = rest
        unit = Unit(mode, int(count), variant, short == "1")
        unit.conninfo = conninfo
        uvloop.run(adapter.serve(conninfo, unit))


if __name__ == "__main__":
    main(sys.argv[1:])
