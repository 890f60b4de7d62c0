"""Figures that tests of faults measure, for docs/guarantees.md: noted with a test's report, added up by row there."""

from __future__ import annotations

from typing import Literal, Protocol

Unit = Literal["", "s"]

# Under this name pytest keeps them in the `user_properties` of a report: [text, value, unit, of].
PROPERTY = "figure"

Noted = tuple[str, float, Unit, int | None]


class Figure(Protocol):
    """Notes what a test has measured; what several tests of a row note under the same text becomes one figure.

    `figure("noticed within", 0.61, "s")`: of seconds, and of bare numbers, the largest is shown.
    `figure("stale writes", 0, of=40)`: with `of`, both are added up, and shown as "stale writes: 0 of 40".
    """

    def __call__(self, text: str, value: float, unit: Unit = "", *, of: int | None = None) -> None: ...
