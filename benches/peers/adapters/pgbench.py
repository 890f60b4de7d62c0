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

from benches.peers import replay
from benches.peers.adapters import ours
from benches.peers.contract import Contract
from benches.peers.unit import Unit, tell

DISTRIBUTION = None
# A place beyond the last machine finds none, once in some hundred.
FOUND_AT_LEAST = 0.95
SETTING = {"": "one client, prepared statements, the texts that bmdb was seen to send, in as many trips"}
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
    """See what bmdb sends for a lease and its end, and have pgbench send the same as often as there are units."""
    import psycopg

    import bmdb

    address = urlsplit(conninfo)
    database = address.path.removeprefix("/")
    with psycopg.connect(conninfo, autocommit=True) as sql:
        row = sql.execute("SELECT current_setting('data_directory')").fetchone()
        assert row is not None
        log = Path(row[0]).parent / "server.log"
        begun = log.stat().st_size
        sql.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
        watched = ours.process()
        with (
            bmdb.connect(conninfo, component="benchmark", pool_size=1) as connection,
            connection.start_session(interval=600) as session,
        ):
            for _ in range(4):
                session.work(watched).finish(ours.started())
        sql.execute(f"ALTER DATABASE {database} RESET log_statement")
    with log.open() as lines:
        lines.seek(begun)
        script, constants = replay.script(*replay.last_cycles(replay.logged(lines.read())))
    with (
        bmdb.connect(conninfo, component="benchmark") as connection,
        connection.start_session(interval=600) as session,
        tempfile.TemporaryDirectory() as directory,
    ):
        file = Path(directory) / "cycle.sql"
        file.write_text(script)
        program = Path(os.environ["PEERS_PROGRAMS"]) / "pgbench"
        # The session that was watched is gone; the one of now takes its place, also where it stands in an array.
        gone, now = constants["session"], str(session.uuid)
        settings = [f"-D{name}={value.replace(gone, now)}" for name, value in constants.items()]
        where = ["-h", str(address.hostname), "-p", str(address.port), "-U", "postgres", database]
        tell("ready")
        tell("first")
        command = [str(program), "-n", "-M", "prepared", "-c", "1", "-t", str(unit.count), "-f", str(file)]
        done = await asyncio.to_thread(subprocess.run, [*command, *settings, *where], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        with psycopg.connect(conninfo) as sql:
            row = sql.execute("SELECT count(*) FROM machine_agent_started").fetchone()
        if row is None or row[0] < FOUND_AT_LEAST * unit.count:
            raise RuntimeError(f"only {row} of {unit.count} cycles ended a unit")
        tell("last")
        await asyncio.Event().wait()
