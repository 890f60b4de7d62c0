"""Values as people read them: ages, durations, and text from outside made harmless.

Whatever a template writes passes through `visible`, so that a mark which turns the direction of text, an escape
sequence or a control character is shown as what it is; Jinja escapes what HTML would act on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from operator import attrgetter
from typing import TypeVar

from markupsafe import Markup, escape

from bmdb.unseen import SUMMARY_LENGTH, said, visible

__all__ = [
    "SUMMARY_LENGTH",
    "age",
    "duration",
    "left",
    "lines",
    "moment",
    "moment_of",
    "named",
    "summary",
    "visible",
    "written",
]

T = TypeVar("T")

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def written(value: object) -> object:
    """What a template writes for a value: markup of ours as it is, all other text visible."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    return visible(str(value))


def duration(seconds: float) -> str:
    """A length of time in its two largest units, such as `1h 12m`; what is shorter than ten seconds more exactly."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    left, parts = round(seconds), []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def age(then: datetime, now: datetime | None = None) -> str:
    """How long ago that was, or will be: `5m ago`, `in 3h`."""
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def left(until: datetime, now: datetime | None = None) -> float:
    """How many seconds there are until then; none when it has passed."""
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def lines(text: str) -> Markup:
    """The text with its lines kept, and everything else that is not to be seen made visible; escaped."""
    return escape(visible(text.replace("\r\n", "\n"), keep="\n\t"))


def summary(cause: str, length: int = SUMMARY_LENGTH) -> str:
    """A cause in a few words: its first line, or the last one of a Python traceback, cut to so many characters."""
    shown = said(cause, length)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def moment(then: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{then.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def moment_of(text: str) -> datetime:
    """A time in UTC, from an address. Raises ValueError for one without a zone, and one that UTC does not have."""
    then = datetime.fromisoformat(text)
    if then.utcoffset() is None:
        raise ValueError("its time has no zone")
    try:
        return then.astimezone(UTC)
    except OverflowError:
        raise ValueError("its time is none of the calendar's") from None


def named(rows: Iterable[T], kind: str, *attributes: str) -> list[tuple[str, T]]:
    """Rows with an id for each, made of what it is by these attributes, so that it is the same wherever the row stands.

    A live panel keeps what is open in a row, and finds the row by its id. Those that are alike in all are counted.
    """
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        told = "\0".join(repr(attrgetter(name)(row)) for name in attributes)
        name = f"{kind}-{sha256(told.encode('utf-8', 'replace')).hexdigest()[:16]}"
        seen[name] += 1
        found.append((name if seen[name] == 1 else f"{name}-{seen[name]}", row))
    return found
