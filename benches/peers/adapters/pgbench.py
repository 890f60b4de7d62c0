"""pgbench running the SQL of bmdb's core: one claim and one end at a time, on one connection, in bmdb's own trips."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benches.peers.adapters import ours
from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = None
SETTING = {"": "one client, prepared statements, the texts that bmdb sends"}
CONTRACT = Contract(durable="yes", fenced="yes, by the same texts", history="the same events", freed="as bmdb")
SETTLED = "SELECT NOT EXISTS (SELECT FROM work)"
TABLES = ours.TABLES
install = ours.install


@asynccontextmanager
async def producer(conninfo: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """More than are worked on, since the retrieval starts at a random place and would find too few at the end."""
    async with ours.producer(conninfo) as put:

        async def put_more(count: int) -> None:
            await put(3 * count)

        yield put_more


async def serve(conninfo: str, unit: Unit) -> None:
    """Run as many cycles as there are units."""
    from benches.python.leases import PROCESS, pgbench_script

    import bmdb

    address = urlsplit(conninfo)
    with (
        bmdb.connect(conninfo, component="benchmark") as connection,
        connection.start_session(interval=600) as session,
        tempfile.TemporaryDirectory() as directory,
    ):
        script = Path(directory) / "cycle.sql"
        script.write_text(pgbench_script("repeatable read"))
        program = Path(os.environ["PEERS_PROGRAMS"]) / "pgbench"
        variables = {"process": PROCESS, "session_id": session.uuid, "component": "benchmark", "key": "\\x6b"}
        variables["started"] = "2026-01-01T00:00:00Z"
        settings = [f"-D{name}={value}" for name, value in variables.items()]
        where = ["-h", str(address.hostname), "-p", str(address.port), "-U", "postgres", address.path.removeprefix("/")]
        tell("ready")
        tell("first")
        command = [str(program), "-n", "-M", "prepared", "-c", "1", "-t", str(unit.count), "-f", str(script)]
        await asyncio.to_thread(subprocess.run, [*command, *settings, *where], check=True, stdout=subprocess.DEVNULL)
        tell("last")
        await asyncio.Event().wait()
