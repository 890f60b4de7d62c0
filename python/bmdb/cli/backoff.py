"""The periods of a backoff, as rows, as JSON, and as a plot."""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bmdb import Backoff
from bmdb.cli.durations import parse_duration, show_duration

__all__ = ["COLUMNS", "Plan", "plan"]

COLUMNS = ("FAILURE", "PERIOD", "SECONDS", "IN ALL")
# Without a count: until the longest period is there twice, within these bounds.
_FEWEST = 5
_MOST = 100
_WIDEST = 120
_HEIGHT = 14
_TICKS = 4
_NUMBERS = 8
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Plan:
    """A backoff and its first periods, in seconds; what there is to say against it."""

    backoff: Backoff
    periods: list[int]
    warnings: list[str]

    def document(self) -> dict[str, Any]:
        """The plan for JSON, in seconds; `maximum` is null when it was not given."""
        return {
            "initial": self.backoff.initial,
            "exponent": self.backoff.exponent,
            "maximum": self.backoff.maximum,
            "periods": [
                {"failure": number, "seconds": seconds, "cumulative_seconds": total}
                for number, (seconds, total) in enumerate(self._summed(), start=1)
            ],
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """One row for each failure in a row."""
        return [
            (str(number), show_duration(seconds), str(seconds), show_duration(total))
            for number, (seconds, total) in enumerate(self._summed(), start=1)
        ]

    def _summed(self) -> list[tuple[int, int]]:
        return list(zip(self.periods, accumulate(self.periods), strict=True))

    def print_plot(self) -> None:
        """Plots the periods, as wide as the terminal; nothing where it cannot show the signs of a plot."""
        try:
            "┤█".encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return
        print()
        print(self._plot(min(shutil.get_terminal_size().columns, _WIDEST)))

    def _plot(self, width: int) -> str:
        import plotext

        longest = max(self.periods)
        ticks = sorted({round(longest * part / _TICKS) for part in range(_TICKS + 1)})
        figure = plotext.figure
        figure.clear()
        figure.plot_size(width, _HEIGHT)
        figure.theme("colorless")
        figure.title("seconds to wait after each failure in a row")
        # More bars than there is room for look the same, and cost plotext minutes.
        shown = _spread(len(self.periods), _WIDEST)
        figure.draw(figure.bar(shown, [self.periods[number - 1] for number in shown]))
        numbers = _spread(len(self.periods), _NUMBERS)
        figure.ruler("x").ticks(numbers, [str(number) for number in numbers])
        figure.ruler("y").ticks(ticks, [show_duration(tick) for tick in ticks])
        drawn = _STYLE.sub("", str(figure.build()))
        figure.clear()
        return "\n".join(line.rstrip() for line in drawn.splitlines())


def _spread(last: int, most: int) -> list[int]:
    """Whole numbers from 1 to `last`, at even distances, at most `most` of them and one."""
    return sorted({1 + round((last - 1) * part / most) for part in range(most + 1)})


def plan(initial: str, exponent: float, maximum: str | None, count: int | None) -> Plan:
    """The plan for these settings. Raises ValueError, which names the one that makes no sense."""
    longest = None if maximum is None else parse_duration(maximum)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backoff = Backoff(parse_duration(initial), longest, exponent)
    periods = backoff.schedule(count or _MOST)
    if count is None:
        reached = periods.index(max(periods)) + 2
        periods = periods[: min(_MOST, max(_FEWEST, reached))]
    return Plan(backoff, periods, [str(warning.message) for warning in caught])
