"""Whether anything grew or slowed down in a soak. Pure: samples and acts in, findings out.

The run is warm after a sixth of it, five minutes at most; what follows is looked at in tenths. Faults come by chance,
and with them a rate that says more about them than about the library: so each tenth ends with a lull, in which none
begins, and rates and latencies are compared between lulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev

from tests.chaos.gauge import Samples

TENTHS = 10
RESIDENT_SHARE = 0.05
THROUGHPUT_SHARE = 0.95
LATENCY_SHARE = 1.25
DESCRIPTORS_MORE = 2.0
DEAD_SHARE = 1.5
DEAD_MORE = 200.0

# What has struck when a lull begins may take this long to pass: an interval and a half, and a backoff.
SETTLING = 6.0
LULL_SHARE, LULL_LEAST, LULL_MOST = 0.15, 10.0, 60.0
# Shorter runs have no lulls and do not get warm: little of them is judged.
SHORTEST = 300.0
BUCKET = 2.0


@dataclass(frozen=True)
class Span:
    """From one second of a run to another, the latter excluded."""

    start: float
    end: float

    def covers(self, at: float) -> bool:
        """Whether that second belongs to it."""
        return self.start <= at < self.end


@dataclass(frozen=True)
class Schedule:
    """How a run of so many seconds is divided."""

    seconds: float

    @property
    def warm(self) -> float:
        """When warming up is over."""
        return min(self.seconds / 6, 300.0)

    def tenths(self) -> list[Span]:
        """What follows it."""
        edges = [self.warm + (self.seconds - self.warm) * n / TENTHS for n in range(TENTHS + 1)]
        return [Span(*edge) for edge in pairwise(edges)]

    def lulls(self) -> list[Span]:
        """What is measured of each tenth's lull."""
        if self.seconds < SHORTEST:
            return []
        length = min(max((self.seconds - self.warm) / TENTHS * LULL_SHARE, LULL_LEAST), LULL_MOST)
        return [Span(tenth.end - length, tenth.end) for tenth in self.tenths()]

    def resting(self, at: float) -> bool:
        """Whether no fault may begin then."""
        return any(lull.start - SETTLING <= at < lull.end for lull in self.lulls())


@dataclass(frozen=True)
class Finding:
    """What ought not to change. `kept` is None when chance alone may have changed it, or too little is known."""

    subject: str
    expected: str
    measured: str
    kept: bool | None

    def __str__(self) -> str:
        verdict = {True: "kept", False: "BROKEN", None: "not decided"}[self.kept]
        return f"{self.subject}: {self.measured} (expected: {self.expected}): {verdict}"


@dataclass(frozen=True)
class Course:
    """When leases ended, and when acts were begun and how long they took, in seconds since the beginning."""

    ends: Sequence[float]
    acts: Sequence[tuple[float, float]]


def judge(samples: Samples, course: Course, schedule: Schedule) -> list[Finding]:
    """All findings of a run."""
    tenths, lulls = schedule.tenths(), schedule.lulls()
    findings = []
    for name in samples.names():
        own = samples.of(name)
        resident = _medians([(sample.at, sample.resident) for sample in own], tenths)
        descriptors = _medians([(sample.at, float(sample.descriptors)) for sample in own], tenths)
        connections = _medians([(sample.at, float(sample.connections)) for sample in own], tenths)
        findings += [_flat(name, resident if schedule.lulls() else []), _level(f"descriptors of {name}", descriptors)]
        findings.append(_level(f"connections of {name}", connections))
    findings.append(_bounded([(sample.at, float(sample.dead)) for sample in samples.database], tenths))
    findings += [_throughput(course.ends, lulls), _latency(course.acts, lulls)]
    return findings


def _medians(series: Sequence[tuple[float, float]], spans: Sequence[Span]) -> list[float]:
    values = [[value for at, value in series if span.covers(at)] for span in spans]
    return [median(each) for each in values if each]


def _flat(name: str, tenths: Sequence[float]) -> Finding:
    subject, expected = f"resident memory of {name}", f"no tenth further than {RESIDENT_SHARE:.0%} from the first"
    if len(tenths) < 2:
        return Finding(subject, expected, "too few samples", None)
    furthest = max((value / tenths[0] - 1 for value in tenths), key=abs)
    measured = f"{tenths[0]:.1f} → {tenths[-1]:.1f} MiB, furthest {furthest:+.1%}"
    return Finding(subject, expected, measured, abs(furthest) <= RESIDENT_SHARE)


def _level(subject: str, tenths: Sequence[float]) -> Finding:
    expected = f"at most {DESCRIPTORS_MORE:g} more in the last tenths than in the first"
    if len(tenths) < 4:
        return Finding(subject, expected, "too few samples", None)
    # A pool is larger or smaller as chance has it; what leaks is above its beginning in each of the last tenths.
    before, after = max(tenths[:2]), min(tenths[-2:])
    return Finding(subject, expected, f"{before:g} → {after:g}", after <= before + DESCRIPTORS_MORE)


def _bounded(series: Sequence[tuple[float, float]], tenths: Sequence[Span]) -> Finding:
    # Vacuum comes in turns, so peaks are compared; and the first turn is late, so the first half counts as one.
    expected = f"peak of the second half at most {DEAD_SHARE:g} × that of the first, and {DEAD_MORE:g}"
    half = tenths[len(tenths) // 2].start
    early = [value for at, value in series if at < half]
    late = [value for at, value in series if at >= half]
    if not early or not late:
        return Finding("dead tuples", expected, "too few samples", None)
    return Finding(
        "dead tuples", expected, f"{max(early):g} → {max(late):g}", max(late) <= max(early) * DEAD_SHARE + DEAD_MORE
    )


def _throughput(ends: Sequence[float], lulls: Sequence[Span]) -> Finding:
    expected = f"the last tenth's lull at least {THROUGHPUT_SHARE:g} × the first's"
    if not lulls:
        return Finding("throughput", expected, "too short a run", None)
    within = [(lull, [at for at in ends if lull.covers(at)]) for lull in _outer(lulls)]
    rates = [[sum(map(bucket.covers, own)) / BUCKET for bucket in _buckets(lull)] for lull, own in within]
    ratio, error, shown = _ratio(rates, fmean)
    return Finding("throughput", expected, f"{shown} ends/s", _at_most(-ratio, error, -THROUGHPUT_SHARE))


def _latency(acts: Sequence[tuple[float, float]], lulls: Sequence[Span]) -> Finding:
    expected = f"median of the last tenth's lull at most {LATENCY_SHARE:g} × the first's"
    if not lulls:
        return Finding("latency", expected, "too short a run", None)
    took = [[seconds for at, seconds in acts if lull.covers(at)] for lull in _outer(lulls)]
    ratio, error, shown = _ratio(took, median)
    return Finding("latency", expected, f"{shown} s", _at_most(ratio, error, LATENCY_SHARE))


def _outer(lulls: Sequence[Span]) -> tuple[Span, Span]:
    return lulls[0], lulls[-1]


def _buckets(lull: Span) -> list[Span]:
    count = int((lull.end - lull.start) / BUCKET)
    return [Span(lull.start + n * BUCKET, lull.start + (n + 1) * BUCKET) for n in range(count)]


def _ratio(both: Sequence[Sequence[float]], middle: Callable[[Sequence[float]], float]) -> tuple[float, float, str]:
    """The ratio of the last middle to the first, two standard errors of it, and how both are shown."""
    if any(len(each) < 3 or fmean(each) <= 0 for each in both):
        return 1.0, math.inf, "too little"
    first, last = map(middle, both)
    ratio = last / first
    error = 2 * ratio * math.hypot(*(stdev(each) / math.sqrt(len(each)) / fmean(each) for each in both))
    return ratio, error, f"{ratio:.3f} ± {error:.3f} × ({first:.3g} → {last:.3g})"


def _at_most(value: float, error: float, limit: float) -> bool | None:
    """None when only chance may have brought it over the limit, or nothing is known."""
    if math.isinf(error):
        return None
    return True if value <= limit else (None if value - error <= limit else False)
