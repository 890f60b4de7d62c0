"""Backoff from Python: the original's vectors, arguments of every kind, and what a frozen value must do."""

import copy
import json
import math
import pickle
import random
import warnings
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bmdb import Backoff
from bmdb._core import backoff_without

from . import backoff_oracle

VECTORS = json.loads(Path(__file__).with_name("backoff_vectors.json").read_text())["cases"]
DOCUMENTED = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17]
LONGEST = 9_223_372_037
FIELDS = ["initial", "maximum", "exponent", "jitter"]


def given(field: str, value: object) -> Backoff:
    arguments: dict[str, Any] = {"maximum": 60, field: value}
    return Backoff(**arguments)


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_vector(case: dict[str, Any]) -> None:
    next_period = backoff_without if case["backoff"] is None else Backoff(**case["backoff"]).next
    previous, periods = case["previous"], []
    for _ in case["periods"]:
        previous = next_period(previous)
        periods.append(previous)
    assert periods == case["periods"]


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_vector_by_the_oracle(case: dict[str, Any]) -> None:
    previous, periods = case["previous"], []
    for _ in case["periods"]:
        if case["backoff"] is None:
            previous = backoff_oracle.period_without_backoff(previous)
        else:
            previous = backoff_oracle.next_period(previous, **case["backoff"])
        periods.append(previous)
    assert periods == case["periods"]


def test_documented_sequence_is_the_schedule() -> None:
    assert Backoff(1, 86400, 1.1).schedule(14) == DOCUMENTED
    assert Backoff(maximum=timedelta(days=1), exponent=1.1).schedule(14) == DOCUMENTED


def test_defaults_are_one_second_for_ever() -> None:
    backoff = Backoff()
    assert (backoff.initial, backoff.maximum, backoff.exponent, backoff.jitter) == (1.0, None, 1.0, 0.0)
    assert backoff.schedule(3) == [1, 1, 1]


@pytest.mark.parametrize(
    ("initial", "first"),
    [(0, 1), (0.001, 1), (1, 1), (math.nextafter(1.0, 2.0), 2), (1.5, 2), (2.0, 2), (timedelta(milliseconds=2001), 3)],
)
def test_initial_rounds_up(initial: Any, first: int) -> None:
    assert Backoff(initial).next() == first
    assert Backoff(initial, 100, 2.0).next() == first


@pytest.mark.parametrize("exponent", [0, 0.2, 1, 1.0])
@pytest.mark.parametrize("previous", [None, 0, 1, 30, 61, 10**6, 2**63 - 1])
def test_simple_backoff_ignores_the_previous_period(exponent: float, previous: int | None) -> None:
    assert Backoff(59.5, 3600, exponent).next(previous) == 60


def test_multiplies_in_whole_nanoseconds() -> None:
    assert 10 * 1.1 > 11 - 1e-9 and Fraction(1.1) * 10 > 11
    assert Backoff(maximum=60, exponent=1.1).next(10) == 11
    assert Backoff(maximum=60, exponent=10).next(2.1) == 21
    assert Backoff(maximum=60, exponent=10).next(timedelta(seconds=2, milliseconds=100)) == 21


@pytest.mark.parametrize(
    ("previous", "expected"),
    [(1, 2), (1.25, 3), (119, 120), (119.5, 121), (120, 121), (120.4, 121), (120.5, 121), (121, 121), (10**9, 121)],
)
def test_hardly_any_exponent_still_rises_by_a_second_up_to_the_maximum(previous: float, expected: int) -> None:
    assert Backoff(1, 120.5, 1 + 2**-52).next(previous) == expected


def test_rises_where_floats_lose_the_step() -> None:
    backoff = Backoff(1, 2**40, 1 + 2**-52)
    for previous in (2**53 // 10**9, 2**53 // 10**9 + 1, 2**33 - 1, 9_223_372_035):
        assert backoff.next(previous) == previous + 1


@pytest.mark.parametrize("previous", [4_611_686_019, 9_223_372_035, LONGEST - 1, LONGEST, 2**63 - 1, 10**400, 1e300])
def test_overflow_ends_at_the_maximum(previous: float) -> None:
    assert Backoff(1, 3600, 2.0).next(previous) == 3600
    assert Backoff(1, 2**62, 2.0).next(previous) == LONGEST


@pytest.mark.parametrize("duration", [2**63, 10**400, 1e300, timedelta.max, Fraction(10**400), LONGEST])
def test_durations_are_cut_to_64_bits_of_nanoseconds(duration: Any) -> None:
    assert Backoff(duration).next() == LONGEST
    assert Backoff(1, duration, 1e308).next(2) == LONGEST
    assert Backoff(duration, duration, 2).next(duration) == LONGEST
    assert Backoff(duration).initial == (2**63 - 1) / 10**9
    assert backoff_without(duration) == LONGEST


def test_a_huge_exponent_goes_straight_to_the_maximum() -> None:
    assert Backoff(5, 60, 10**400).schedule(3) == [5, 60, 60]


@pytest.mark.parametrize(
    ("previous", "expected"), [(None, 1), (0, 1), (0.001, 1), (1, 1), (1.5, 2), (60, 60), (timedelta(minutes=1), 60)]
)
def test_without_a_backoff_the_period_is_kept(previous: Any, expected: int) -> None:
    assert backoff_without(previous) == expected


@pytest.mark.parametrize("kind", [int, float, Fraction, Decimal, lambda seconds: timedelta(seconds=seconds)])
def test_durations_of_every_kind(kind: Any) -> None:
    backoff = Backoff(kind(60), kind(120), 1.1)
    assert backoff == Backoff(60, 120, 1.1)
    assert backoff.next(kind(60)) == 66


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5, -(10**400), "1", b"1", True, 1j, [1]])
def test_refuses_and_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must "):
        given(field, value)


@pytest.mark.parametrize("field", ["initial", "exponent", "jitter"])
def test_refuses_none_except_as_the_maximum(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must "):
        given(field, None)
    assert Backoff(maximum=None).maximum is None


@pytest.mark.parametrize("field", ["exponent", "jitter"])
def test_refuses_a_timedelta_as_a_plain_number(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must be a number, not timedelta"):
        given(field, timedelta(seconds=1))


@pytest.mark.parametrize("field", ["initial", "maximum"])
def test_refuses_a_negative_timedelta(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must not be negative"):
        given(field, timedelta(microseconds=-1))


@pytest.mark.parametrize("jitter", [math.nextafter(1.0, 2.0), 2, 10**400])
def test_refuses_more_jitter_than_the_whole(jitter: float) -> None:
    with pytest.raises(ValueError, match="^jitter must lie between 0 and 1"):
        Backoff(jitter=jitter)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -1, -(10**400), -0.1, timedelta(microseconds=-1), "60", b"6", True, object()]
)
def test_refuses_and_names_previous(value: Any) -> None:
    for call in (Backoff(1, 60, 2.0).next, backoff_without):
        with pytest.raises(ValueError, match=r"^previous must "):
            call(value)


def test_an_error_inside_float_passes_unchanged() -> None:
    class Broken:
        def __float__(self) -> float:
            raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        Backoff(Broken())


@pytest.mark.parametrize("n", [-1, 1_000_001, 10**400])
def test_schedule_refuses_lengths_beyond_reason(n: int) -> None:
    with pytest.raises(ValueError, match="^n must lie between"):
        Backoff().schedule(n)


def test_schedule_lengths() -> None:
    assert Backoff().schedule(0) == []
    assert len(Backoff(1, 10, 2.0).schedule(1_000_000)) == 1_000_000
    with pytest.raises(TypeError):
        Backoff().schedule(1.5)  # type: ignore[arg-type]


def test_warns_of_growth_without_a_maximum() -> None:
    with pytest.warns(UserWarning, match="never grows") as caught:
        backoff = Backoff(60, exponent=1.1)
    assert caught[0].filename == __file__
    assert backoff.schedule(3) == [60, 60, 60]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Backoff(60)
        Backoff(60, 3600, 1.1)
        Backoff(60, exponent=0.5)


def test_frozen_and_compared_by_settings() -> None:
    backoff = Backoff(timedelta(minutes=1), 120, 1.1, jitter=0.25)
    assert backoff == Backoff(60.0, 120.0, 1.1, jitter=0.25)
    assert hash(backoff) == hash(Backoff(60.0, 120.0, 1.1, jitter=0.25))
    assert backoff not in {
        Backoff(61, 120, 1.1, jitter=0.25),
        Backoff(60, 120, 1.1),
        Backoff(60, 120, 1.2, jitter=0.25),
    }
    assert Backoff(0.0) == Backoff(-0.0) and hash(Backoff(0.0)) == hash(Backoff(-0.0))
    assert Backoff(60) != Backoff(60, 60)
    assert backoff != "backoff"
    for name in FIELDS:
        with pytest.raises(AttributeError):
            setattr(backoff, name, 1.0)


def test_jitter_is_named_only() -> None:
    with pytest.raises(TypeError):
        Backoff(1, 2, 1.0, 0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize("backoff", [Backoff(), Backoff(60, 1e300, 1e300), Backoff(0.1, 2.5, 1e-7, jitter=0.1)])
def test_repr_copies_and_pickles_rebuild_the_value(backoff: Backoff) -> None:
    assert eval(repr(backoff)) == backoff
    assert copy.copy(backoff) is backoff
    assert copy.deepcopy([backoff])[0] is backoff
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(backoff, protocol))
        assert again == backoff and again.schedule(5) == backoff.schedule(5)


def test_repr() -> None:
    assert repr(Backoff(60, 120, 1.1)) == "Backoff(initial=60.0, maximum=120.0, exponent=1.1, jitter=0.0)"
    assert repr(Backoff(timedelta(milliseconds=1))) == "Backoff(initial=0.001, maximum=None, exponent=1.0, jitter=0.0)"


def test_jitter_follows_random_and_takes_off_each_count_alike() -> None:
    backoff = Backoff(10, jitter=0.5)
    random.seed(7)
    drawn = [backoff.next() for _ in range(6000)]
    random.seed(7)
    assert drawn[:100] == [backoff.next() for _ in range(100)]
    counts = {wait: drawn.count(wait) for wait in set(drawn)}
    assert sorted(counts) == [5, 6, 7, 8, 9, 10]
    # A thousand each; a deviation of 200 is more than six standard deviations.
    assert all(abs(count - 1000) < 200 for count in counts.values())


def test_schedule_leaves_jitter_out() -> None:
    assert Backoff(60, 120, 1.1, jitter=1).schedule(5) == Backoff(60, 120, 1.1).schedule(5)


def test_full_jitter_leaves_a_second() -> None:
    random.seed(7)
    assert {Backoff(3, jitter=1).next() for _ in range(200)} == {1, 2, 3}
