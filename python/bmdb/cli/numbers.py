"""The command `bmdb stats`."""

from __future__ import annotations

from typing import Annotated

import typer

from bmdb.cli import loops as _loops
from bmdb.cli import statistics as _statistics
from bmdb.cli.application import BadAnswer, Conninfo, Json, Refused, app, opened
from bmdb.cli.durations import parse_duration
from bmdb.cli.exporter import Exporter
from bmdb.cli.statistics import StatisticsEvery, StatisticsModules
from bmdb.cli.terminal import print_error, print_json, print_table
from bmdb.janitor import Janitor
from bmdb.loops.signals import attend

__all__ = ["stats"]

# Whoever asks once waits for all of it.
_PATIENCE = 600.0


@app.command()
def stats(
    conninfo: Conninfo = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Serve /metrics and /healthz there until Ctrl-C."),
    ] = None,
    statistics: StatisticsModules = None,
    every: StatisticsEvery = "60s",
    as_json: Json = False,
) -> None:
    """Show the fleet in numbers.

    Once, or with --listen for Prometheus, which reads the database at most once in --every however often it asks. Any
    number of these may run. A statistic that cannot be read takes no other away; status 1 then.
    """
    if listen is not None and as_json:
        raise Refused("--json shows the numbers once, --listen serves them: leave out one")
    try:
        own, seconds = _loops.statistics_of(statistics or ()), parse_duration(every)
    except (_loops.Unusable, ValueError) as error:
        raise Refused(str(error)) from None
    # Stays open: the database may be one that runs for this command alone.
    with opened(conninfo) as connection:
        try:
            janitor = Janitor(connection.conninfo, own, every=seconds, patience=_PATIENCE if listen is None else 5.0)
        except ValueError as error:
            raise Refused(str(error)) from None
        if listen is not None:
            _serve(listen, janitor)
            return
        readings = janitor.read()
        janitor.close()
    if as_json:
        print_json(_statistics.document(readings))
    else:
        print_table(_statistics.COLUMNS, _statistics.rows(readings))
    failed = list(_statistics.failures(readings))
    for name, why in failed:
        print_error(f"{name} cannot be read: {why}")
    if failed:
        raise BadAnswer(f"{len(failed)} of {len(readings)} statistics could not be read")


def _serve(listen: str, janitor: Janitor) -> None:
    _loops.write_log("info")
    exporter = Exporter(listen, janitor)
    host, port = exporter.address
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/metrics", flush=True)
    attend(exporter)
