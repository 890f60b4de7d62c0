"""What an operator does to machines: keeps workers away from them, frees them, ends what keeps workers away."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from bmdb.cli.completion import complete_machine, complete_process
from bmdb.cli.durations import parse_duration
from bmdb.cli.terminal import one_line, visible
from bmdb.model import ActiveWork, Hold, WorkBackoff

HOLD_COLUMNS = ("MACHINE", "PROCESS", "OWNER", "SINCE", "UNTIL", "REASON")

Machine = Annotated[UUID, typer.Argument(metavar="MACHINE", help="The machine's id.", autocompletion=complete_machine)]
ProcessName = Annotated[
    str, typer.Argument(metavar="PROCESS", help="The process's name.", autocompletion=complete_process)
]
OneProcess = Annotated[
    str | None,
    typer.Option(
        "--process",
        "-p",
        metavar="PROCESS",
        help="This process only; by default all.",
        autocompletion=complete_process,
    ),
]
Owner = Annotated[str | None, typer.Option("--owner", help="Who does it; by default your user's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why, for those who wonder.")]

OptionalReason = Annotated[
    str | None, typer.Option("--reason", "-r", help="What was done about it, for those who wonder.")
]


def who_and_why(owner: str | None, reason: str | None) -> tuple[str | None, str | None]:
    """Who does something and why, where that need not be said; ValueError for an owner without a reason."""
    if reason is None:
        if owner is not None:
            raise ValueError("--owner says who, and goes with --reason, which says why")
        return None, None
    return owner_of(owner), reason


def owner_of(given: str | None) -> str:
    """Who it is that does something; ValueError when nobody can tell."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise ValueError("your user has no name here: say --owner NAME") from None


def end_of(given: str | None) -> datetime | None:
    """The moment given as a duration from now or as an ISO 8601 timestamp with its zone; ValueError for others."""
    if given is None:
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=parse_duration(given))
    except OverflowError:
        raise ValueError(f"{given!r} is longer than can be counted") from None
    except ValueError as error:
        try:
            moment = datetime.fromisoformat(given)
        except ValueError:
            raise error from None
    if moment.utcoffset() is None:
        raise ValueError(f"{given!r} does not say its time zone: add Z or an offset such as +02:00")
    return moment


def whom(process: str | None) -> str:
    """What is kept away, or not any more."""
    return "every process" if process is None else f"process {visible(process)}"


def hold_cells(hold: Hold) -> Sequence[str]:
    """A row of the table of holds."""
    until = "until released" if hold.until is None else hold.until.isoformat(" ", "seconds")
    process = "(all)" if hold.process is None else one_line(hold.process)
    since = hold.held_at.isoformat(" ", "seconds")
    return str(hold.machine_id), process, one_line(hold.owner), since, until, one_line(hold.reason)


def lease_text(lease: ActiveWork) -> str:
    """Whose lease was ended."""
    return (
        f"session {lease.session_id} of {visible(lease.session_component_name)}, token {lease.token},"
        f" since {lease.work_started_at.isoformat(' ', 'seconds')}"
    )


def backoff_text(backoff: WorkBackoff) -> str:
    """Which backoff was ended."""
    return f"it would have lasted until {backoff.until.isoformat(' ', 'seconds')}: {one_line(backoff.cause)}"
