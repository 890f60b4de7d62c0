"""What strikes the workers: three streams of faults at once, each with chances of its own.

Every fault has an end, so a stream that is told to stop leaves the world whole.
"""

from __future__ import annotations

import collections
import contextlib
import random
import threading
from collections.abc import Callable, Sequence

import psutil
import psycopg

from tests.chaos.crew import Crew
from tests.chaos.worker import INTERVAL, PROCESS
from tests.processes import suspended
from tests.proxy import Proxy

# Trust lasts four fifths of the interval; the database frees the machines after a whole one.
BELOW_TRUST = (0.1, INTERVAL * 0.7)
BEYOND_TRUST = (INTERVAL * 1.05, INTERVAL * 1.9)

REVOKE = """
    WITH taken AS (
        DELETE FROM work WHERE (machine_id, process) IN (
            SELECT machine_id, process FROM work WHERE process = %s ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING machine_id, process, session_id, token)
    INSERT INTO work_history (machine_id, process, event, session_id, component, token)
    SELECT machine_id, process, 'Revoked', session_id, 'operator', token FROM taken
"""

Fault = Callable[[], None]


class Stream:
    """A thread in which one fault follows another, drawn by weight, until `stop`."""

    def __init__(self, name: str, seed: str, pauses: tuple[float, float], menu: Sequence[tuple[float, Fault]]) -> None:
        self.chance = random.Random(f"{seed} {name}")
        self.struck: collections.Counter[str] = collections.Counter()
        self._pauses = pauses
        self._menu = menu
        self._stopping = threading.Event()
        self._resting = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"faults-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def last(self, least: float, most: float) -> None:
        """Let what has been done last for a while, or until the stream is stopped."""
        self._stopping.wait(self.chance.uniform(least, most))

    def rest(self, resting: bool) -> None:
        """Let no other fault follow until told so; what has struck already goes on to its end."""
        (self._resting.set if resting else self._resting.clear)()

    def stop(self) -> None:
        """Wait for the fault that is going on to end. Raises what went wrong in the faults themselves."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.last(*self._pauses)
                if self._resting.is_set():
                    continue
                (fault,) = self.chance.choices([fault for _, fault in self._menu], [weight for weight, _ in self._menu])
                if not self._stopping.is_set():
                    self.struck[fault.__name__] += 1
                    fault()
        except BaseException as error:
            self._failure = error


class Signals(Stream):
    """Processes that are stopped, continued, killed and started again."""

    def __init__(self, seed: str, crew: Crew) -> None:
        super().__init__(
            "signals",
            seed,
            (0.1, 0.8),
            [(3, self.doze), (4, self.sleep_past_trust), (3, self.kill), (1, self.kill_asleep)],
        )
        self._crew = crew

    def doze(self) -> None:
        """Stop a worker for less than its trust."""
        with self._crew.any(self.chance).suspended():
            self.last(*BELOW_TRUST)

    def sleep_past_trust(self) -> None:
        """Stop a worker for so long that others get its machines."""
        with self._crew.any(self.chance).suspended():
            self.last(*BEYOND_TRUST)

    def kill(self) -> None:
        """Kill a worker and start another in its place."""
        self._crew.replace(self._crew.any(self.chance, mortal=True))

    def kill_asleep(self) -> None:
        """Stop a worker, and kill it without letting it go on."""
        worker = self._crew.any(self.chance, mortal=True)
        with worker.suspended():
            self.last(*BELOW_TRUST)
            self._crew.replace(worker)


class Network(Stream):
    """Connections that are cut, go dead, stall, or lose the answer to a COMMIT."""

    def __init__(self, seed: str, crew: Crew, proxy: Proxy) -> None:
        menu = [
            (3, self.cut), (2, self.swallow), (3, self.freeze), (2, self.delay), (4, self.cut_at_commit),
            (2, self.hold_commit), (4, self.freeze_at_commit), (1, self.refuse), (1, self.conflict),
        ]  # fmt: skip
        super().__init__("network", seed, (0.1, 0.6), menu)
        self._crew = crew
        self._proxy = proxy

    def cut(self) -> None:
        """Break all connections of a worker."""
        self._proxy.reset(how=self.chance.choice(["reset", "close"]), application_name=self._whose())

    def swallow(self) -> None:
        """Drop all that a worker sends or gets until its sessions are lost.

        For less, the heartbeat would go on by another connection, and a statement of a callback, which may take as long
        as it likes, would wait for its answer for ever: a real link's end is told by the kernel's keepalives. For the
        same reason psycopg's connections, on which the loss of a session interrupts nothing, are left out.
        """
        direction = self.chance.choice(["both", "to_server", "to_client"])
        with self._proxy.swallowing(direction, application_name=self._whose(psycopg=False)):
            self.last(*BEYOND_TRUST)

    def freeze(self) -> None:
        """Keep back what a worker sends or gets: it arrives in the end, perhaps long after the worker gave it up."""
        direction = self.chance.choice(["both", "to_server", "to_client"])
        with self._proxy.freezing(direction, application_name=self._whose()):
            self.last(*self.chance.choice([BELOW_TRUST, BEYOND_TRUST]))

    def delay(self) -> None:
        """Let everything of a worker take longer."""
        with self._proxy.delaying(self.chance.uniform(0.01, 0.1), application_name=self._whose()):
            self.last(0.5, 2.0)

    def cut_at_commit(self) -> None:
        """Break connections at their COMMIT, before or after it has reached the server."""
        cutting = self.chance.choice([self._proxy.cutting_before_commit, self._proxy.cutting_after_commit])
        how = self.chance.choice(["reset", "close", "silence"])
        with cutting(how=how, times=3, application_name=self._whose(psycopg=how != "silence")):
            self.last(0.3, 1.0)

    def hold_commit(self) -> None:
        """Keep a COMMIT, or its answer, on the way for long."""
        holding = self.chance.choice([self._proxy.holding_before, self._proxy.holding_after])
        with holding(times=2, application_name=self._whose()):
            self.last(*self.chance.choice([BELOW_TRUST, BEYOND_TRUST]))

    def freeze_at_commit(self) -> None:
        """Catch a COMMIT that a worker has sent in good faith, and keep it until others have had time to take over."""
        whose = self._whose()
        with self._proxy.holding_before(times=2, application_name=whose) as held, contextlib.suppress(TimeoutError):
            held.wait(1.0)
            with self._proxy.freezing(application_name=whose):
                self.last(INTERVAL * 1.2, INTERVAL * 1.6)
                held.release()

    def refuse(self) -> None:
        """Refuse everybody's new connections."""
        with self._proxy.refusing():
            self._proxy.reset(application_name=self._whose())
            self.last(0.1, 0.5)

    def conflict(self) -> None:
        """Say that a COMMIT met a conflict."""
        with self._proxy.injecting("40001", times=3, application_name=self._whose()):
            self.last(0.2, 0.5)

    def _whose(self, *, psycopg: bool = True) -> str:
        """A pattern for the connections of a worker, those of its psycopg included or not."""
        return f"^bmdb {self._crew.any(self.chance).name}" + ("\\b" if psycopg else "$")


class Database(Stream):
    """Backends that are ended or stopped, and an operator who takes leases away."""

    def __init__(self, seed: str, dsn: str, *, local: bool) -> None:
        menu: list[tuple[float, Fault]] = [
            (4, self.terminate),
            (2, self.cancel),
            (3, self.revoke),
            (2, self.hold_session),
        ]
        if local:
            menu.append((2, self.stop_backend))
        super().__init__("database", seed, (0.1, 0.8), menu)
        self._dsn = dsn

    def _backends(self, count: int) -> list[int]:
        with psycopg.connect(self._dsn, autocommit=True, application_name="faults") as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bmdb %'"
            ).fetchall()
        return self.chance.sample([pid for (pid,) in rows], min(count, len(rows)))

    def terminate(self) -> None:
        """End a few backends."""
        with psycopg.connect(self._dsn, autocommit=True, application_name="faults") as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [self._backends(3)])

    def cancel(self) -> None:
        """Call off what a few backends are doing."""
        with psycopg.connect(self._dsn, autocommit=True, application_name="faults") as connection:
            connection.execute("SELECT pg_cancel_backend(pid) FROM unnest(%s::int[]) AS pid", [self._backends(6)])

    def stop_backend(self) -> None:
        """Stop a backend for a while, whatever it holds."""
        for pid in self._backends(1):
            with contextlib.suppress(psutil.NoSuchProcess, TimeoutError), suspended(pid):
                self.last(*self.chance.choice([BELOW_TRUST, BEYOND_TRUST]))

    def revoke(self) -> None:
        """Take a lease from under its holder, whose session lives on."""
        with psycopg.connect(self._dsn, autocommit=True, application_name="faults") as connection:
            connection.execute(REVOKE, [PROCESS])

    def hold_session(self) -> None:
        """Keep the row of a session locked, so that nobody can renew or collect it."""
        with psycopg.connect(self._dsn, application_name="faults") as connection:
            connection.execute("SELECT 1 FROM sessions ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED")
            self.last(0.1, INTERVAL)


def streams(seed: str, crew: Crew, proxy: Proxy, dsn: str, *, local: bool) -> list[Stream]:
    """All of them, not started. `local`: the server's processes can be signalled."""
    return [Signals(seed, crew), Network(seed, crew, proxy), Database(seed, dsn, local=local)]
