"""The token bucket through the binding; its arithmetic is tested where it is written, in rust/core/src/pace.rs."""

import math

import pytest

from bmdb import _core


def test_a_burst_at_once_then_one_each_period() -> None:
    pace = _core.Pace(0.25, 8)
    assert [pace.take(100.0) for _ in range(8)] == [0.0] * 8
    assert pace.take(100.0) == pytest.approx(0.25)
    assert pace.take(100.1) == pytest.approx(0.15)
    assert pace.take(100.25) == 0.0
    assert pace.take(100.25) == pytest.approx(0.25)


def test_whoever_asks_as_soon_as_it_may_has_what_the_rate_says() -> None:
    pace, now, had = _core.Pace(0.25, 8), 0.0, 0
    while now <= 60.0:
        wait = pace.take(now)
        had += wait == 0.0
        now += wait
    # The waits are floats, so the last one may fall just beyond the minute.
    assert had in (8 + 239, 8 + 240)


@pytest.mark.parametrize(("every", "burst"), [(-1.0, 1), (math.nan, 1), (math.inf, 1), (0.25, 0)])
def test_senseless_settings_are_refused(every: float, burst: int) -> None:
    with pytest.raises(ValueError, match="every must be seconds|burst must be at least 1"):
        _core.Pace(every, burst)


def test_a_time_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="now must be seconds"):
        _core.Pace(0.25, 1).take(-1.0)
