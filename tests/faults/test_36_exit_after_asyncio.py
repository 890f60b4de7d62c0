"""Row 36: the interpreter exits after asyncio was used.

Promised: what tells the event loop of the last outcome is out of Python before the interpreter goes: exit 0.

Found by the chaos test, in one exit of ten. Up to Python 3.13 a thread that waits for the GIL when the interpreter goes
is ended from inside, which nothing in Rust survives. Here that thread is late on purpose. It is there for event loops
that cannot watch file descriptors; the others are told without a thread that needs the GIL.
"""

from __future__ import annotations

import pytest

from tests.processes import Spawn

WORKER = """
    import asyncio
    import os
    import sys
    import time
    import bmdb

    class Lingering:
        def __del__(self, sleep=time.sleep):
            sleep(1.0)

    # Freed when the interpreter has begun to go: keeps it at that for a while.
    sys.lingering = Lingering()

    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *arguments):
            raise NotImplementedError

    def bmdb_thread():
        names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
        return next((name for name in names if name.startswith("bmdb-completion")), None)

    async def main():
        async with await bmdb.AsyncConnection.connect(sys.argv[1], component="worker") as connection:
            loop = asyncio.get_running_loop()
            tell = loop.call_soon_threadsafe
            if sys.platform == "linux":
                assert (bmdb_thread() is not None) == (sys.argv[2] == "blind")

            def tell_and_linger(*told):
                tell(*told)
                time.sleep(0.5)

            loop.call_soon_threadsafe = tell_and_linger

    with asyncio.Runner(loop_factory={"blind": Blind, "seeing": None}[sys.argv[2]]) as runner:
        runner.run(main())
"""


@pytest.mark.parametrize("loop", ["blind", "seeing"])
def test_an_exit_right_after_the_last_outcome(loop: str, database: str, spawn: Spawn) -> None:
    worker = spawn(WORKER, database, loop)
    assert (worker.wait(), worker.errors) == (0, [])
