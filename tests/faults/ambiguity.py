"""Rounds in which the connection is killed before, in or after COMMIT; what is reported is compared with the rows.

Run by itself (`make ambiguity ROUNDS=1000`) it does so for long; test_14_killed_around_commit.py does a few.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import psycopg

import bmdb
from tests.proxy import Proxy

Moment = Literal["before", "cut in", "ended in", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "cut in", "ended in", "after")
PROCESS = "Around"
# COMMIT takes so long, so that there is something to be killed in.
COMMITTING = 0.01
TABLES = f"""
CREATE TABLE written (what text NOT NULL);
CREATE TABLE wanted (machine_id uuid NOT NULL);
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep({COMMITTING}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON written
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle();
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT OR DELETE ON work
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle();
"""
WANTED = bmdb.eligible(where="machines.machine_id IN (SELECT w.machine_id FROM wanted AS w)")
# What is busy with the end or the commit that is to be killed.
BUSY = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND state = 'active' AND (query ILIKE '%%commit%%' OR query LIKE '%%Finished%%')"
)


@dataclass
class Report:
    """What came of the rounds."""

    rounds: int = 0
    unresolved: int = 0
    wrong: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


class Around:
    """Rounds on one connection through the proxy, with what holds for both twins."""

    def __init__(
        self, connection: Any, database: str, proxy: Proxy, chance: random.Random, *, theirs: bool = False
    ) -> None:
        self.report = Report()
        self._error: object = None
        self._connection, self._proxy, self._random = connection, proxy, chance
        self._session = connection.start_session(interval=120)
        self._sql = psycopg.connect(database, autocommit=True)
        self._conninfo = proxy.conninfo(database)
        # With a connection of psycopg's, which cannot be replaced: then what came to nothing is told, not tried again.
        self._theirs = theirs
        if self._fetch("SELECT to_regclass('written')") == [(None,)]:
            self._sql.execute(TABLES.encode())
        self._acts: list[tuple[str, Callable[[Moment], None]]] = [
            ("transact", self._transact),
            ("keyed transact", self._keyed),
            ("end with a callback", self._end_with_callback),
        ]
        if not theirs:
            self._acts += [
                ("claim by callback", self._claim),
                ("declared claim", self._declared),
                ("end", self._end),
            ]

    def close(self) -> None:
        """Lets go of what it has opened."""
        self._session.close()
        self._sql.close()

    def run(self, rounds: int) -> Report:
        """So many rounds, each act and moment in turn."""
        for number in range(rounds):
            name, act = self._acts[number % len(self._acts)]
            moment = MOMENTS[number // len(self._acts) % len(MOMENTS)]
            self._what = f"{name}, {moment}, round {number}"
            act(moment)
            self.report.rounds += 1
        return self.report

    def _fetch(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        return self._sql.execute(query.encode(), params).fetchall()

    def _expect(self, told: bool | None, there: bool, *, certain: bool = False, also: bool = True) -> None:
        """`told` committed or not, and it is `there` or not; `certain`: it has to be there in the end."""
        if told is None:
            self.report.unresolved += 1
        elif told is not there or (certain and not there) or not also:
            self.report.wrong.append(f"{self._what}: told {told} ({self._error!r}), there {there}, the rest {also}")
        self.report.answers[str(told)] += 1

    @contextlib.contextmanager
    def _killed(self, moment: Moment, matching: str | None = None) -> Iterator[None]:
        """Kills the connection at that moment of the next commit, or of the statement that commits by itself."""
        proxy = self._proxy
        how = self._random.choice(["reset", "close"])
        if moment == "before":
            with proxy.cutting_before(matching, how=how):  # type: ignore[arg-type]
                yield
            return
        if moment == "after":
            with proxy.cutting_after(matching, how=how):  # type: ignore[arg-type]
                yield
            return
        pause = self._random.uniform(0, 1.3 * COMMITTING)
        with proxy.holding_after(matching) as hold:

            def strike() -> None:
                with contextlib.suppress(TimeoutError):
                    hold.wait()
                    time.sleep(pause)
                    if moment == "ended in":
                        self._fetch_apart(BUSY)
                        hold.release()
                    else:
                        proxy.reset(executed=matching or "commit")

            striker = threading.Thread(target=strike)
            striker.start()
            try:
                yield
            finally:
                striker.join()

    def _fetch_apart(self, query: str) -> None:
        with psycopg.connect(self._sql.info.dsn, password=self._sql.info.password, autocommit=True) as sql:
            sql.execute(query.encode())

    def _told(self, call: Callable[[], Any]) -> tuple[bool | None, Any]:
        """What is reported of the call: committed, not committed, or None; and what it returned."""
        self._error = None
        try:
            return True, call()
        except bmdb.AmbiguousCommitError as error:
            self._error = error
            try:
                return error.resolve(timeout=20), None
            except TimeoutError:
                return None, None
        except bmdb.Error as error:
            self._error = error
            return False, error

    @contextlib.contextmanager
    def _whose(self) -> Iterator[dict[str, Any]]:
        if not self._theirs:
            yield {}
            return
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._conninfo) as connection:
            yield {"connection": connection}

    def _machine(self) -> UUID:
        ((machine,),) = self._fetch("INSERT INTO machines DEFAULT VALUES RETURNING machine_id")
        return machine  # type: ignore[no-any-return]

    def _written(self, what: str) -> int:
        ((count,),) = self._fetch("SELECT count(*) FROM written WHERE what = %s", what)
        return int(count)

    def _writing(self, what: str) -> Callable[[Any], Any]:
        return lambda q: q.execute("INSERT INTO written VALUES ($1)", what)

    def _transact(self, moment: Moment) -> None:
        what = str(self._random.random())
        with self._whose() as whose, self._killed(moment):
            told, _ = self._told(lambda: self._session.transact(self._writing(what), **whose))
        self._expect(told, self._written(what) > 0, also=self._written(what) <= 1)

    def _keyed(self, moment: Moment) -> None:
        key = str(self._random.random())
        runs: list[str] = []

        def write(q: Any) -> Any:
            runs.append(f"{key} {len(runs)}")
            return q.fetch_value("INSERT INTO written VALUES ($1) RETURNING what", runs[-1])

        with self._whose() as whose, self._killed(moment):
            told, value = self._told(lambda: self._session.transact(write, idempotency_key=key, **whose))
        written = [what for (what,) in self._fetch("SELECT what FROM written WHERE what LIKE %s", f"{key} %")]
        marked = self._fetch("SELECT 1 FROM transaction_key WHERE idempotency_key = %s", key)
        also = len(written) == len(marked) <= 1
        if told and value is not None:
            also = also and written == [value]
        self._expect(told, bool(written), certain=not self._theirs, also=also)
        again, error = self._told(lambda: self._session.transact(write, idempotency_key=key))
        if again is not (not written) or isinstance(error, bmdb.AlreadyCommittedError) is not bool(written):
            self.report.wrong.append(f"{self._what}: the same key again: {again}, {error!r}")

    def _end_with_callback(self, moment: Moment) -> None:
        machine, what = self._machine(), str(self._random.random())
        work = self._session.work(PROCESS, lambda _: [machine])
        with self._whose() as whose, self._killed(moment):
            told, _ = self._told(lambda: work.finish(self._writing(what), **whose))
        ended = self._ended(machine)
        also = self._written(what) == int(ended)
        self._expect(told, ended, certain=not self._theirs, also=also)
        if not ended:
            work.finish()

    def _end(self, moment: Moment) -> None:
        machine = self._machine()
        work = self._session.work(PROCESS, lambda _: [machine])
        with self._killed(moment, "'Finished'"):
            told, _ = self._told(work.finish)
        self._expect(told, self._ended(machine), certain=True)

    def _ended(self, machine: UUID) -> bool:
        left = self._fetch("SELECT 1 FROM work WHERE machine_id = %s", machine)
        events = self._events(machine)
        if events != ["Started", "Finished"][: 2 - len(left)]:
            self.report.wrong.append(f"{self._what}: history has {events}")
        return not left

    def _events(self, machine: UUID) -> list[str]:
        query = "SELECT event FROM work_history WHERE machine_id = %s ORDER BY timestamp"
        return [event for (event,) in self._fetch(query, machine)]

    def _claim(self, moment: Moment) -> None:
        machine = self._machine()
        with self._killed(moment):
            told, work = self._told(lambda: self._session.work(PROCESS, lambda _: [machine]))
        self._claimed(machine, told, work)

    def _declared(self, moment: Moment) -> None:
        machine = self._machine()
        # Declared and looked for once before, so that it is the claim's own commit that is met.
        with contextlib.suppress(bmdb.NothingToDo):
            self._session.work(PROCESS, WANTED)
        self._sql.execute("INSERT INTO wanted VALUES (%s)", [machine])
        with self._killed(moment):
            told, work = self._told(lambda: self._session.work(PROCESS, WANTED))
        self._sql.execute("DELETE FROM wanted")
        self._claimed(machine, told, work)

    def _claimed(self, machine: UUID, told: bool | None, work: Any) -> None:
        held = self._fetch("SELECT token FROM work WHERE session_id = %s", self._session.uuid)
        also = self._events(machine) == ["Started"] * len(held) and held == ([(work.token,)] if told else [])
        self._expect(told, held != [], certain=True, also=also)
        if told:
            work.finish()


def main() -> None:
    """Rounds for both twins and for psycopg, on a server of their own."""
    from tests.faults.conftest import TWINS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    wrong: list[str] = []
    with bmdb.connect("embedded:", component="ambiguity", migrate=True) as owner:
        database = owner.conninfo
        info = psycopg.conninfo.conninfo_to_dict(database)
        with Proxy(str(info["host"]), int(str(info["port"]))) as proxy:
            for name, theirs in (("sync", False), ("async", False), ("psycopg", True)):
                connect = TWINS["async" if name == "async" else "sync"]
                with connect(proxy.conninfo(database), component=name) as connection:
                    around = Around(connection, database, proxy, chance, theirs=theirs)
                    report = around.run(given.rounds // 3 + (given.rounds % 3 if theirs else 0))
                    around.close()
                wrong += report.wrong
                told = f"wrong answers {len(report.wrong)}, unresolved {report.unresolved}"
                print(f"{name}: {report.rounds} rounds, {told}", end="")
                print(f"; told {dict(report.answers)}", flush=True)
    for line in wrong:
        print(line)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
