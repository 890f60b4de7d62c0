"""oban for Python, the free edition: jobs fetched in batches, ends written one statement each in one commit."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.machinery import SourceFileLoader
from typing import Any

from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = "oban"
LIMIT, CONNECTIONS = 256, 10
SETTING = {"": f"psycopg, uvloop, one queue with a limit of {LIMIT}, {CONNECTIONS} connections"}
CONTRACT = Contract(
    durable="no: ends wait for the producer's next round after the function has returned, and go in one commit",
    fenced="the end only: it must still be the attempt that it began; otherwise it is dropped without a word",
    history="the job's row stays for a day",
    freed="the attempt began 5 minutes ago, looked for by an elected leader",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM oban_jobs WHERE state <> 'completed')"
ENDED = "SELECT count(*) FROM oban_jobs WHERE state = 'completed'"
TABLES = ("oban_jobs",)
_NEWER_SYNTAX = (
    "type Result[T] = Cancel | Snooze | Record | T | None",
    "import typing; T = typing.TypeVar('T'); Result = Cancel | Snooze | Record | T | None",
)


def _usable() -> None:
    """On Python 3.11, one line of oban is too new: a type alias, which has no part in what it does."""
    if sys.version_info >= (3, 12) or "oban" in sys.modules:
        return

    class Older(SourceFileLoader):
        def get_data(self, path: str) -> bytes:
            data = super().get_data(path)
            if path.endswith("job.py"):
                data = data.replace(*(text.encode() for text in _NEWER_SYNTAX))
            return data

        def get_code(self, fullname: str) -> Any:
            return self.source_to_code(self.get_data(self.path), self.path)

    package = importlib.util.find_spec("oban")
    assert package is not None
    assert package.submodule_search_locations is not None

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name != "oban.job":
                return None
            file = f"{package.submodule_search_locations[0]}/job.py"
            return importlib.util.spec_from_loader(name, Older(name, file))

    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]


async def install(conninfo: str) -> None:
    """Its tables."""
    _usable()
    import psycopg
    from oban.schema import install_sql

    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(install_sql())


def _worker(unit: Unit | None) -> Any:
    _usable()
    from oban import worker

    @worker(queue="units")
    class NoOp:
        async def process(self, _: object) -> None:
            assert unit is not None
            await unit.run_async()

    return NoOp


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Enqueued in batches."""
    kind = _worker(None)
    from oban import Oban

    pool = await Oban.create_pool(dsn=conninfo)
    client = Oban(pool=pool)
    await client.start()

    async def put(count: int) -> None:
        for start in range(0, count, 1000):
            await client.enqueue_many([kind.new({}) for _ in range(min(1000, count - start))])

    yield put
    await client.stop()
    await pool.close()


async def serve(conninfo: str, unit: Unit) -> None:
    """An instance with one queue."""
    _worker(unit)
    from oban import Oban

    pool = await Oban.create_pool(dsn=conninfo, max_size=CONNECTIONS)
    lifeline = {"interval": 0.5, "rescue_after": 2.0} if unit.short else {}
    server = Oban(pool=pool, queues={"units": LIMIT}, lifeline=lifeline)
    await server.start()
    tell("ready")
    await asyncio.Event().wait()
