"""Small charts, drawn here as SVG: nothing in them needs a script or a style of its own."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

__all__ = ["bars"]

_WIDTH, _HEIGHT, _GAP = 4, 22, 1


def bars(steps: Sequence[int], what: str) -> Markup:
    """A bar for each step, the highest as high as the chart; `what` says in words what is counted."""
    highest = max(steps, default=0)
    drawn = [
        Markup('<rect x="{}" y="{}" width="{}" height="{}"/>').format(
            position * (_WIDTH + _GAP), _HEIGHT - _bar(count, highest), _WIDTH, _bar(count, highest)
        )
        for position, count in enumerate(steps)
        if count
    ]
    width = max(1, len(steps)) * (_WIDTH + _GAP) - _GAP
    said = f"{what}: {sum(steps)} in all, at most {highest} in a step"
    return Markup(
        '<svg class="bars" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">{}{}</svg>'
    ).format(said, width, _HEIGHT, width, _HEIGHT, _baseline(width), Markup("").join(drawn))


def _bar(count: int, highest: int) -> int:
    """In whole units, so that it is sharp; what is there at all is seen."""
    return max(2, round(count / highest * (_HEIGHT - 1)))


def _baseline(width: int) -> Markup:
    return Markup('<path class="base" d="M0 {}.5H{}"/>').format(_HEIGHT - 1, width)
