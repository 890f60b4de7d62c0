"""The commands by which an operator steps in: holds, leases and backoffs that are ended from outside."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

import bmdb
from bmdb.cli import fleet, operators
from bmdb.cli.application import BadAnswer, Conninfo, Json, app, opened, understood
from bmdb.cli.completion import complete_machine
from bmdb.cli.terminal import print_json, print_table, visible


@app.command("release-quarantine")
def release_quarantine(
    machine: operators.Machine,
    process: operators.ProcessName,
    reason: operators.OptionalReason = None,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Let a process have a machine again.

    For one in quarantine because its holders were lost over and over. `bmdb machines` shows quarantines among the
    backoffs. Ends with status 1 if there is none.
    """
    with understood():
        who, why = operators.who_and_why(owner, reason)
    with opened(conninfo) as connection, understood():
        released = connection.release_quarantine(machine, process, owner=who, reason=why)
    if not released:
        raise BadAnswer(
            f"machine {machine} is not in quarantine for process {visible(process)}: `bmdb machines` lists what is"
        )
    if as_json:
        print_json({"machine_id": machine, "process": process, "released": True})
    else:
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
    as_json: Json = False,
) -> None:
    """Keep workers away from a machine.

    No claim gets it until `bmdb release`. A lease that somebody has already stays: see `bmdb force-release`.
    """
    with understood():
        who, end = operators.owner_of(owner), operators.end_of(until)
    with opened(conninfo) as connection, understood():
        try:
            connection.hold(machine, process, owner=who, reason=reason, until=end)
        except bmdb.DatabaseError as error:
            if error.constraint != "work_hold_machine_fkey":
                raise
            raise BadAnswer(f"there is no machine {machine}: `bmdb machines` lists those there are") from None
    if as_json:
        print_json({"machine_id": machine, "process": process, "owner": who, "reason": reason, "until": end})
    else:
        print(f"{operators.whom(process)} is kept away from machine {machine}")


@app.command()
def release(
    machine: operators.Machine,
    process: operators.OneProcess = None,
    reason: operators.OptionalReason = None,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """End the hold of a machine.

    The hold for all processes, or with --process the one for that. Ends with status 1 if there is none.
    """
    with understood():
        who, why = operators.who_and_why(owner, reason)
    with opened(conninfo) as connection, understood():
        released = connection.release(machine, process, owner=who, reason=why)
    if not released:
        raise BadAnswer(f"{operators.whom(process)} was not kept away from machine {machine}: see `bmdb holds`")
    if as_json:
        print_json({"machine_id": machine, "process": process, "released": True})
    else:
        print(f"{operators.whom(process)} may have machine {machine} again")


@app.command()
def holds(
    machine: Annotated[
        UUID | None, typer.Argument(metavar="[MACHINE]", help="Of this machine only.", autocompletion=complete_machine)
    ] = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """List machines that workers are kept away from.

    By whom, since when, until when, and why.
    """
    with opened(conninfo) as connection:
        found = connection.holds(machine)
    if as_json:
        print_json({"holds": found})
    else:
        print_table(operators.HOLD_COLUMNS, map(operators.hold_cells, found), fixed=fleet.FIXED)


@app.command("force-release")
def force_release(
    machine: operators.Machine,
    process: operators.ProcessName,
    reason: operators.Reason,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """End a lease in its holder's place.

    What the holder records after that is refused; what it does outside the database goes on, so see to that first:
    others may have the machine at once, unless `bmdb hold` keeps them away. Ends with status 1 if nobody has the lease.
    """
    with understood():
        who = operators.owner_of(owner)
    with opened(conninfo) as connection, understood():
        lease = connection.force_release(machine, process, owner=who, reason=reason)
    if lease is None:
        raise BadAnswer(f"nobody holds machine {machine} for process {visible(process)}: `bmdb work` lists who does")
    if as_json:
        print_json({"released": lease, "owner": who, "reason": reason})
    else:
        print(f"process {visible(process)} does not hold machine {machine} any more: {operators.lease_text(lease)}")


@app.command("clear-backoff")
def clear_backoff(
    machine: operators.Machine,
    process: operators.ProcessName,
    reason: operators.Reason,
    owner: operators.Owner = None,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Let a process have a machine before its backoff ends.

    The next failure waits for the shortest time again. Ends with status 1 if there is no backoff.
    """
    with understood():
        who = operators.owner_of(owner)
    with opened(conninfo) as connection, understood():
        cleared = connection.clear_backoff(machine, process, owner=who, reason=reason)
    if cleared is None:
        raise BadAnswer(
            f"no backoff keeps process {visible(process)} off machine {machine}: `bmdb backoffs` lists those there are;"
            " a quarantine is ended by `bmdb release-quarantine`"
        )
    if as_json:
        print_json({"cleared": cleared, "owner": who, "reason": reason})
    else:
        print(f"process {visible(process)} may have machine {machine} at once; {operators.backoff_text(cleared)}")
