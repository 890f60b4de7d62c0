"""Backoff against an independent oracle, and the promises that must hold for every input."""

import math
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bmdb import Backoff
from bmdb._core import backoff_without

from . import backoff_oracle

pytestmark = pytest.mark.filterwarnings("ignore:.*never grows:UserWarning")

LIMIT_NS = 2**63 - 1
LONGEST = 9_223_372_037
EDGES = [0, 1, 2, 2**31, 2**53 // 10**9, 2**53, LIMIT_NS // 10**9, LONGEST, 2**63 - 1, 2**63, 2**64, 10**30]

finite = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
durations = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 10**6),
    st.integers(0, 2**63 - 1),
    st.floats(min_value=0, max_value=1e6),
    finite,
    st.timedeltas(min_value=timedelta(0)),
)
growing = st.one_of(
    st.sampled_from([1 + 2**-52, 1 + 2**-40, 1.000001, 1.1, 1.2, 2.0, 1e18, 1.7976931348623157e308]),
    st.floats(min_value=1, max_value=4, exclude_min=True),
    st.floats(min_value=1, exclude_min=True, allow_infinity=False),
)
exponents = st.one_of(growing, st.sampled_from([0, 1]), st.floats(min_value=0, max_value=1))
whole_previous = st.one_of(st.sampled_from(EDGES), st.integers(0, 10**4), st.integers(0, LONGEST + 2))


@settings(max_examples=400, deadline=None)
@given(initial=durations, maximum=st.none() | durations, exponent=exponents, previous=st.none() | durations)
@example(initial=1, maximum=86400, exponent=1.1, previous=10)
@example(initial=1.5, maximum=None, exponent=1.0, previous=None)
@example(initial=1, maximum=2**63, exponent=1 + 2**-52, previous=9_223_372_036)
@example(initial=1, maximum=math.nextafter(2.0, 3.0), exponent=1.1, previous=2)
def test_agrees_with_the_oracle(initial: Any, maximum: Any, exponent: float, previous: Any) -> None:
    expected = backoff_oracle.next_period(previous, initial=initial, maximum=maximum, exponent=exponent)
    assert Backoff(initial, maximum, exponent).next(previous) == expected


@settings(max_examples=100, deadline=None)
@given(initial=durations, maximum=durations, exponent=exponents, n=st.integers(0, 40))
def test_schedule_feeds_each_period_back(initial: Any, maximum: Any, exponent: float, n: int) -> None:
    backoff = Backoff(initial, maximum, exponent)
    previous, periods = None, []
    for _ in range(n):
        previous = backoff_oracle.next_period(previous, initial=initial, maximum=maximum, exponent=exponent)
        periods.append(previous)
    assert backoff.schedule(n) == periods


@settings(deadline=None)
@given(previous=st.none() | durations)
def test_without_backoff_agrees_with_the_oracle(previous: Any) -> None:
    assert backoff_without(previous) == backoff_oracle.period_without_backoff(previous)


@settings(max_examples=250, deadline=None)
@given(initial=durations, maximum=durations, exponent=growing, previous=durations)
def test_bounds_and_strict_rise(initial: Any, maximum: Any, exponent: float, previous: Any) -> None:
    period = Backoff(initial, maximum, exponent).next(previous)
    start = max(backoff_oracle.exact_seconds(initial), Fraction(1))
    highest = min(max(start, backoff_oracle.exact_seconds(maximum)), Fraction(LIMIT_NS, 10**9))
    last = max(backoff_oracle.exact_seconds(previous), Fraction(1))
    assert type(period) is int
    assert 1 <= period <= math.ceil(highest)
    if last < highest:
        assert period >= last + 1 or period == math.ceil(highest)
    else:
        assert period == math.ceil(highest)


@settings(deadline=None)
@given(maximum=st.integers(2, 10**7), exponent=growing, start=st.integers(1, 10**7))
def test_a_schedule_rises_to_its_maximum_and_stays(maximum: int, exponent: float, start: int) -> None:
    assume(start <= maximum)
    periods = Backoff(start, maximum, exponent).schedule(60)
    for shorter, longer in pairwise(periods):
        assert longer > shorter or longer == shorter == maximum


@settings(deadline=None)
@given(maximum=st.integers(1, 10**9), exponent=growing, above=st.integers(0, 2**63 - 1))
def test_comes_down_to_the_maximum_from_above(maximum: int, exponent: float, above: int) -> None:
    assert Backoff(1, maximum, exponent).next(maximum + above) == maximum


@settings(deadline=None)
@given(initial=durations, exponent=st.floats(min_value=0, max_value=1), previous=st.none() | durations)
def test_simple_backoff_is_always_the_rounded_up_initial(initial: Any, exponent: float, previous: Any) -> None:
    exact = min(backoff_oracle.exact_seconds(initial), Fraction(LIMIT_NS, 10**9))
    assert Backoff(initial, exponent=exponent).next(previous) == max(1, math.ceil(exact))


@settings(max_examples=250, deadline=None)
@given(
    initial=durations,
    maximum=st.none() | durations,
    exponent=exponents,
    jitter=st.floats(0, 1),
    previous=st.none() | whole_previous,
)
@example(initial=10, maximum=None, exponent=1.0, jitter=1.0, previous=None)
def test_jitter_only_shortens_and_leaves_a_second(
    initial: Any, maximum: Any, exponent: float, jitter: float, previous: int | None
) -> None:
    period = backoff_oracle.next_period(previous, initial=initial, maximum=maximum, exponent=exponent)
    backoff = Backoff(initial, maximum, exponent, jitter=jitter)
    lowest = max(1, math.ceil(period - Fraction(jitter) * period - Fraction(1, 10**6)))
    for _ in range(5):
        assert lowest <= backoff.next(previous) <= period


anything = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([-(2**63), 2**63 - 1, 2**63, 10**400, -(10**400)]),
    st.timedeltas(),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
)


@settings(max_examples=400, deadline=None)
@given(initial=anything, maximum=anything, exponent=anything, jitter=anything, previous=anything)
def test_total_at_every_input(initial: Any, maximum: Any, exponent: Any, jitter: Any, previous: Any) -> None:
    fields = {"initial": initial, "maximum": maximum, "exponent": exponent, "jitter": jitter}
    for field, value in fields.items():
        try:
            Backoff(**{"maximum": 1, field: value})
        except ValueError as error:
            assert str(error).startswith(f"{field} must ")
            fields[field] = 1
    backoff = Backoff(**fields)
    try:
        period = backoff.next(previous)
    except ValueError as error:
        assert str(error).startswith("previous must ")
        period = backoff.next(0)
    assert 1 <= period <= LONGEST


@settings(deadline=None)
@given(settings_of=st.tuples(durations, st.none() | durations, exponents), jitter=st.floats(0, 1))
def test_equal_settings_make_equal_values(settings_of: tuple[Any, Any, float], jitter: float) -> None:
    first, second = Backoff(*settings_of, jitter=jitter), Backoff(*settings_of, jitter=jitter)
    assert first == second and hash(first) == hash(second)
    assert eval(repr(first)) == first
