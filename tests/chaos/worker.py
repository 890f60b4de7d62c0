"""A worker of the chaos test: leases machines, writes, ends the work, and notes all that it is told.

    worker.py {sync,async} CONNINFO LEDGER COMPONENT SEED

Several lives share its connection, each with a session of its own. A life is a generator that yields acts, calls
without arguments: one way of driving it calls them, the other awaits what they return, so both worlds live the same
life. It ends when a line comes on its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

import bmdb
from tests.chaos.ledger import Kind, Ledger
from tests.chaos.ways import Asynchronous, Synchronous, Way

PROCESS = "Chaos"
INTERVAL = 2
LIVES = 2
BACKOFF = bmdb.Backoff(1, 3, 1.5)

# Those that were leased least often come first, so none starves for reasons of chance.
ELIGIBLE = """
    SELECT m.machine_id
    FROM machines AS m LEFT JOIN work_token AS t ON t.machine_id = m.machine_id AND t.process = $1
    WHERE NOT EXISTS (SELECT 1 FROM work AS w WHERE w.machine_id = m.machine_id AND w.process = $1)
        AND NOT EXISTS (
            SELECT 1 FROM work_backoff AS b
            WHERE b.machine_id = m.machine_id AND b.process = $1 AND b.until > clock_timestamp())
    ORDER BY t.token NULLS FIRST, random()
    LIMIT 4
"""
WRITE = "INSERT INTO chaos_write (nonce, kind, machine_id, token, session_id) VALUES ($1, $2, $3, $4, $5)"

Acts = Generator[Callable[[], Any], Any, Any]


class Life:
    """Leases and ends work until `stopping` says so."""

    def __init__(self, connection: Any, name: str, ledger: Ledger, chance: random.Random, way: Way) -> None:
        self._connection = connection
        self._name = name
        self._ledger = ledger
        self._chance = chance
        self._way = way
        self._session: Any = None
        self._foreign: Any = None

    def run(self, stopping: Callable[[], bool]) -> Acts:
        """The whole life."""
        while not stopping():
            try:
                yield from self._cycle()
            except bmdb.Error:
                # Already noted. Whatever it was, another try is always right.
                yield self._pause(0.02, 0.1)
        if self._session is not None:
            with contextlib.suppress(bmdb.Error):
                yield self._session.close

    def _cycle(self) -> Acts:
        if self._session is None or self._session.expired:
            self._session = yield lambda: self._connection.start_session(interval=INTERVAL)
        work = yield from self._claim()
        if work is None:
            yield self._pause(0.05, 0.2)
            return
        for _ in range(self._chance.randrange(4)):
            yield self._pause(0.0, 0.15)
            self._believe(work)
            if self._chance.random() < 0.4:
                yield from self._write(work)
        yield from self._end(work)

    def _claim(self) -> Acts:
        session, isolation = self._session, self._chance.choice(["repeatable read"] * 3 + ["serializable"])
        nonce = uuid4()

        def retrieve(q: Any) -> Acts:
            rows = yield lambda: q.fetch(ELIGIBLE, PROCESS)
            # A retrieval should only read. This one marks its transaction, so that its outcome can be told.
            yield lambda: q.execute(WRITE, nonce, "claim", None, None, session.uuid)
            return rows

        act = self._way.hurried(
            lambda: session.work(PROCESS, self._way.callback(retrieve), isolation=isolation), self._patience()
        )
        return (yield from self._attempt("claim", nonce, act))

    def _write(self, work: Any) -> Acts:
        nonce, long = uuid4(), self._chance.random() < 0.3

        def write(q: Any) -> Acts:
            yield lambda: q.execute(WRITE, nonce, "transact", work.machine, work.token, work.session.uuid)
            if long:
                yield self._pause(0.05, 0.6)

        using = yield from self._using()
        act = self._way.hurried(
            lambda: work.session.transact(self._way.callback(write), **using), self._patience(share=0.15)
        )
        # The work may be finished all the same.
        with contextlib.suppress(bmdb.Error):
            yield from self._attempt("transact", nonce, act, work)

    def _end(self, work: Any) -> Acts:
        kind = self._chance.choices(("finish", "fail", "cancel"), (7, 2, 1))[0]
        for _ in range(3):
            nonce, using = uuid4(), (yield from self._using())
            slow = self._chance.random() < 0.15

            def commit(q: Any, nonce: Any = nonce, slow: bool = slow) -> Acts:
                yield lambda: q.execute(WRITE, nonce, "finish", work.machine, work.token, work.session.uuid)
                if slow:
                    yield self._pause(0.05, 0.6)

            callback = self._way.callback(commit)
            acts: dict[str, Callable[[], Any]] = {
                "finish": lambda callback=callback, using=using: work.finish(callback, **using),
                "fail": lambda nonce=nonce, using=using: work.fail(str(nonce), BACKOFF, **using),
                "cancel": work.cancel,
            }
            with contextlib.suppress(bmdb.Error):
                yield from self._attempt(kind, nonce, self._way.hurried(acts[kind], self._patience()), work)
            if work.state != "active":
                return
            # The end failed and the lease is still there: another way may be better.
            self._believe(work)
            yield self._pause(0.0, 0.1)
            kind = self._chance.choice(("finish", "fail", "cancel"))

    def _attempt(self, kind: Kind, nonce: Any, act: Callable[[], Any], work: Any = None) -> Acts:
        """Do it, and note before and after. Raises bmdb.Error; returns the result, None for what came to nothing."""
        lease = {} if work is None else {"machine": work.machine, "token": work.token}
        session = self._session if work is None else work.session
        self._ledger.note("begin", nonce=nonce, kind=kind, session=session.uuid, **lease)

        def told(outcome: str, words: str, **more: Any) -> None:
            self._ledger.note("end", nonce=nonce, outcome=outcome, told=words, **more)

        try:
            result = yield act
        except bmdb.AmbiguousCommitError as error:
            told("unknown", type(error).__name__)
            yield from self._resolve(nonce, error)
            raise
        except (bmdb.NothingToDo, bmdb.WorkConflictError) as nothing:
            told("failed", type(nothing).__name__)
        except bmdb.Error as error:
            told("failed", f"{type(error).__name__}: {error}"[:200])
            raise
        except (TimeoutError, asyncio.CancelledError) as error:
            # Ours, out of patience. What it met says how it ended; nothing was sent if it says nothing.
            committed = getattr(error.__cause__ or error, "committed", False)
            told({True: "ok", False: "failed", None: "unknown"}[committed], "cancelled")
        else:
            if kind == "cancel":
                told({"canceled": "ok", "lost": "failed"}.get(work.state, "unknown"), f"state {work.state}")
            elif kind == "claim":
                told("ok", "returned", machine=result.machine, token=result.token)
            else:
                told("ok", "returned")
            return result
        return None

    def _resolve(self, nonce: Any, error: bmdb.AmbiguousCommitError) -> Acts:
        try:
            committed = yield lambda: self._way.resolve(error)
        except (TimeoutError, bmdb.Error):
            return
        self._ledger.note("resolved", nonce=nonce, committed=committed)

    def _believe(self, work: Any) -> None:
        at = time.time()
        if not work.lost and not work.session.expired:
            self._ledger.note("belief", at=at, session=work.session.uuid, machine=work.machine, token=work.token)

    def _using(self) -> Acts:
        """Keywords that lead some of the transactions over a psycopg connection of this life."""
        if self._chance.random() >= 0.3:
            return {}
        if (
            self._foreign is None
            or self._foreign.closed
            or self._foreign.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        ):
            if self._foreign is not None:
                yield self._foreign.close
            try:
                self._foreign = yield lambda: self._way.psycopg(self._connection.conninfo, self._name)
            except psycopg.Error:
                return {}
        return {"connection": self._foreign}

    def _patience(self, share: float = 0.05) -> float | None:
        return self._chance.uniform(0.001, 0.05) if self._chance.random() < share else None

    def _pause(self, least: float, most: float) -> Callable[[], Any]:
        seconds = self._chance.uniform(least, most)
        return lambda: self._way.sleep(seconds)


def live(way: Way, conninfo: str, ledger: Ledger, component: str, seed: str, stopping: threading.Event) -> Acts:
    """Connect, however long it takes, and live."""
    while True:
        try:
            connection = yield lambda: way.connect(conninfo, component)
            break
        except bmdb.Error:
            yield lambda: way.sleep(0.1)
    name = f"bmdb {component} psycopg"
    lives = [Life(connection, name, ledger, random.Random(f"{seed} {n}"), way) for n in range(LIVES)]
    yield lambda: way.together([life.run(stopping.is_set) for life in lives])
    yield connection.close


def show_where(*_: object) -> None:
    """Print where every thread and task is."""
    faulthandler.dump_traceback()
    with contextlib.suppress(RuntimeError):
        for task in asyncio.all_tasks():
            task.print_stack()


def main() -> None:
    """Live until told to end; note what broke, if anything did."""
    style, conninfo, path, component, seed = sys.argv[1:]
    signal.signal(signal.SIGUSR1, show_where)
    ledger = Ledger(Path(path))
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stopping.set()), daemon=True).start()
    way: Way = Synchronous() if style == "sync" else Asynchronous()
    try:
        way.run(live(way, conninfo, ledger, component, seed, stopping))
    except BaseException:
        ledger.note("broken", error=traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
