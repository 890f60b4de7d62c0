"""What keeps a database in order: `bmdb prune` and `bmdb collect`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import bmdb
from bmdb.cli.application import Conninfo, Json, Refused, app, opened, understood
from bmdb.cli.durations import parse_duration, show_duration
from bmdb.cli.terminal import print_json, visible

# As prune_history has it, but said before anything is counted.
_SHORTEST = timedelta(hours=1)
_LONG = 600.0  # seconds for counting what is old


@app.command()
def prune(
    older: Annotated[
        str,
        typer.Option("--history-older-than", metavar="DURATION", help="What happened longer ago goes, such as 90d."),
    ],
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=1_000_000, help="Delete so many events in one transaction.")
    ] = 10_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many events would go.")] = False,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Delete old history.

    Batch by batch, so that nobody waits for it, and whole months at once where this role owns them. Interrupted, it
    goes on the next time. Leases, backoffs and tags do not depend on history.
    """
    with understood():
        age = _age(older)
    with opened(conninfo) as connection:
        seconds = age.total_seconds()
        rows = connection._look(lambda q: q._core.call("work_history_older", (seconds,)), seconds=_LONG)
        expected: int = rows[0].events
        deleted, partitions = (0, list[str]()) if dry_run else _prune(connection, age, batch, expected)
    if as_json:
        found = {"older_than_seconds": seconds, "events": expected, "deleted": deleted}
        print_json({**found, "partitions": partitions, "dry_run": dry_run})
    elif dry_run:
        print(f"{expected:,} events are older than {show_duration(seconds)}, and would go")
    else:
        whole = f", and with them {', '.join(map(visible, partitions))}" if partitions else ""
        print(f"{deleted:,} events deleted that were older than {show_duration(seconds)}{whole}")


def _prune(connection: bmdb.Connection, age: timedelta, batch: int, expected: int) -> tuple[int, list[str]]:
    """Deletes until nothing is left that is so old; how many events that were, and which months went at once."""
    deleted, partitions = 0, list[str]()
    with _progress() as progress:
        task = progress.add_task("deleted", total=expected)
        while True:
            with understood():
                rows, dropped = connection.prune_history(age, limit=batch)
            if not rows and not dropped:
                return deleted, partitions
            deleted += rows
            partitions += dropped
            progress.update(task, completed=deleted, total=max(expected, deleted))


def _age(text: str) -> timedelta:
    try:
        age = timedelta(seconds=parse_duration(text))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than can be counted") from None
    if age < _SHORTEST:
        raise Refused("history is kept for an hour at least: it tells how work ended whose COMMIT was not answered")
    return age


def _progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@app.command()
def collect(conninfo: Conninfo = None, as_json: Json = False) -> None:
    """Free what expired sessions held.

    Workers do it by themselves all the time; this is for when none is left. A session whose holder is in the middle of
    a transaction is left for the next time.
    """
    with opened(conninfo) as connection:
        sessions, leases = connection.collect()
    if as_json:
        print_json({"sessions": sessions, "leases": leases})
    else:
        print(f"{sessions} expired sessions collected, {leases} leases freed")
