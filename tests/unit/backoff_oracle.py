"""The rules of backoff once more, in Python's exact integers and fractions, to check bmdb against.

This follows the original step by step (`docs/original.md` has the differences) and shares nothing with the Rust
implementation. Only the multiplication uses floats, because the original's result depends on their rounding.
"""

import math
from datetime import timedelta
from fractions import Fraction

Duration = int | float | timedelta

SECOND = 10**9
INT64_MAX = 2**63 - 1


def exact_seconds(duration: Duration) -> Fraction:
    if isinstance(duration, timedelta):
        return Fraction(duration // timedelta(microseconds=1), 10**6)
    return Fraction(duration)


def whole_seconds(duration: Fraction) -> int:
    """Rounded up, after cutting the duration to what the original's 64-bit nanoseconds hold."""
    return math.ceil(min(duration, Fraction(INT64_MAX, SECOND)))


def next_period(
    previous: Duration | None = None,
    *,
    initial: Duration = 0,
    maximum: Duration | None = None,
    exponent: float = 0.0,
) -> int:
    factor = 1.0 if exponent < 1 else float(exponent)
    start = max(exact_seconds(initial), Fraction(1))
    end = start if maximum is None else max(start, exact_seconds(maximum))
    if factor == 1.0 or previous is None:
        return whole_seconds(start)

    last = max(exact_seconds(previous), Fraction(1))
    if last >= min(end, Fraction(INT64_MAX, SECOND)):
        return whole_seconds(end)

    nanoseconds = min(round(last * SECOND), INT64_MAX)
    product = float(nanoseconds) * factor
    longer = end if product >= 2.0**63 else min(end, Fraction(int(product), SECOND))
    # Rounding can leave no whole second between a period and the next, and a float can even lose the whole step.
    risen = max(whole_seconds(longer), math.ceil(last + 1))
    return min(risen, whole_seconds(end))


def period_without_backoff(previous: Duration | None = None) -> int:
    if previous is None:
        return 1
    return whole_seconds(max(exact_seconds(previous), Fraction(1)))
