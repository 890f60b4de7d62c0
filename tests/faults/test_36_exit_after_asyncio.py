"""Row 36 for asyncio: what tells the event loop of the last outcome is out of Python before the interpreter goes.

Found by the chaos test, in one exit of ten. Up to Python 3.13 a thread that waits for the GIL when the interpreter goes
is ended from inside, which nothing in Rust survives. Here that thread is late on purpose.
"""

from __future__ import annotations

from tests.processes import Spawn

WORKER = """
    import asyncio
    import sys
    import time
    import bmdb

    class Lingering:
        def __del__(self, sleep=time.sleep):
            sleep(1.0)

    # Freed when the interpreter has begun to go: keeps it at that for a while.
    sys.lingering = Lingering()

    async def main():
        async with await bmdb.AsyncConnection.connect(sys.argv[1], component="worker") as connection:
            loop = asyncio.get_running_loop()
            tell = loop.call_soon_threadsafe

            def tell_and_linger(*told):
                tell(*told)
                time.sleep(0.5)

            loop.call_soon_threadsafe = tell_and_linger

    asyncio.run(main())
"""


def test_an_exit_right_after_the_last_outcome(database: str, spawn: Spawn) -> None:
    worker = spawn(WORKER, database)
    assert (worker.wait(), worker.errors) == (0, [])
