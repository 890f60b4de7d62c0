"""The workers of a chaos test: four places, each held by one process after another."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.processes import WorkerProcess

PROGRAM = Path(__file__).with_name("worker.py")
DISMISS_SECONDS = 45.0


@dataclass(eq=False)
class Place:
    """A worker's place: its name, which its connections carry, how it works, and the process that holds it now."""

    name: str
    style: str
    mortal: bool
    lives: int
    process: WorkerProcess

    def suspended(self) -> AbstractContextManager[None]:
        """Keep the process stopped within the block."""
        return self.process.suspended()


class Crew:
    """Starts the workers, half of them asynchronous, and replaces those that were killed: not the first `immortal`."""

    def __init__(self, conninfo: str, ledgers: Path, seed: str, *, size: int = 4, immortal: int = 0) -> None:
        self._conninfo = conninfo
        self._ledgers = ledgers
        self._seed = seed
        self.places: list[Place] = []
        for number in range(size):
            name, style = f"chaos-{number}", ("sync", "async")[number % 2]
            self.places.append(Place(name, style, number >= immortal, 1, self._start(name, style, 1)))

    def _start(self, name: str, style: str, life: int) -> WorkerProcess:
        ledger = self._ledgers / f"{name}.{life}.jsonl"
        return WorkerProcess(PROGRAM, style, self._conninfo, str(ledger), name, f"{self._seed} {name} {life}")

    def any(self, chance: random.Random, *, mortal: bool = False) -> Place:
        """One of them by chance; `mortal`: one that may be killed."""
        return chance.choice([place for place in self.places if place.mortal or not mortal])

    def replace(self, place: Place) -> None:
        """Kill the process there and start another."""
        place.process.kill()
        place.process.close()
        place.lives += 1
        place.process = self._start(place.name, place.style, place.lives)

    def dismiss(self) -> list[str]:
        """Let all of them end, each in its own time; what they complained of if they did not end well."""
        for place in self.places:
            place.process.send("end")
        complaints = []
        deadline = time.monotonic() + DISMISS_SECONDS
        for place in self.places:
            try:
                status = place.process.wait(max(0.1, deadline - time.monotonic()))
                how = None if status == 0 else f"ended with status {status}"
            except subprocess.TimeoutExpired:
                os.kill(place.process.pid, signal.SIGUSR1)
                time.sleep(1)
                how = f"did not end within {DISMISS_SECONDS:g} s"
            if how is not None:
                complaints.append(f"{place.name} {how}: " + "\n".join(place.process.errors[-80:]))
        return complaints

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for place in self.places:
            place.process.close()
