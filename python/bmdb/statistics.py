"""The fleet in numbers: those that bmdb counts itself, and those that its users define."""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bmdb.callbacks import check_callback

F = TypeVar("F", bound=Callable[..., Any])

# As Prometheus has them, but no colons, which are for rules, and nothing that it keeps for itself.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,99}\Z")
# What Prometheus, or an exporter of OpenTelemetry's, would take for a part of another metric.
_ENDINGS = ("_total", "_bucket", "_count", "_sum", "_info", "_created")
# Of a label's value, in characters.
LONGEST_LABEL = 256
_MOST_LABELS = 8
_MOST_SERIES = 10_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the fleet looked like in one transaction. Counts of machines, or per process where it says so."""

    machines: int
    machines_provided: int
    machines_heartbeating: int
    machines_pending_installation: int
    machines_installed: int
    machines_pending_agent_start: int
    machines_pending_agent_recovery: int
    active_work: dict[str, int]
    active_backoffs: dict[str, int]


@dataclass(frozen=True, eq=False)
class Statistic(Generic[F]):
    """A gauge of the user's own, made by the decorator `bmdb.statistic`, which explains it. Frozen."""

    name: str
    fn: F = field(repr=False)
    labels: tuple[str, ...] = ()
    help: str = ""
    max_series: int = 1000

    @property
    def asynchronous(self) -> bool:
        """Whether the function is an `async def`."""
        return inspect.iscoroutinefunction(self.fn)


def statistic(
    name: str, *, labels: Iterable[str] = (), help: str | None = None, max_series: int = 1000
) -> Callable[[F], Statistic[F]]:
    """Makes a gauge, `bmdb_user_<name>`, of a function that counts something in the database.

    The function gets the queries of a read-only transaction of its own: `Queries`, or `AsyncQueries` if it is an
    `async def`. It returns

    * without labels: a number;
    * with labels: rows that have the labels' values first, in order, and the number last, as `q.fetch` answers them;
      or a mapping of the label's value (with several labels, of a tuple of them) to the number.

    Label values may be anything that has a text, of which 256 characters are kept; None is the empty one. What is not
    there any more reads 0 for an hour and is then forgotten. Of more than `max_series` label values the rest is left
    out, and counted by `bmdb_statistic_dropped`. `help` is for people, by default the first line of the docstring.

    `bmdb stats --listen`, `bmdb run --listen` and `bmdb stats` call it, on a thread of their own, when Prometheus asks
    and the last time was more than a minute ago (`--every`). What it raises takes no other number away.

    Raises ValueError for names that Prometheus would not take.
    """
    names = _checked_names(name, labels)
    if not 1 <= operator.index(max_series) <= _MOST_SERIES:
        raise ValueError(f"max_series must be from 1 to {_MOST_SERIES}, not {max_series}")

    def make(fn: F) -> Statistic[F]:
        check_callback(fn, asynchronous=True)
        told = help if help is not None else (inspect.getdoc(fn) or name).splitlines()[0]
        return Statistic(name, fn, names, told, max_series)

    return make


def _checked_names(name: object, labels: Any) -> tuple[str, ...]:
    """The names of the labels. Raises TypeError and ValueError for what Prometheus would not take."""
    if not isinstance(name, str):
        raise TypeError(f"a statistic's name is a str, not {type(name).__name__}")
    if not _NAME.match(name) or name.endswith(_ENDINGS):
        raise ValueError(f"a statistic's name is of a-z, 0-9 and _, without an ending such as _total, not {name!r}")
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise TypeError(f"labels are several texts, such as ('region',), not {labels!r}")
    names: list[str] = []
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"a label's name is a str, not {type(label).__name__}")
        if not _LABEL.match(label):
            raise ValueError(f"a label's name is of letters, digits and _, and does not begin with __, not {label!r}")
        names.append(label)
    if len(set(names)) != len(names) or len(names) > _MOST_LABELS:
        raise ValueError(f"the labels of a statistic must differ, and be {_MOST_LABELS} at most")
    return tuple(names)


def checked_statistics(statistics: Iterable[Statistic[Any]]) -> tuple[Statistic[Any], ...]:
    """The statistics one by one; TypeError for anything else, ValueError for two of one name."""
    given = tuple(statistics)
    names = set()
    for one in given:
        if not isinstance(one, Statistic):
            raise TypeError(f"a statistic is made by the decorator bmdb.statistic; this is a {type(one).__name__}")
        if one.name in names:
            raise ValueError(f"two statistics are named {one.name!r}")
        names.add(one.name)
    return given


def series_of(answer: Any, labels: int) -> dict[tuple[str, ...], float]:
    """What a statistic's function returned, as numbers by label values. Raises TypeError for other shapes."""
    if not labels:
        # One row of one column is what q.fetch answers to a count.
        if isinstance(answer, list | tuple) and len(answer) == 1 and len(answer[0]) == 1:
            answer = answer[0][0]
        return {(): _number(answer)}
    if isinstance(answer, Mapping):
        rows = [(*(key if isinstance(key, tuple) else (key,)), value) for key, value in answer.items()]
    elif isinstance(answer, Iterable) and not isinstance(answer, str | bytes):
        rows = [tuple(row) for row in answer]
    else:
        raise TypeError(f"a statistic with labels returns rows or a mapping, not {type(answer).__name__}")
    found: dict[tuple[str, ...], float] = {}
    for row in rows:
        if len(row) != labels + 1:
            raise TypeError(f"a row of this statistic is {labels} label values and a number, not {len(row)} columns")
        key = tuple(map(_label, row[:-1]))
        # What differs in the database may have one text here.
        found[key] = found.get(key, 0.0) + _number(row[-1])
    return found


def _label(value: Any) -> str:
    text = "" if value is None else str(value)
    # What cannot be encoded would lose the whole page.
    return text[:LONGEST_LABEL].encode(errors="replace").decode()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"a statistic counts in numbers, not in {type(value).__name__}")
    return float(value)
