"""What is leased now, and what waits: `bmdb work` and `bmdb backoffs`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from bmdb.cli import fleet
from bmdb.cli.application import Conninfo, Json, Limit, app, opened
from bmdb.cli.completion import complete_machine, complete_process, complete_session
from bmdb.cli.durations import show_duration
from bmdb.cli.terminal import one_line, print_error, print_json, print_table, summary
from bmdb.model import ActiveWork, WorkBackoff

WORK_COLUMNS = ("MACHINE", "PROCESS", "SINCE", "FOR", "TOKEN", "COMPONENT", "SESSION", "STATE")
BACKOFF_COLUMNS = ("MACHINE", "PROCESS", "UNTIL", "LEFT", "INTERVAL", "CAUSE")

OfProcess = Annotated[
    str | None,
    typer.Option("--process", "-p", metavar="PROCESS", help="Of this process only.", autocompletion=complete_process),
]
OfSession = Annotated[
    UUID | None,
    typer.Option("--session", "-s", metavar="SESSION", help="Of this session only.", autocompletion=complete_session),
]
OfMachine = Annotated[
    UUID | None,
    typer.Option("--machine", "-m", metavar="MACHINE", help="Of this machine only.", autocompletion=complete_machine),
]


@app.command()
def work(
    process: OfProcess = None,
    session: OfSession = None,
    limit: Limit = 100,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """List leases: who works on what, and since when.

    The oldest first. The state is that of the session: a lease of an expired one is about to be collected.
    """
    with opened(conninfo) as connection:
        rows = connection._look(lambda q: q._core.call("work_leases", (process, session, limit + 1)))
    leases = [ActiveWork(*row) for row in rows[:limit]]
    if as_json:
        print_json({"work": leases, "more": len(rows) > limit})
        return
    now = datetime.now(UTC)
    print_table(WORK_COLUMNS, (_lease_cells(lease, now) for lease in leases), fixed=fleet.FIXED)
    _tell_more(len(rows) > limit, limit)


@app.command()
def backoffs(
    process: OfProcess = None,
    machine: OfMachine = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Also those that have ended: the next period is reckoned from them.")
    ] = False,
    limit: Limit = 100,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """List backoffs: until when, and why.

    The next to end first, quarantines last. The interval is how long the whole backoff is.
    """
    with opened(conninfo) as connection:
        rows = connection._look(lambda q: q._core.call("work_backoffs", (process, machine, expired, limit + 1)))
    found = [WorkBackoff(*row) for row in rows[:limit]]
    if as_json:
        print_json({"backoffs": found, "more": len(rows) > limit})
        return
    now = datetime.now(UTC)
    print_table(BACKOFF_COLUMNS, (_backoff_cells(backoff, now) for backoff in found), fixed=fleet.FIXED)
    _tell_more(len(rows) > limit, limit)


def _lease_cells(lease: ActiveWork, now: datetime) -> Sequence[str]:
    return (
        str(lease.machine_id),
        one_line(lease.process),
        fleet.shown_time(lease.work_started_at),
        show_duration((now - lease.work_started_at).total_seconds()),
        str(lease.token),
        one_line(lease.session_component_name),
        str(lease.session_id),
        "live" if lease.session_live else "expired",
    )


def _backoff_cells(backoff: WorkBackoff, now: datetime) -> Sequence[str]:
    interval = backoff.last_interval_seconds
    if fleet.is_quarantine(backoff):
        until, left = "released", "quarantine"
    else:
        until, seconds = fleet.shown_time(backoff.until), (backoff.until - now).total_seconds()
        left = show_duration(seconds) if seconds > 0 else "ended"
    return (
        str(backoff.machine_id),
        one_line(backoff.process),
        until,
        left,
        "-" if interval is None else show_duration(interval),
        summary(backoff.cause),
    )


def _tell_more(more: bool, limit: int) -> None:
    if more:
        print_error(f"there are more than these {limit}: raise --limit, or name a process")
