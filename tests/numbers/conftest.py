"""Statistics of a real database, as Prometheus sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import bmdb
from bmdb.janitor import Janitor
from bmdb.metrics import StatisticsCollector

Page = dict[tuple[str, ...], float]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scraped:
    """A janitor behind a page of metrics: each `scrape` is one of Prometheus's."""

    def __init__(self, conninfo: str, *statistics: bmdb.Statistic[Any], every: float = 0.0, patience: float = 20.0):
        self.clock = Clock()
        self.janitor = Janitor(conninfo, statistics, every=every, patience=patience, clock=self.clock)
        self._registry = CollectorRegistry()
        self._registry.register(StatisticsCollector(self.janitor))

    def text(self) -> str:
        """The page."""
        return generate_latest(self._registry).decode()

    def scrape(self) -> Page:
        """Its samples by name and label values, in the order of the labels' names."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }


Scrape = Callable[..., Scraped]


@pytest.fixture
def scraped(database: str) -> Iterator[Scrape]:
    """Makes janitors of the database, which end with the test."""
    made: list[Scraped] = []

    def make(*statistics: bmdb.Statistic[Any], **settings: Any) -> Scraped:
        made.append(Scraped(settings.pop("conninfo", database), *statistics, **settings))
        return made[-1]

    yield make
    for each in made:
        each.janitor.close(5.0)
