"""The page and the plot."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pygal
from pygal.style import Style

from .rounds import Spread

# pygal leaves a finder of the old kind behind, at which others stumble that look for modules.
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]


@dataclass(frozen=True)
class Comparison:
    """One line of the report: a ratio that ought to be at most, or at least, `limit`."""

    subject: str
    ratio: Spread
    measured: str
    peer: str
    limit: float | None = None
    wanted: Literal["at most", "at least"] = "at most"
    unit: str = "×"

    @property
    def verdict(self) -> str:
        """Whether the median keeps to the limit, if there is one."""
        if self.limit is None:
            return ""
        return "met" if self.share <= 1 else "**missed**"

    @property
    def share(self) -> float:
        """How much of the limit the median takes: 1.0 is the limit itself, more is beyond it."""
        assert self.limit is not None
        return self.ratio.median / self.limit if self.wanted == "at most" else self.limit / self.ratio.median

    def cells(self) -> tuple[str, ...]:
        """What the table shows of it."""
        low, high = number(self.ratio.low), number(self.ratio.high)
        expected = "" if self.limit is None else f"{self.wanted} {number(self.limit)} {self.unit}"
        median = f"{number(self.ratio.median)} {self.unit}"
        return self.subject, self.measured, self.peer, median, f"{low} – {high}", expected, self.verdict


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{number(seconds * factor)} {unit}"
    return f"{number(seconds * 1e9)} ns"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars(
    title: str, count: int, colors: tuple[str, str], shown: Callable[[float], str], **axis: Any
) -> pygal.HorizontalStackedBar:
    """An empty chart for so many bars; `shown` writes their values, but not zero. `axis`: as pygal has it."""
    style = Style(
        colors=colors, background="white", plot_background="white", font_family="sans-serif", label_font_size=12
    )
    return pygal.HorizontalStackedBar(
        style=style,
        js=(),
        no_prefix=True,
        disable_xml_declaration=True,
        width=900,
        height=140 + 35 * count,
        title=title,
        print_values=True,
        value_formatter=lambda value: shown(value) if value else "",
        truncate_label=-1,
        legend_at_bottom=True,
        **axis,
    )


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Bars that show how much of its limit each median takes, as an SVG without scripts or references."""
    limited = [comparison for comparison in reversed(comparisons) if comparison.limit is not None]
    shares = [comparison.share for comparison in limited]
    title = "How much of its limit each result takes (1.00 is the limit, shorter is better)"
    axis = {"range": (0, max(1.1, *shares)), "y_labels_major": [1.0], "y_labels": [0, 0.25, 0.5, 0.75, 1.0]}
    chart = bars(title, len(limited), ("#1f6f8b", "#c0392b"), lambda value: f"{value:.2f}", **axis)
    chart.x_labels = [comparison.subject for comparison in limited]
    chart.add("within", [share if share <= 1 else None for share in shares])
    chart.add("beyond", [share if share > 1 else None for share in shares])
    path.write_text(drawn(chart))


def drawn(chart: pygal.Graph) -> str:
    """A chart as SVG without the script that pygal puts into each."""
    return re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL) + "\n"
