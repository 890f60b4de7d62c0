"""A collector for `prometheus_client`: the fleet in numbers, as a janitor reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as _Base

from bmdb.janitor import Janitor, Kind, Reading

__all__ = ["StatisticsCollector"]

_LABELS = ("statistic", "process")
# How the statistics themselves are doing, each by its name; `process` is that of a backlog, else empty.
_UP = "bmdb_statistic_up"
_AGE = "bmdb_statistic_age_seconds"
_SECONDS = "bmdb_statistic_seconds"
_DROPPED = "bmdb_statistic_dropped"
_FAILURES = "bmdb_statistic_failures"
_ABOUT = {
    _UP: "1 if the statistic could be read the last time, else 0",
    _AGE: "How long ago the statistic was read the last time that it could be",
    _SECONDS: "How long the last reading took, in vain or not",
    _DROPPED: "Label values that were left out, as there were too many",
}


class StatisticsCollector(_Base):
    """Exports what a `bmdb.janitor.Janitor` reads: `REGISTRY.register(StatisticsCollector(Janitor(conninfo)))`.

    A collection may have the database asked, at most once in the janitor's `every`, and waits 5 s for that at most:
    what is not there by then is exported as it was, with its age.
    """

    def __init__(self, janitor: Janitor) -> None:
        self._janitor = janitor

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values, by which a registry finds out that two collectors collide."""
        for kind in self._janitor.kinds:
            yield _family(kind)
        for name, told in _ABOUT.items():
            yield GaugeMetricFamily(name, told, labels=_LABELS)
        yield _failures()

    def collect(self) -> Iterator[Metric]:
        """The statistics as they stand."""
        readings = self._janitor.read()
        families: dict[Kind, Any] = {}
        for reading in readings:
            if reading.series:
                family = families.setdefault(reading.kind, _family(reading.kind))
                for labels, number in reading.series.items():
                    family.add_metric(labels, number)
        yield from families.values()
        yield from self._about(readings)

    def _about(self, readings: list[Reading]) -> Iterator[Metric]:
        about = {name: GaugeMetricFamily(name, told, labels=_LABELS) for name, told in _ABOUT.items()}
        failures = _failures()
        now = self._janitor.clock()
        for reading in readings:
            labels = (_statistic(reading.kind), reading.process)
            about[_UP].add_metric(labels, 0.0 if reading.error else 1.0)
            about[_SECONDS].add_metric(labels, reading.seconds)
            about[_DROPPED].add_metric(labels, reading.dropped)
            if reading.at is not None:
                about[_AGE].add_metric(labels, max(0.0, now - reading.at))
            failures.add_metric(labels, reading.failures)
        yield from about.values()
        yield failures


def _family(kind: Kind) -> Any:
    return GaugeMetricFamily(kind.metric, kind.help, labels=kind.labels)


def _failures() -> Any:
    return CounterMetricFamily(_FAILURES, "Readings of the statistic that failed", labels=_LABELS)


def _statistic(kind: Kind) -> str:
    """The statistic's name without what all of its sort begin with; a user's may be named like one of bmdb's."""
    return kind.name if kind.prefix == "bmdb_stats_" else f"user_{kind.name}"
