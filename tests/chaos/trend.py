"""Whether anything grew or slowed down in a soak. Pure: samples and acts in, findings out.

The run is warm after a sixth of it, five minutes at most; what follows is looked at in tenths. Faults come by chance,
and with them a rate that says more about them than about the library: so each tenth ends with a lull, in which none
begins, and rates and latencies are taken from lulls alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, linear_regression, median

from tests.chaos.gauge import Samples

TENTHS = 10
RESIDENT_SHARE = 0.05
THROUGHPUT_SHARE = 0.95
LATENCY_SHARE = 1.25
DESCRIPTORS_MORE = 2.0
DEAD_SHARE = 1.5
DEAD_MORE = 2000.0

# What has struck when a lull begins may take this long to pass: an interval and a half, and a backoff.
SETTLING = 6.0
LULL_SHARE, LULL_LEAST, LULL_MOST = 0.15, 10.0, 60.0
# Shorter runs have no lulls and do not get warm: little of them is judged.
SHORTEST = 300.0


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
    # Vacuum comes once a minute, so peaks are compared, which differ by what a minute or two leave. What nothing
    # removes is twice as much after twice the time.
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
    expected = f"in the last tenth at least {THROUGHPUT_SHARE:g} × that of the first, by a line through all lulls"
    rates = [sum(map(lull.covers, ends)) / (lull.end - lull.start) for lull in lulls]
    if not rates or min(rates) <= 0:
        return Finding("throughput", expected, "too short a run", None)
    change, error = _change(rates)
    shown = f"{change:.3f} ± {error:.3f} × ({', '.join(f'{rate:.1f}' for rate in rates)} ends/s)"
    return Finding("throughput", expected, shown, _at_most(-change, error, -THROUGHPUT_SHARE))


def _latency(acts: Sequence[tuple[float, float]], lulls: Sequence[Span]) -> Finding:
    expected = f"in the last tenth at most {LATENCY_SHARE:g} × that of the first, by a line through all lulls"
    took = [[1000 * seconds for at, seconds in acts if lull.covers(at)] for lull in lulls]
    if not took or not all(took):
        return Finding("latency", expected, "too short a run", None)
    medians = [median(each) for each in took]
    change, error = _change(medians)
    shown = f"{change:.3f} ± {error:.3f} × ({', '.join(f'{middle:.1f}' for middle in medians)} ms)"
    return Finding("latency", expected, shown, _at_most(change, error, LATENCY_SHARE))


def _change(values: Sequence[float]) -> tuple[float, float]:
    """The end of a straight line through the values as a share of its beginning, and two standard errors of that.

    A line, since what decays does so all the time, and since its residuals tell how far values differ by chance: other
    programs on the machine included.
    """
    places = range(len(values))
    slope, beginning = linear_regression(places, values)
    squares = sum((value - beginning - slope * place) ** 2 for place, value in zip(places, values, strict=True))
    spread = sum((place - fmean(places)) ** 2 for place in places)
    error = 2 * math.sqrt(squares / (len(values) - 2) / spread) * (len(values) - 1)
    return 1 + slope * (len(values) - 1) / beginning, error / beginning


def _at_most(value: float, error: float, limit: float) -> bool | None:
    """None when only chance may have brought it over the limit."""
    return True if value <= limit else (None if value - error <= limit else False)
