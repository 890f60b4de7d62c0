"""How long an idle worker takes to start on a unit: from the moment its enqueueing was sent until its function runs."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from benches.peers.arena import Arena, Failed
from benches.peers.contract import Entry
from benches.peers.quantiles import quantile

WARM_UP = 3
PATIENCE_SECONDS = 15.0


@dataclass
class Starts:
    """Samples in seconds: from sending to the call, and of that what the enqueueing's own commit took."""

    started: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """The median of the times from sending to the call."""
        return quantile(self.started, 0.5)

    @property
    def p99(self) -> float:
        """What all but a hundredth of them keep to; of fewer than a hundred samples, the longest."""
        return quantile(self.started, 0.99)


def measure(arena: Arena, entry: Entry, samples: int, seconds: float = 600.0) -> Starts:
    """One worker, one unit at a time, with pauses that fall on every moment of its polling.

    Fewer samples when they have taken so many seconds. Raises Failed."""
    starts = Starts()
    with arena.database() as database:
        arena.prepare(entry, database, 0)
        worker = arena.worker(entry, database, "note")
        feeder = arena.feeder(entry, database)
        try:
            worker.next("ready", 60)
            feeder.next("ready", 60)
            time.sleep(2.0)
            end = time.monotonic() + seconds
            for number in range(WARM_UP + samples):
                if starts.started and time.monotonic() > end:
                    break
                time.sleep(random.uniform(0.1, 0.4))
                feeder.say("one")
                sent = feeder.next("sent", PATIENCE_SECONDS)
                committed = feeder.next("committed", PATIENCE_SECONDS)
                started = worker.next("started", PATIENCE_SECONDS)
                if number >= WARM_UP:
                    starts.started.append(started - sent)
                    starts.committed.append(committed - sent)
        except TimeoutError as error:
            raise Failed(str(error)) from None
        finally:
            worker.kill()
            feeder.kill()
    return starts
