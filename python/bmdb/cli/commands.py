"""The commands, each a few questions to the database and an answer as a table or as JSON."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer

import bmdb
from bmdb.cli import backoff as _backoff
from bmdb.cli import fleet, operators
from bmdb.cli import loops as _loops
from bmdb.cli.durations import parse_duration
from bmdb.cli.terminal import print_error, print_json, print_table, visible
from bmdb.conninfo import ENVIRONMENT_VARIABLE

__all__ = ["app"]

_EPILOG = """\b
Exit status:
  0    done
  1    the answer is bad (what was asked for does not exist, an invariant of the demo broke), or the database failed
  2    the command line or the connection string cannot be used
  130  interrupted; 128 and the number of the second signal that ended `bmdb run`

The database is named by --conninfo or $BMDB_CONNINFO: a libpq URI or key=value string, or embedded:PATH."""

app = typer.Typer(
    name="bmdb",
    help="Leases work on machines, straight in the SQL database that describes them.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Conninfo = Annotated[
    str | None,
    typer.Option("--conninfo", "-c", metavar="CONNINFO", help=f"The database; by default ${ENVIRONMENT_VARIABLE}."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: timestamps in ISO 8601, causes whole.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show so many at most.")]


class Refused(typer.TyperException):
    """A command line that can be parsed, but not followed."""

    exit_code = 2


class BadAnswer(typer.TyperException):
    """The command ran, and what it found is not what was asked for."""

    exit_code = 1


@contextmanager
def _opened(conninfo: str | None, *, migrated: bool = True) -> Iterator[bmdb.Connection]:
    _check_given(conninfo)
    with bmdb.connect(conninfo or None, component="bmdb command line", pool_size=2) as connection:
        if migrated and connection.schema_version() == 0:
            raise BadAnswer("this database has no schema of bmdb: run `bmdb migrate` first")
        yield connection


@contextmanager
def _understood() -> Iterator[None]:
    """What is said on the command line and makes no sense is the command line's fault."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error)) from None


def _check_given(conninfo: str | None) -> None:
    if not conninfo and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise Refused(f"no database given: say --conninfo CONNINFO, or set {ENVIRONMENT_VARIABLE}")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bmdb {bmdb.__version__}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Leases work on machines, straight in the SQL database that describes them."""


@app.command()
def demo(
    machines: Annotated[int, typer.Option("--machines", min=10, help="How many machines.")] = 240,
    workers: Annotated[int, typer.Option("--workers", min=2, help="How many worker processes.")] = 8,
    rack: Annotated[
        Path | None, typer.Option("--rack", exists=True, dir_okay=False, help="A CSV file of machines of your own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Watch leased work survive a killed worker.

    Runs worker processes on a database of its own, kills one and freezes another. Takes under a minute. Ends with
    status 1 if an invariant does not hold.
    """
    from bmdb import demo as demonstration

    raise typer.Exit(demonstration.run(machines=machines, workers=workers, json=as_json, rack=rack))


@app.command()
def migrate(
    given: Annotated[
        str | None, typer.Argument(metavar="[CONNINFO]", help="The database; the same as --conninfo.")
    ] = None,
    to: Annotated[int | None, typer.Option("--to", min=0, help="A version other than the latest.")] = None,
    conninfo: Conninfo = None,
) -> None:
    """Bring the schema up to date.

    Can be run again at any time, and beside running workers.
    """
    if given and conninfo:
        raise Refused("two databases given: leave out CONNINFO or --conninfo")
    with _opened(given or conninfo, migrated=False) as connection:
        before = connection.schema_version()
        after = connection.migrate(to)
    print(f"schema version {after}" + (", as before" if after == before else f" (it was {before})"))


@app.command()
def run(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:ATTRIBUTE]", help="A loop, a list of them, or all loops of a module."),
    ],
    conninfo: Conninfo = None,
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="How long running work may go on after a signal.")
    ] = "30s",
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Serve /healthz and /metrics there.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=1000, help="Run all loops in so many OS processes.")
    ] = None,
    wakeup: Annotated[
        bool,
        typer.Option("--wakeup/--no-wakeup", help="Listen for hints from the database, or only look now and then."),
    ] = True,
    migrated: Annotated[bool, typer.Option("--migrate", help="Bring the schema up to date first.")] = False,
    component: Annotated[
        str | None, typer.Option("--component", help="What sessions and history call this; by default the loops.")
    ] = None,
    level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="What to log.")
    ] = "info",
) -> None:
    """Run control loops until SIGTERM or Ctrl-C.

    Loops are functions with the decorator bmdb.loop, named like fleet.loops:all. After the first signal nothing more is
    leased, and running work may end within the grace; what is left is then given back. A second signal gives back at
    once, and exits with 128 and its number.
    """
    try:
        loops = _loops.loops_of(targets)
        seconds = parse_duration(grace)
    except (_loops.Unusable, ValueError) as error:
        raise Refused(str(error)) from None
    _check_given(conninfo)
    _loops.write_log(level)
    try:
        bmdb.run(
            loops,
            conninfo or None,
            component=component,
            grace=seconds,
            listen=listen,
            wakeup=wakeup,
            migrate=migrated,
            processes=processes,
            setup=partial(_loops.write_log, level),
        )
    except ValueError as error:
        raise Refused(str(error)) from None


@app.command()
def sessions(
    conninfo: Conninfo = None,
    limit: Limit = 100,
    after: Annotated[UUID | None, typer.Option("--after", help="Begin after this session.")] = None,
    as_json: Json = False,
) -> None:
    """List sessions and what they hold.

    By id, live and expired, each with the number of its leases.
    """
    with _opened(conninfo) as connection:
        page = fleet.session_page(connection, after, limit)
    if as_json:
        print_json(page.document("sessions"))
    else:
        print_table(fleet.SESSION_COLUMNS, map(fleet.session_cells, page.items), fixed=fleet.FIXED)
        _tell_rest("sessions", page.next)


@app.command()
def machines(
    conninfo: Conninfo = None,
    limit: Limit = 100,
    after: Annotated[UUID | None, typer.Option("--after", help="Begin after this machine.")] = None,
    as_json: Json = False,
) -> None:
    """List machines: tags, work, backoffs.

    By id, with the work on each and the backoffs that keep work off it now.
    """
    with _opened(conninfo) as connection:
        page = fleet.machine_page(connection, after, limit)
    if as_json:
        print_json(page.document("machines"))
    else:
        print_table(fleet.MACHINE_COLUMNS, map(fleet.machine_cells, page.items), fixed=fleet.FIXED)
        _tell_rest("machines", page.next)


def _tell_rest(command: str, following: UUID | None) -> None:
    if following is not None:
        print_error(f"there are more: bmdb {command} --after {following}")


@app.command()
def history(
    machine: Annotated[UUID, typer.Argument(metavar="MACHINE", help="The machine's id.")],
    conninfo: Conninfo = None,
    limit: Limit = 100,
    full: Annotated[bool, typer.Option("--full", help="Show causes whole, not just what sums them up.")] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to a machine.

    Its latest events, the oldest of them first. History outlives the machine.
    """
    with _opened(conninfo) as connection:
        events, known = fleet.history(connection, machine, limit)
    if not events and not known:
        raise BadAnswer(f"there is no machine {machine}, nor any history of it: `bmdb machines` lists those there are")
    if as_json:
        print_json({"machine_id": machine, "events": [fleet.event_document(event) for event in events]})
    else:
        print_table(fleet.EVENT_COLUMNS, (fleet.event_cells(event, full) for event in events), fixed=fleet.FIXED)


@app.command("release-quarantine")
def release_quarantine(
    machine: Annotated[UUID, typer.Argument(metavar="MACHINE", help="The machine's id.")],
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="The process that was kept off it.")],
    conninfo: Conninfo = None,
) -> None:
    """Let a process have a machine again.

    For one in quarantine because its holders were lost over and over. `bmdb machines` shows quarantines among the
    backoffs. Ends with status 1 if there is none.
    """
    with _opened(conninfo) as connection:
        released = connection.release_quarantine(machine, process)
    if not released:
        raise BadAnswer(
            f"machine {machine} is not in quarantine for process {visible(process)}: `bmdb machines` lists what is"
        )
    print(f"process {visible(process)} may have machine {machine} again")


@app.command()
def hold(
    machine: operators.Machine,
    reason: operators.Reason,
    owner: operators.Owner = None,
    process: operators.OneProcess = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="WHEN", help="For so long (90m, 2d), or until then; by default until released."
        ),
    ] = None,
    conninfo: Conninfo = None,
) -> None:
    """Keep workers away from a machine.

    No claim gets it until `bmdb release`. A lease that somebody has already stays: see `bmdb force-release`.
    """
    with _understood():
        who, end = operators.owner_of(owner), operators.end_of(until)
    with _opened(conninfo) as connection, _understood():
        try:
            connection.hold(machine, process, owner=who, reason=reason, until=end)
        except bmdb.DatabaseError as error:
            if error.constraint != "work_hold_machine_fkey":
                raise
            raise BadAnswer(f"there is no machine {machine}: `bmdb machines` lists those there are") from None
    print(f"{operators.whom(process)} is kept away from machine {machine}")


@app.command()
def release(machine: operators.Machine, process: operators.OneProcess = None, conninfo: Conninfo = None) -> None:
    """End the hold of a machine.

    The hold for all processes, or with --process the one for that. Ends with status 1 if there is none.
    """
    with _opened(conninfo) as connection, _understood():
        released = connection.release(machine, process)
    if not released:
        raise BadAnswer(f"{operators.whom(process)} was not kept away from machine {machine}: see `bmdb holds`")
    print(f"{operators.whom(process)} may have machine {machine} again")


@app.command()
def holds(
    machine: Annotated[UUID | None, typer.Argument(metavar="[MACHINE]", help="Of this machine only.")] = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """List machines that workers are kept away from.

    By whom, since when, until when, and why.
    """
    with _opened(conninfo) as connection:
        found = connection.holds(machine)
    if as_json:
        print_json({"holds": [dataclasses.asdict(hold) for hold in found]})
    else:
        print_table(operators.HOLD_COLUMNS, map(operators.hold_cells, found), fixed=fleet.FIXED)


@app.command("force-release")
def force_release(
    machine: operators.Machine,
    process: operators.ProcessName,
    reason: operators.Reason,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
) -> None:
    """Free a machine of a lease whose holder does not end it.

    What the holder records after that is refused; what it does outside the database goes on, so see to that first:
    others may have the machine at once, unless `bmdb hold` keeps them away. Ends with status 1 if nobody has the lease.
    """
    with _understood():
        who = operators.owner_of(owner)
    with _opened(conninfo) as connection, _understood():
        lease = connection.force_release(machine, process, owner=who, reason=reason)
    if lease is None:
        raise BadAnswer(
            f"nobody holds machine {machine} for process {visible(process)}: `bmdb machines` lists who does"
        )
    print(f"process {visible(process)} does not hold machine {machine} any more: {operators.lease_text(lease)}")


@app.command("clear-backoff")
def clear_backoff(
    machine: operators.Machine,
    process: operators.ProcessName,
    reason: operators.Reason,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
) -> None:
    """Let a process have a machine before its backoff ends.

    The next failure waits for the shortest time again. Ends with status 1 if there is no backoff.
    """
    with _understood():
        who = operators.owner_of(owner)
    with _opened(conninfo) as connection, _understood():
        cleared = connection.clear_backoff(machine, process, owner=who, reason=reason)
    if cleared is None:
        raise BadAnswer(
            f"no backoff keeps process {visible(process)} off machine {machine}: `bmdb machines` lists those there are;"
            " a quarantine is ended by `bmdb release-quarantine`"
        )
    print(f"process {visible(process)} may have machine {machine} at once; {operators.backoff_text(cleared)}")


@app.command()
def stats(conninfo: Conninfo = None, as_json: Json = False) -> None:
    """Show the fleet in numbers."""
    with _opened(conninfo) as connection:
        statistics = connection.statistics()
    if as_json:
        print_json(dataclasses.asdict(statistics))
    else:
        print_table(fleet.STATISTICS_COLUMNS, fleet.statistics_rows(statistics))


@app.command()
def backoff(
    initial: Annotated[str, typer.Option("--initial", metavar="DURATION", help="The first period.")] = "1s",
    exponent: Annotated[float, typer.Option("--exponent", help="How much longer each is than the last.")] = 1.0,
    maximum: Annotated[
        str | None, typer.Option("--maximum", metavar="DURATION", help="The longest; by default the first one.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, max=10_000, help="How many; by default until the longest is reached."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show and plot the periods of a backoff.

    They say for how long a machine is left alone after each failure in a row. Durations are written like 90s, 1m,
    1.5h, 1h30m, or 300 for seconds.
    """
    try:
        plan = _backoff.plan(initial, exponent, maximum, count)
    except ValueError as error:
        raise Refused(str(error)) from None
    for warning in plan.warnings:
        print_error(f"warning: {warning}")
    if as_json:
        print_json(plan.document())
    else:
        print_table(_backoff.COLUMNS, plan.rows())
        plan.print_plot()
