"""A collector for `prometheus_client`: what connections count, read when Prometheus asks and never in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isinf
from typing import Any, Protocol

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
        UnknownMetricFamily,
    )
    from prometheus_client.registry import Collector as _Base
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'bmdb.metrics needs prometheus_client: pip install "pybmdb[metrics]"', name=error.name
    ) from error

__all__ = ["Collector", "Measured"]

Labels = tuple[tuple[str, str], ...]

# The six of the original, which keep their names: no `_total` at their end.
_ORIGINAL: Mapping[str, str] = {
    "bmdb_session_started": "Sessions started",
    "bmdb_transaction_executed": "Transactions begun: first runs of their callbacks",
    "bmdb_transaction_retried": "Further runs of transactions' callbacks, after a conflict or a broken connection",
    "bmdb_transaction_failed": "Transactions that were given up, or whose outcome is not known",
    "bmdb_work_started": "Leases taken",
    "bmdb_work_finished": "Leases ended by their holders, by result",
}
_COUNTERS: Mapping[str, str] = {
    "bmdb_session_lost": "Sessions that ended without their owner closing them",
    "bmdb_transaction_exhausted": "Transactions, claims and ends given up after too many conflicts, or too long",
    "bmdb_heartbeats": "Heartbeats that renewed the sessions",
    "bmdb_heartbeat_failures": "Heartbeats that failed",
    "bmdb_collected_sessions": "Expired sessions removed by this component, whoever they belonged to",
    "bmdb_collected_leases": "Leases of expired sessions freed by this component",
}
_GAUGES: Mapping[str, str] = {
    "bmdb_sessions_live": "Sessions started here that have not ended",
    "bmdb_leases_live": "Leases held here",
}
_HISTOGRAMS: Mapping[str, str] = {
    "bmdb_heartbeat_lateness_seconds": "How much later than planned heartbeats were sent",
    "bmdb_interpreter_stall_seconds": "How long a thread waited for the GIL, asked about four times a second",
    "bmdb_transaction_seconds": "Duration of transactions with all their retries, by outcome",
}


class Measured(Protocol):
    """A `bmdb.Connection` or `bmdb.AsyncConnection`: whatever has their `metrics()`."""

    def metrics(self) -> list[tuple[str, str, dict[str, str], Any]]:
        """The snapshot."""


class Collector(_Base):
    """Exports the metrics of one or more connections: `prometheus_client.REGISTRY.register(Collector(connection))`.

    Connections are added up: what has the same labels is one number for the process, so tell components apart by the
    `processor` that their sessions were started with. A collection takes a snapshot of each connection, asks the
    database nothing, and may happen on any thread and at any time, also once the connections are closed.

    The original's six counters are exported under their original names, which lack the `_total` that OpenMetrics
    demands of a counter, so they are exported without a type ("untyped", "unknown"): as counters, they would make a
    strict reader refuse the whole page. `rate()` and its like do not ask for the type. The other counters end in
    `_total`.
    """

    def __init__(self, *connections: Measured) -> None:
        if not connections:
            raise TypeError("Collector needs a connection: Collector(connection)")
        self._connections = connections

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values, by which a registry finds out that two collectors collide."""
        for name in (*_ORIGINAL, *_COUNTERS, *_GAUGES, *_HISTOGRAMS):
            yield _family(name, ())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand."""
        numbers: dict[str, dict[Labels, float]] = {}
        histograms: dict[str, dict[Labels, _Sum]] = {}
        for name, kind, labels, value in self._samples():
            key = tuple(sorted(labels.items()))
            if kind == "histogram":
                histograms.setdefault(name, {}).setdefault(key, _Sum()).add(*value)
            else:
                series = numbers.setdefault(name, {})
                series[key] = series.get(key, 0) + value
        for name, series in numbers.items():
            family = _family(name, series)
            for key, number in series.items():
                family.add_metric([text for _, text in key], number)
            yield family
        for name, sums in histograms.items():
            family = _family(name, sums)
            for key, total in sums.items():
                family.add_metric([text for _, text in key], buckets=total.buckets(), sum_value=total.seconds)
            yield family

    def _samples(self) -> Iterator[tuple[str, str, dict[str, str], Any]]:
        for connection in self._connections:
            yield from connection.metrics()


class _Sum:
    """Histograms over the same bounds, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._counts: dict[float, int] = {}

    def add(self, buckets: Iterable[tuple[float, int]], seconds: float) -> None:
        self.seconds += seconds
        for bound, count in buckets:
            self._counts[bound] = self._counts.get(bound, 0) + count

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative counts as Prometheus wants them, the infinite bound last."""
        return [("+Inf" if isinf(bound) else str(bound), count) for bound, count in sorted(self._counts.items())]


def _family(name: str, series: Iterable[Labels]) -> Any:
    """An empty family, with the label names of its first series."""
    labels = [label for label, _ in next(iter(series), ())]
    if name in _ORIGINAL:
        return UnknownMetricFamily(name, _ORIGINAL[name], labels=labels)
    if name in _GAUGES:
        return GaugeMetricFamily(name, _GAUGES[name], labels=labels)
    if name in _HISTOGRAMS:
        return HistogramMetricFamily(name, _HISTOGRAMS[name], labels=labels)
    return CounterMetricFamily(name, _COUNTERS[name], labels=labels)
