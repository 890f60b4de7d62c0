"""River: a Go library; jobs fetched in batches, ends written in batches."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from benches.peers import program
from benches.peers.contract import Contract
from benches.peers.unit import Unit

DISTRIBUTION = "github.com/riverqueue/river"
PROGRAM = [str(Path(__file__).resolve().parents[1] / "river" / "bin" / "worker")]
SETTING = {"": "Go, pgx, 2,000 workers, 10 connections, fetches at most each 2 ms"}
CONTRACT = Contract(
    durable="no: ends are handed to a completer after the function has returned, and go in batches",
    fenced="no: the end goes by id and counts while the job is running, whoever runs it",
    history="the job's row stays for a day",
    freed="it began an hour ago, looked for by an elected leader",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM river_job WHERE state NOT IN ('completed', 'cancelled', 'discarded'))"
TABLES = ("river_job",)


async def install(conninfo: str) -> None:
    """Its migrations."""
    await program.install(PROGRAM, conninfo)


def producer(conninfo: str) -> AbstractAsyncContextManager[Any]:
    """COPY for many, insert for one."""
    return program.producer(PROGRAM, conninfo)


async def serve(conninfo: str, unit: Unit) -> None:
    """A client with one queue."""
    program.become(PROGRAM, conninfo, unit.mode, unit)
