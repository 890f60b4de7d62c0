"""Metrics for Prometheus. Needs the extra `metrics`."""

from bmdb.metrics.collector import Collector, Measured
from bmdb.metrics.statistics import StatisticsCollector

__all__ = ["Collector", "Measured", "StatisticsCollector"]
