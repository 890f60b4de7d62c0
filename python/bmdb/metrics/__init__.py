"""Metrics for Prometheus. Needs the extra `metrics`."""

from bmdb.metrics.collector import Collector, Measured

__all__ = ["Collector", "Measured"]
