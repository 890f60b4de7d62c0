"""Processes: what is registered of them, which machines need them, what they get done, and what they fail of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import bmdb
from bmdb.model import RegisteredEligibility, RegisteredProcess
from bmdb.web.site import NO_NAME, Part, site_of

__all__ = ["routes"]

CAUSES_SHOWN = 20
COUNTED = ("Started", "Finished", "Failed", "Lost", "Canceled")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a process has at the moment, in numbers."""

    process: str
    leases: int = 0
    oldest: datetime | None = None
    backoffs: int = 0
    holds: int = 0
    quarantines: int = 0


@dataclass(frozen=True, slots=True)
class Throughput:
    """How often what happened in the last hour and the last day, by the name of the event."""

    hour: dict[str, int] = field(default_factory=dict)
    day: dict[str, int] = field(default_factory=dict)

    @property
    def events(self) -> list[str]:
        """Those that are always counted, then whatever else there was."""
        return [*COUNTED, *sorted(self.day.keys() - set(COUNTED))]


@dataclass(frozen=True, slots=True)
class Cause:
    """What a process failed of, several times perhaps; `cut` where that is only how the causes begin."""

    cause: str | None
    times: int
    machines: int
    latest: datetime
    latest_machine: UUID
    cut: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A process in the list of all."""

    numbers: Numbers
    registered: RegisteredProcess | None
    throughput: Throughput


@dataclass(frozen=True, slots=True)
class Definition:
    """What is registered of a process, and what it has at the moment."""

    registered: RegisteredProcess | None
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Eligibility:
    """One declaration of which machines need a process, and the whole statement that asks, or why there is none."""

    registered: RegisteredEligibility
    sql: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the server would answer one of the statements."""

    fingerprint: str
    lines: list[str]


async def processes(request: Request) -> Response:
    """All processes that are registered, declared, or have something at the moment."""
    return await site_of(request).parts(request, "processes.html", {"list": Part("Processes", _lines)})


async def process(request: Request) -> Response:
    """One process."""
    name: str = request.path_params["name"]
    if "\0" in name:
        return site_of(request).page(request, "complaint.html", status=404, complaint=NO_NAME)

    async def definition(connection: bmdb.AsyncConnection) -> Definition:
        stored = [known for known in await connection.registered() if known.process == name]
        numbers = await _numbers(connection, name)
        return Definition(stored[0] if stored else None, numbers[0] if numbers else Numbers(name))

    async def throughput(connection: bmdb.AsyncConnection) -> Throughput:
        return (await _throughputs(connection, name)).get(name, Throughput())

    async def backlog(connection: bmdb.AsyncConnection) -> int | None:
        try:
            return await connection.backlog(name)
        except ValueError as error:
            # A tag is gone that a worker asked for.
            raise bmdb.ConfigError(str(error)) from None

    async def causes(connection: bmdb.AsyncConnection) -> list[Cause]:
        asked = (name, CAUSES_SHOWN)
        return [
            Cause(*row) for row in await connection._read(lambda q: q._core.call_async("web_process_causes", asked))
        ]

    async def eligibilities(connection: bmdb.AsyncConnection) -> list[Eligibility]:
        return [await _told(connection, one) for one in await connection.eligibilities(name)]

    async def plans(connection: bmdb.AsyncConnection) -> list[Plan]:
        return [
            Plan(one.registered.fingerprint, await _plan(connection, one.sql))
            for one in await eligibilities(connection)
            if one.sql is not None
        ]

    parts = {
        "definition": Part("Definition", definition),
        "throughput": Part("Throughput", throughput),
        "backlog": Part("Backlog", backlog),
        "causes": Part("Failures of the last day", causes),
        "eligibility": Part("Which machines need it", eligibilities, live=False),
        "plan": Part("How the database finds them", plans, live=False),
    }
    return await site_of(request).parts(request, "process.html", parts, name=name)


async def _lines(connection: bmdb.AsyncConnection) -> list[Line]:
    registered = {known.process: known for known in await connection.registered()}
    throughputs = await _throughputs(connection, None)
    numbers = {one.process: one for one in await _numbers(connection, None)}
    return [
        Line(
            numbers.get(name) or Numbers(name),
            registered.get(name),
            throughputs.get(name) or Throughput(),
        )
        for name in sorted({*registered, *throughputs, *numbers})
    ]


async def _numbers(connection: bmdb.AsyncConnection, name: str | None) -> list[Numbers]:
    return [
        Numbers(*row) for row in await connection._read(lambda q: q._core.call_async("web_process_numbers", (name,)))
    ]


async def _throughputs(connection: bmdb.AsyncConnection, name: str | None) -> dict[str, Throughput]:
    rows = await connection._read(lambda q: q._core.call_async("web_process_throughput", (name,)))
    found: dict[str, Throughput] = {}
    for process_name, event, hour, day in rows:
        throughput = found.setdefault(process_name, Throughput())
        throughput.hour[event], throughput.day[event] = hour, day
    return found


async def _told(connection: bmdb.AsyncConnection, registered: RegisteredEligibility) -> Eligibility:
    try:
        return Eligibility(registered, await connection.eligibility_sql(registered))
    except ValueError as error:
        return Eligibility(registered, None, str(error))


async def _plan(connection: bmdb.AsyncConnection, sql: str) -> list[str]:
    """The plan alone. With its options in parentheses the word cannot be made to carry the statement out."""
    return [str(row[0]) for row in await connection._read(lambda q: q.fetch("EXPLAIN (FORMAT TEXT) " + sql))]


routes = [
    Route("/processes", processes, name="processes"),
    Route("/processes/{name:path}", process, name="process"),
]
