"""What grows or slows down in a soak is found, and what does not is not."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import gauge, plot, trend
from tests.chaos.gauge import Database, Samples, Worker

HOUR = trend.Schedule(3600.0)
NAME = "chaos-0 (sync)"


class World:
    """An hour in which nothing grows: steady memory with some noise, ten ends a second, acts of 10 to 30 ms."""

    def __init__(self) -> None:
        chance = random.Random(7)
        times = [5.0 * n for n in range(720)]
        self.samples = Samples(
            [Worker(NAME, at, 50 + chance.uniform(-0.5, 0.5), chance.randint(18, 24), 6) for at in times],
            [Database(at, chance.randint(100, 900), 30) for at in times],
        )
        self.ends = [n / 10 + chance.uniform(0, 0.1) for n in range(36_000)]
        self.acts = [(at, chance.uniform(0.01, 0.03)) for at in self.ends]

    def judged(self) -> dict[str, bool | None]:
        findings = trend.judge(self.samples, trend.Course(self.ends, self.acts), HOUR)
        return {finding.subject: finding.kept for finding in findings}

    def grow(self, change: Callable[[Worker], Worker]) -> None:
        self.samples.workers = [change(worker) for worker in self.samples.workers]


def test_a_steady_hour_keeps_all_that_is_expected() -> None:
    judged = World().judged()
    assert len(judged) == 6
    assert set(judged.values()) == {True}, judged


GROWING: dict[str, tuple[Callable[[World], object], str]] = {
    "a tenth more memory in an hour": (
        lambda w: w.grow(lambda s: replace(s, resident=s.resident * (1 + 0.1 * s.at / 3600))),
        f"resident memory of {NAME}",
    ),
    "memory that jumps once": (
        lambda w: w.grow(lambda s: replace(s, resident=s.resident + (4 if s.at > 3300 else 0))),
        f"resident memory of {NAME}",
    ),
    "a descriptor every five minutes": (
        lambda w: w.grow(lambda s: replace(s, descriptors=s.descriptors + int(s.at // 300))),
        f"descriptors of {NAME}",
    ),
    "a connection every ten minutes": (
        lambda w: w.grow(lambda s: replace(s, connections=s.connections + int(s.at // 600))),
        f"connections of {NAME}",
    ),
    "dead tuples that nothing removes": (
        lambda w: setattr(w.samples, "database", [replace(s, dead=int(10 * s.at)) for s in w.samples.database]),
        "dead tuples",
    ),
    "ever fewer ends": (
        lambda w: setattr(w, "ends", [at for n, at in enumerate(w.ends) if n % 10 or at < 300 * (n // 10 % 12)]),
        "throughput",
    ),
    "acts that take twice as long at the end": (
        lambda w: setattr(w, "acts", [(at, took * (1 + at / 3600)) for at, took in w.acts]),
        "latency",
    ),
}


@pytest.mark.parametrize("what", GROWING)
def test_growth_is_found_and_nothing_else(what: str) -> None:
    world = World()
    growing, subject = GROWING[what]
    growing(world)
    judged = world.judged()
    assert judged.pop(subject) is False
    assert set(judged.values()) == {True}, judged


def test_what_chance_may_have_done_is_not_held_against_it() -> None:
    world = World()
    # A machine that has less time for it now and then, and in the last tenth too.
    world.ends = [at for n, at in enumerate(world.ends) if int(at // 330) not in (3, 5, 10) or n % 3]
    assert world.judged()["throughput"] is None


def test_little_of_a_short_run_is_judged() -> None:
    world = World()
    findings = trend.judge(world.samples, trend.Course(world.ends, world.acts), trend.Schedule(60.0))
    undecided = {finding.subject for finding in findings if finding.kept is None}
    assert undecided >= {f"resident memory of {NAME}", "throughput", "latency"}


def test_faults_rest_before_each_lull_and_in_it() -> None:
    lulls = HOUR.lulls()
    assert len(lulls) == trend.TENTHS
    assert all(HOUR.resting(at) for lull in lulls for at in (lull.start - trend.SETTLING, lull.start, lull.end - 0.1))
    assert not HOUR.resting(lulls[0].start - trend.SETTLING - 0.1)
    # Most of the time faults strike.
    assert sum(HOUR.resting(float(at)) for at in range(3600)) < 3600 / 4


def test_its_page_shows_all_of_it(tmp_path: Path) -> None:
    world = World()
    course = trend.Course(world.ends, world.acts)
    page = plot.page(
        tmp_path / "soak", "run", "report", trend.judge(world.samples, course, HOUR), world.samples, course
    )
    pictures = {path.stem for path in page.parent.glob("*.svg")}
    assert pictures == {"memory", "descriptors", "connections", "dead-tuples", "throughput", "latency"}
    text = page.read_text()
    assert all(f"]({name}.svg)" in text for name in pictures)
    assert text.count("| kept |") == 6
    assert "<script" not in (page.parent / "memory.svg").read_text()
    assert len((page.parent / "samples.csv").read_text().splitlines()) == 1 + 720 * 2


def test_a_process_is_looked_at_as_it_is() -> None:
    before = gauge.look_at("me", os.getpid(), 1.0)
    with Path(__file__).open():
        more = gauge.look_at("me", os.getpid(), 2.0)
    assert more.descriptors == before.descriptors + 1
    assert more.resident > 1
