"""Taking turns: what is compared runs within the same minute, over and over, and each round gives one ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of some measurements, and between which bounds they lay."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each contender once a round, in the order given: A B A B. Returns one value a round for each."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
    return measured


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of the ratios of values measured in the same round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def alternate_calls(acts: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Take turns call by call for so many seconds a round. Returns the median time of a call for each act and round.

    For calls that wait for a disk, whose speed changes from one moment to the next.
    """
    measured: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        took: dict[str, list[float]] = {name: [] for name in acts}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, act in acts.items():
                started = time.perf_counter()
                act()
                took[name].append(time.perf_counter() - started)
        for name, times in took.items():
            measured[name].append(statistics.median(times))
    return measured
