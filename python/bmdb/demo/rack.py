"""The machines of the demo, read from a CSV file with a header line.

Columns: provider, provider_id (unique for each provider), reservation_id, location and status, as a provider tells them
(the last three may be empty); behaviour of the machine's management endpoint; delay_ms, how long it takes to start an
agent; after_s, for those that recover, how many seconds after the first worker is there they do.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources
from pathlib import Path

from bmdb.errors import ConfigError

COLUMNS = ("provider", "provider_id", "reservation_id", "location", "status", "behaviour", "delay_ms", "after_s")


class Behaviour(StrEnum):
    """What a management endpoint does when a worker connects to it."""

    ANSWERS = "answers"
    REFUSES = "refuses"
    HANGS = "hangs"
    RECOVERS = "recovers"
    """It refuses connections at first, and answers later."""


@dataclass(frozen=True, slots=True)
class RackMachine:
    """One line of the rack. Times are in seconds."""

    provider: str
    provider_id: str
    reservation_id: str | None
    location: str | None
    status: str | None
    behaviour: Behaviour
    delay: float
    after: float

    @property
    def can_be_done(self) -> bool:
        """Whether an agent can be started on it sooner or later."""
        return self.behaviour in (Behaviour.ANSWERS, Behaviour.RECOVERS)


def read_rack(path: Path | None, count: int) -> list[RackMachine]:
    """The first `count` machines of the file, by default the one in this package.

    When there are fewer they are used again, under new ids. Raises ConfigError, with the line, for a file that cannot
    be used.
    """
    try:
        text = (path or resources.files("bmdb.demo").joinpath("rack.csv")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the rack {path} cannot be read: {error}") from error
    name = "rack.csv" if path is None else str(path)
    reader = csv.DictReader(io.StringIO(text))
    if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
        raise ConfigError(f"{name} has no column {missing[0]}: its first line must name {', '.join(COLUMNS)}")
    listed: dict[tuple[str, str], RackMachine] = {}
    for row in reader:
        try:
            machine = _machine(row)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}, line {reader.line_num}: {error}") from error
        key = (machine.provider, machine.provider_id)
        if key in listed:
            raise ConfigError(f"{name}, line {reader.line_num}: {machine.provider} has {machine.provider_id} already")
        listed[key] = machine
    if not any(machine.can_be_done for machine in listed.values()):
        raise ConfigError(f"{name} has no machine that can be done")
    return _as_many(list(listed.values()), count)


def _machine(row: dict[str, str]) -> RackMachine:
    values = {column: (row[column] or "").strip() for column in COLUMNS}
    for column in ("provider", "provider_id"):
        if not values[column]:
            raise ValueError(f"{column} is empty")
    try:
        behaviour = Behaviour(values["behaviour"])
    except ValueError:
        known = ", ".join(Behaviour)
        raise ValueError(f"behaviour {values['behaviour']!r} is not known, only {known}") from None
    delay, after = float(values["delay_ms"] or 0) / 1000, float(values["after_s"] or 0)
    if not (0 <= delay <= 60 and 0 <= after <= 60):
        raise ValueError("delay_ms and after_s must lie between nothing and a minute")
    return RackMachine(
        provider=values["provider"],
        provider_id=values["provider_id"],
        reservation_id=values["reservation_id"] or None,
        location=values["location"] or None,
        status=values["status"] or None,
        behaviour=behaviour,
        delay=delay,
        after=after,
    )


def _as_many(listed: list[RackMachine], count: int) -> list[RackMachine]:
    found = []
    for number in range(count):
        again, index = divmod(number, len(listed))
        machine = listed[index]
        found.append(replace(machine, provider_id=f"{machine.provider_id}.{again + 1}") if again else machine)
    return found
