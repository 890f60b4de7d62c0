"""Durations as people write them: `90s`, `1.5h`, `1h30m`, or plain seconds."""

from __future__ import annotations

import math
import re

__all__ = ["parse_duration", "show_duration"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds. The parts of a duration are added up; a number without a unit is in seconds.

    Raises ValueError, which says what a duration looks like, for anything else, negative and infinite ones included.
    """
    given = text.strip().lower()
    if _NUMBER.fullmatch(given):
        seconds = float(given)
    elif given and not _PART.sub("", given):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(given))
    else:
        raise ValueError(f"{text!r} is no duration: write it like 90s, 1m, 1.5h, 1h30m, or 300 for seconds")
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is longer than can be counted")
    return seconds


def show_duration(seconds: float) -> str:
    """The duration in its two largest units, such as `1h 12m`; seconds are whole, as backoffs are."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"
