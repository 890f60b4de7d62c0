"""The command `bmdb stats`: the fleet in numbers, once or for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer

from bmdb.cli.terminal import visible
from bmdb.janitor import Reading

__all__ = ["COLUMNS", "StatisticsEvery", "StatisticsModules", "document", "failures", "rows"]

COLUMNS = ("WHAT", "OF", "COUNT")

StatisticsModules = Annotated[
    list[str] | None,
    typer.Option(
        "--statistics", metavar="MODULE", help="A module with statistics of your own (bmdb.statistic); repeatable."
    ),
]
StatisticsEvery = Annotated[
    str,
    typer.Option("--every", metavar="DURATION", help="For how long statistics are not read again from the database."),
]


def rows(readings: Iterable[Reading]) -> Iterator[tuple[str, str, str]]:
    """The cells of each number that could be read."""
    for reading in readings:
        for labels, number in sorted(reading.series.items()):
            yield _title(reading), visible(", ".join(labels)), str(_plain(number))


def document(readings: Sequence[Reading]) -> dict[str, Any]:
    """The numbers for JSON: by label value where there is one label, as a list of objects where there are more."""
    built_in: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for reading in readings:
        if reading.error is not None:
            continue
        into = built_in if reading.kind.prefix == "bmdb_stats_" else own
        numbers = {labels: _plain(number) for labels, number in reading.series.items()}
        name, names = reading.kind.name, reading.kind.labels
        if not names:
            into[name] = numbers[()]
        elif len(names) == 1:
            into.setdefault(name, {}).update({label: number for (label,), number in numbers.items()})
        else:
            into[name] = [{**dict(zip(names, labels, strict=True)), "value": n} for labels, n in numbers.items()]
    return {**built_in, "user": own, "errors": dict(failures(readings))}


def failures(readings: Iterable[Reading]) -> Iterator[tuple[str, str]]:
    """What could not be read, and why."""
    for reading in readings:
        if reading.error is not None:
            yield " ".join(filter(None, (_title(reading), reading.process))), reading.error


def _title(reading: Reading) -> str:
    return ("" if reading.kind.prefix == "bmdb_stats_" else "user ") + reading.kind.name.replace("_", " ")


def _plain(number: float) -> int | float:
    return int(number) if number.is_integer() else number
