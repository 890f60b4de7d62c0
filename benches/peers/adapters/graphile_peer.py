"""graphile-worker: a Node library, here with its local queue and batched ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from benches.peers import program
from benches.peers.contract import Contract
from benches.peers.unit import Unit

DISTRIBUTION = "graphile-worker"
PROGRAM = ["node", str(Path(__file__).resolve().parents[1] / "graphile" / "worker.mjs")]
SETTING = {"": "Node, pg, concurrency 24, a local queue of 500, ends batched without delay, 10 connections"}
CONTRACT = Contract(
    durable="no: ends are collected after the function has returned, and go in batches",
    fenced="no: the end deletes by id, whoever holds the job by then",
    history="none: the job's row is deleted",
    freed="it was taken 4 hours ago",
)
SETTLED = "SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs)"
TABLES = ("graphile_worker._private_jobs",)


async def install(conninfo: str) -> None:
    """Its migrations."""
    await program.install(PROGRAM, conninfo)


def producer(conninfo: str) -> AbstractAsyncContextManager[Any]:
    """Added in batches."""
    return program.producer(PROGRAM, conninfo)


async def serve(conninfo: str, unit: Unit) -> None:
    """A runner with one task."""
    program.become(PROGRAM, conninfo, unit.mode, unit)
