"""The commands that set up, run and show, each a few questions to the database and an answer as a table or as JSON."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer

import bmdb
from bmdb.cli import backoff as _backoff
from bmdb.cli import fleet
from bmdb.cli import loops as _loops
from bmdb.cli.application import (
    BadAnswer,
    Conninfo,
    GivenConninfo,
    Json,
    Limit,
    Refused,
    app,
    check_given,
    chosen,
    opened,
)
from bmdb.cli.durations import parse_duration
from bmdb.cli.operators import Machine
from bmdb.cli.statistics import StatisticsModules
from bmdb.cli.terminal import print_error, print_json, print_table


@app.command()
def demo(
    machines: Annotated[int, typer.Option("--machines", min=10, help="How many machines.")] = 240,
    workers: Annotated[int, typer.Option("--workers", min=2, help="How many worker processes.")] = 8,
    rack: Annotated[
        Path | None, typer.Option("--rack", exists=True, dir_okay=False, help="A CSV file of machines of your own.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="PATH", help="Keep the database there, to look into it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Watch leased work survive a killed worker.

    Runs worker processes on a database of its own, kills one and freezes another. Takes under a minute. Ends with
    status 1 if an invariant does not hold. With --keep it ends with the commands that tell why one of its machines is
    not worked on.
    """
    from bmdb import demo as demonstration

    raise typer.Exit(demonstration.run(machines=machines, workers=workers, json=as_json, rack=rack, keep=keep))


@app.command()
def migrate(
    given: GivenConninfo = None,
    to: Annotated[int | None, typer.Option("--to", min=0, help="A version other than the latest.")] = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Make roles for owner, worker, operator and viewer, with what each needs.")
    ] = False,
    prefix: Annotated[str, typer.Option("--role-prefix", metavar="NAME", help="What their names begin with.")] = "bmdb",
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Bring the schema up to date.

    Can be run again at any time, and beside running workers. With --roles, which needs a superuser, or CREATEROLE and
    the tables, it is worth another run after each migration and for new tags; SECURITY.md says who may do what.
    """
    with opened(chosen(given, conninfo), migrated=False) as connection:
        before = connection.schema_version()
        after = connection.migrate(to)
        made = connection._core.create_roles(prefix) if roles else []
    if as_json:
        print_json({"version": after, "before": before, **({"roles": made} if roles else {})})
    else:
        print(f"schema version {after}" + (", as before" if after == before else f" (it was {before})"))
        if made:
            print(f"roles {', '.join(made)}: GRANT one of them to each role that logs in")


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
    statistics: StatisticsModules = None,
    every: Annotated[
        str,
        typer.Option("--statistics-every", metavar="DURATION", help="How seldom they are read from the database."),
    ] = "60s",
    component: Annotated[
        str | None, typer.Option("--component", help="What sessions and history call this; by default the loops.")
    ] = None,
    level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="What to log.")
    ] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="At the end, print what each loop has done as JSON.")] = False,
) -> None:
    """Run control loops until SIGTERM or Ctrl-C.

    Loops are functions with the decorator bmdb.loop, named like fleet.loops:all. After the first signal nothing more is
    leased, and running work may end within the grace; what is left is then given back. A second signal gives back at
    once, and exits with 128 and its number. With --listen, /metrics has the statistics of the fleet too, and those that
    the loops' modules define.
    """
    try:
        loops = _loops.loops_of(targets)
        counted = _loops.statistics_of(targets, needed=False)
        counted += [one for one in _loops.statistics_of(statistics or ()) if one not in counted]
        seconds, pause = parse_duration(grace), parse_duration(every)
    except (_loops.Unusable, ValueError) as error:
        raise Refused(str(error)) from None
    check_given(conninfo)
    _loops.write_log(level)
    try:
        states = bmdb.run(
            loops,
            conninfo or None,
            component=component,
            grace=seconds,
            listen=listen,
            wakeup=wakeup,
            migrate=migrated,
            processes=processes,
            setup=partial(_loops.write_log, level),
            statistics=counted,
            statistics_every=pause,
        )
    except ValueError as error:
        raise Refused(str(error)) from None
    if as_json:
        print_json({"loops": [state.document() for state in states]})


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
    with opened(conninfo) as connection:
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
    """List machines: tags, work, holds, backoffs.

    By id, with the work on each, and the holds and backoffs that keep work off it now.
    """
    with opened(conninfo) as connection:
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
    machine: Machine,
    conninfo: Conninfo = None,
    limit: Limit = 100,
    full: Annotated[bool, typer.Option("--full", help="Show causes whole, not just what sums them up.")] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to a machine.

    Its latest events, the oldest of them first. History outlives the machine.
    """
    with opened(conninfo) as connection:
        events, known = fleet.history(connection, machine, limit)
    if not events and not known:
        raise BadAnswer(f"there is no machine {machine}, nor any history of it: `bmdb machines` lists those there are")
    if as_json:
        print_json({"machine_id": machine, "events": [fleet.event_document(event) for event in events]})
    else:
        print_table(fleet.EVENT_COLUMNS, (fleet.event_cells(event, full) for event in events), fixed=fleet.FIXED)


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
