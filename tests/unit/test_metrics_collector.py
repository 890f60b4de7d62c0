"""The collector's page, from snapshots made up here. tests/behaviour/test_metrics_page.py reads one of real work."""

from __future__ import annotations

import subprocess
import sys
from math import inf
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bmdb.metrics import Collector

Snapshot = list[tuple[str, str, dict[str, str], Any]]
HOSTILE = 'a"b\\c\n\u202e'


class Source:
    """Has the metrics of a connection."""

    def __init__(self, *samples: tuple[str, str, dict[str, str], Any]) -> None:
        self.samples: Snapshot = list(samples)

    def metrics(self) -> Snapshot:
        return self.samples


def page(*sources: Source) -> str:
    registry = CollectorRegistry()
    registry.register(Collector(*sources))
    return generate_latest(registry).decode()


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


ORIGINAL = [
    ("bmdb_session_started", {"processor": "p"}),
    ("bmdb_transaction_executed", {"processor": "p"}),
    ("bmdb_transaction_retried", {"processor": "p"}),
    ("bmdb_transaction_failed", {"processor": "p"}),
    ("bmdb_work_started", {"processor": "p", "process": "x"}),
    ("bmdb_work_finished", {"processor": "p", "process": "x", "result": "failed"}),
]


@pytest.mark.parametrize(("name", "labels"), ORIGINAL)
def test_the_originals_counters_keep_their_names(name: str, labels: dict[str, str]) -> None:
    text = page(Source((name, "counter", labels, 3)))
    assert values(text) == {(name, tuple(sorted(labels.items()))): 3}
    # "counter" would be written as the type of another metric, NAME_total, and break OpenMetrics.
    assert f"# TYPE {name} untyped\n" in text


def test_other_counters_end_in_total() -> None:
    text = page(Source(("bmdb_heartbeats", "counter", {}, 7)))
    assert values(text) == {("bmdb_heartbeats_total", ()): 7}
    assert "# TYPE bmdb_heartbeats_total counter\n" in text


def test_a_strict_reader_takes_the_page() -> None:
    registry = CollectorRegistry()
    numbers = [(name, "counter", labels, 3) for name, labels in ORIGINAL]
    registry.register(
        Collector(
            Source(
                *numbers,
                ("bmdb_heartbeats", "counter", {}, 7),
                ("bmdb_leases_live", "gauge", {"processor": "p"}, 2),
                ("bmdb_transaction_seconds", "histogram", {"outcome": "failed"}, ([(0.5, 1), (inf, 2)], 1.5)),
            )
        )
    )
    families = {family.name: family.type for family in parse_openmetrics(generate_openmetrics(registry).decode())}
    assert families["bmdb_session_started"] == "unknown"
    assert families["bmdb_heartbeats"] == "counter"
    assert families["bmdb_leases_live"] == "gauge"
    assert families["bmdb_transaction_seconds"] == "histogram"


def test_histograms_are_cumulative_and_end_in_infinity() -> None:
    buckets = [(0.001, 1), (2.5, 3), (inf, 4)]
    text = page(Source(("bmdb_heartbeat_lateness_seconds", "histogram", {}, (buckets, 12.5))))
    name = "bmdb_heartbeat_lateness_seconds"
    assert values(text) == {
        (f"{name}_bucket", (("le", "0.001"),)): 1,
        (f"{name}_bucket", (("le", "2.5"),)): 3,
        (f"{name}_bucket", (("le", "+Inf"),)): 4,
        (f"{name}_count", ()): 4,
        (f"{name}_sum", ()): 12.5,
    }


def test_connections_are_added_up_where_their_labels_are_equal() -> None:
    def source(processor: str, factor: int) -> Source:
        histogram = ([(0.5, factor), (inf, 2 * factor)], 1.5 * factor)
        return Source(
            ("bmdb_work_started", "counter", {"processor": processor, "process": "x"}, factor),
            ("bmdb_sessions_live", "gauge", {"processor": processor}, factor),
            ("bmdb_transaction_seconds", "histogram", {"processor": processor, "outcome": "committed"}, histogram),
        )

    shown = values(page(source("a", 1), source("a", 10), source("b", 100)))
    a, b = ("processor", "a"), ("processor", "b")
    assert shown["bmdb_work_started", (("process", "x"), a)] == 11
    assert shown["bmdb_work_started", (("process", "x"), b)] == 100
    assert shown["bmdb_sessions_live", (a,)] == 11
    committed = ("outcome", "committed")
    assert shown["bmdb_transaction_seconds_count", (committed, a)] == 22
    assert shown["bmdb_transaction_seconds_sum", (committed, a)] == 16.5
    assert shown["bmdb_transaction_seconds_bucket", (("le", "0.5"), committed, b)] == 100


def test_each_collection_reads_anew() -> None:
    source = Source(("bmdb_heartbeats", "counter", {}, 1))
    registry = CollectorRegistry()
    registry.register(Collector(source))
    assert registry.get_sample_value("bmdb_heartbeats_total") == 1
    source.samples = [("bmdb_heartbeats", "counter", {}, 2)]
    assert registry.get_sample_value("bmdb_heartbeats_total") == 2


def test_label_values_from_outside_are_escaped() -> None:
    text = page(Source(("bmdb_work_started", "counter", {"processor": "p", "process": HOSTILE}, 1)))
    assert len(text.splitlines()) == 3
    assert values(text) == {("bmdb_work_started", (("process", HOSTILE), ("processor", "p"))): 1}


def test_a_second_collector_in_one_registry_is_refused_before_it_exports_anything() -> None:
    registry = CollectorRegistry()
    registry.register(Collector(Source()))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Collector(Source()))


def test_without_a_connection_there_is_nothing_to_collect() -> None:
    with pytest.raises(TypeError, match="needs a connection"):
        Collector()


def test_the_missing_extra_is_named() -> None:
    source = "import sys; sys.modules['prometheus_client'] = None; import bmdb; import bmdb.metrics"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'pip install "pybmdb[metrics]"' in done.stderr.splitlines()[-1]
