"""What is expected of bmdb beside its peers, as ratios of figures of the same round, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benches.python.report import Comparison, duration, number
from benches.python.rounds import Spread, ratio


@dataclass(frozen=True)
class Expectation:
    """Of two entries, the first is to be at least `factor` times as fast as the second. `key` has no blanks."""

    key: str
    ours: str
    theirs: str
    factor: float


EXPECTATIONS = (
    Expectation("work_many/pgqueuer", "bmdb work_many", "pgqueuer", 1.4),
    Expectation("256_tasks/pgqueuer", "bmdb 256 tasks", "pgqueuer", 0.8),
    Expectation("256_tasks/awa-pg", "bmdb 256 tasks", "awa-pg", 1.3),
    Expectation("64_threads/pgqueuer", "bmdb 64 threads", "pgqueuer", 0.8),
    Expectation("64_threads/awa-pg", "bmdb 64 threads", "awa-pg", 1.3),
    Expectation("4_processes/one_process", "bmdb 4 processes", "bmdb 64 threads", 1.2),
    Expectation("one_caller/psycopg", "bmdb one caller", "psycopg", 2.0),
    Expectation("one_caller/pgbench", "bmdb one caller", "pgbench", 0.9),
    Expectation("callback/psycopg_16_threads", "bmdb callback", "psycopg 16 threads", 1.5),
)

WOKEN_LIMIT = 0.004


def comparisons(rates: Mapping[str, Sequence[float]]) -> list[tuple[str, Comparison]]:
    """A comparison for each expectation whose entries both were measured, by its key. Rates: one a round."""
    found = []
    for expected in EXPECTATIONS:
        ours, theirs = rates.get(expected.ours), rates.get(expected.theirs)
        if not ours or not theirs or len(ours) != len(theirs):
            continue
        figures = [f"{number(Spread.of(values).median)} a second" for values in (ours, theirs)]
        subject = f"{expected.ours} beside {expected.theirs}"
        compared = Comparison(subject, ratio(ours, theirs), figures[0], figures[1], expected.factor, "at least")
        found.append((expected.key, compared))
    return found


def starts(p99: Mapping[str, float], poll_seconds: float) -> list[tuple[str, Comparison]]:
    """The same for the time from idle to start: woken, and polling. `p99`: seconds for each entry."""
    limits = {"bmdb woken": WOKEN_LIMIT, "bmdb polling": poll_seconds + WOKEN_LIMIT}
    keys = {"bmdb woken": "woken_start_p99/limit", "bmdb polling": "polling_start_p99/limit"}
    found = []
    for name, limit in limits.items():
        if name in p99:
            share = Spread.of([p99[name] / limit])
            subject = f"{name}: idle to start, p99"
            compared = Comparison(subject, share, duration(p99[name]), f"limit: {duration(limit)}", 1.0)
            found.append((keys[name], compared))
    return found


def lines(found: Sequence[tuple[str, Comparison]]) -> list[str]:
    """`name ratio`, one a line."""
    return [f"{key} {compared.ratio.median:.2f}" for key, compared in found]
