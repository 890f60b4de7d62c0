"""Workers that lease, hold, and finish without pause, and the comparison of what they were told with what is there."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

import bmdb

PROCESS = bmdb.Process("Load", eligible=bmdb.eligible(lacking=("hardware_report",)))
MACHINES = 2_000
PAUSE = 0.005

Lease = tuple[UUID, int]


@dataclass
class Told:
    """What one session was told."""

    session: UUID
    expired: str | None = None
    finished: list[Lease] = field(default_factory=list)
    unknown: list[Lease] = field(default_factory=list)
    refused: list[Lease] = field(default_factory=list)


@dataclass
class Judgement:
    """What came of it on the server that is the primary now.

    `taken_back`: answered ends that are not there, of sessions that expired; `misreported`: those of sessions that went
    on, and refused ends that are there. `twice`: leases that were finished by more than one holder.
    """

    sessions: int
    expired: int
    finished: int
    taken_back: int
    misreported: int
    twice: int
    longest_gap: float


class Load:
    """So many threads with a session each, which begin again with a new one when it expires."""

    def __init__(self, conninfo: str, *, workers: int, interval: float) -> None:
        self.told: list[Told] = []
        self.ends: list[float] = []
        self._interval = interval
        self._over = threading.Event()
        self._connection = bmdb.connect(conninfo, component="load", pool_size=workers)
        self._threads = [threading.Thread(target=self._run) for _ in range(workers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let the workers end what they have."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def wait_for_work(self, since: float, seconds: float = 60.0) -> float:
        """Wait until something that was leased later has been finished; how long after `since` that was."""
        deadline = time.monotonic() + seconds
        while not (later := [at for at in list(self.ends) if at > since]):
            if time.monotonic() > deadline:
                raise TimeoutError("no work was finished")
            time.sleep(0.005)
        return later[0] - since

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                session = self._connection.start_session(interval=self._interval)
            except bmdb.Error:
                time.sleep(0.05)
                continue
            told = Told(session.uuid)
            self.told.append(told)
            try:
                while not self._over.is_set():
                    self._step(session, told)
            except bmdb.SessionExpiredError as expired:
                told.expired = str(expired)
            # Who stops in this moment is told all the same, by the session and by an event.
            if told.expired is None and session.expired:
                told.expired = "while it was being stopped"
            session.close()

    def _step(self, session: bmdb.Session, told: Told) -> None:
        try:
            work = session.work(PROCESS)
        except bmdb.SessionExpiredError:
            raise
        except (bmdb.Error, bmdb.NothingToDo):
            time.sleep(0.02)
            return
        lease = (work.machine, work.token)
        time.sleep(PAUSE)
        while True:
            try:
                work.finish()
            except bmdb.AmbiguousCommitError:
                told.unknown.append(lease)
            except bmdb.LeaseLostError:
                told.refused.append(lease)
            except bmdb.SessionExpiredError:
                told.refused.append(lease)
                raise
            except bmdb.Error:
                # The end may be tried again.
                time.sleep(0.02)
                continue
            else:
                told.finished.append(lease)
                self.ends.append(time.monotonic())
            return

    def judge(self, sql: psycopg.Connection[Any]) -> Judgement:
        """Compare with what history on the new primary has."""
        rows = sql.execute("SELECT session_id, machine_id, token FROM work_history WHERE event = 'Finished'").fetchall()
        there = {(session, (machine, token)) for session, machine, token in rows}
        row = sql.execute(
            "SELECT count(*) FROM (SELECT FROM work_history WHERE event = 'Finished'"
            " GROUP BY machine_id, process, token HAVING count(*) > 1) AS again"
        ).fetchone()
        assert row is not None
        taken_back = misreported = 0
        for told in self.told:
            absent = sum((told.session, lease) not in there for lease in told.finished)
            if told.expired is not None:
                taken_back += absent
            else:
                misreported += absent
            misreported += sum((told.session, lease) in there for lease in told.refused)
        ends = sorted(self.ends)
        return Judgement(
            sessions=len(self.told),
            expired=sum(told.expired is not None for told in self.told),
            finished=len(ends),
            taken_back=taken_back,
            misreported=misreported,
            twice=row[0],
            longest_gap=max((b - a for a, b in itertools.pairwise(ends)), default=0.0),
        )


def make_machines(sql: psycopg.Connection[Any]) -> None:
    """Machines to work on."""
    sql.execute("INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, %s)", [MACHINES])
