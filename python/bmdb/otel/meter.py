"""Metrics through OpenTelemetry's meter: what connections count, and how long operations take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from bmdb import _core
from bmdb.otel import attributes as names

__all__ = ["COUNTERS", "GAUGES", "Meter", "dotted"]

# What connections count, by the names that Prometheus has for them; here with dots. A histogram, which cannot be
# observed, is two counters, `.count` and `.sum`.
COUNTERS = (
    "bmdb_session_started",
    "bmdb_session_lost",
    "bmdb_transaction_executed",
    "bmdb_transaction_retried",
    "bmdb_transaction_failed",
    "bmdb_transaction_exhausted",
    "bmdb_work_started",
    "bmdb_work_finished",
    "bmdb_heartbeats",
    "bmdb_heartbeat_failures",
    "bmdb_collected_sessions",
    "bmdb_collected_leases",
)
HISTOGRAMS = ("bmdb_heartbeat_lateness_seconds", "bmdb_interpreter_stall_seconds")
GAUGES = ("bmdb_sessions_live", "bmdb_leases_live")
# By which durations are told apart: what has few values.
_MEASURED_BY = (
    names.DB_SYSTEM,
    names.DB_NAMESPACE,
    names.DB_OPERATION,
    names.DB_STATUS,
    names.ERROR_TYPE,
    names.SERVER_ADDRESS,
    names.SERVER_PORT,
    names.PROCESS,
)
# In seconds, as the conventions advise.
_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

Labels = frozenset[tuple[str, str]]


def dotted(name: str) -> str:
    """The name that a metric of Prometheus's has here: `bmdb_work_started` is `bmdb.work.started`."""
    return name.removesuffix("_seconds").replace("_", ".")


class Meter:
    """Instruments that look at the connections when somebody asks. Connections are added up, closed ones included."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._lock = threading.Lock()
        self._cores: list[_core.Connection] = []
        # What closed connections had counted.
        self._past: dict[tuple[str, Labels], float] = {}
        self._stopped = False
        self._durations = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of transactions with all their attempts, of claims, and of ends",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        for name in COUNTERS:
            meter.create_observable_counter(dotted(name), callbacks=[self._observer(name)])
        for name in HISTOGRAMS:
            meter.create_observable_counter(f"{dotted(name)}.count", callbacks=[self._observer(f"{name}_count")])
            meter.create_observable_counter(f"{dotted(name)}.sum", callbacks=[self._observer(f"{name}_sum")], unit="s")
        for name in GAUGES:
            meter.create_observable_up_down_counter(dotted(name), callbacks=[self._observer(name)])

    def add(self, core: _core.Connection) -> None:
        """Counts this connection, too."""
        with self._lock:
            if not any(known is core for known in self._cores):
                self._cores.append(core)

    def stop(self) -> None:
        """Tells nothing any more: instruments cannot be taken back."""
        with self._lock:
            self._stopped = True
            self._cores.clear()

    def measured(self, seconds: float, attributes: Mapping[str, Any]) -> None:
        """Something took so long."""
        self._durations.record(seconds, {name: attributes[name] for name in _MEASURED_BY if name in attributes})

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                if self._stopped:
                    return []
                found = self._total()
            return [Observation(value, dict(labels)) for (known, labels), value in found.items() if known == name]

        return observe

    def _total(self) -> dict[tuple[str, Labels], float]:
        total = dict(self._past)
        for core in list(self._cores):
            # Asked before its numbers are: what is closed counts no further.
            closed = core.closed
            for key, value in _numbers(core):
                total[key] = total.get(key, 0) + value
                if closed:
                    self._past[key] = self._past.get(key, 0) + value
            if closed:
                self._cores.remove(core)
        return total


def _numbers(core: _core.Connection) -> Iterator[tuple[tuple[str, Labels], float]]:
    for name, kind, labels, value in core.metrics():
        by = frozenset(labels.items())
        if kind == "histogram":
            buckets, total = value
            yield (f"{name}_count", by), buckets[-1][1]
            yield (f"{name}_sum", by), total
        else:
            yield (name, by), value
