"""`bmdb doctor`: the findings, one a line with what to do below it, or as JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.text import Text

from bmdb import conninfo as _conninfo
from bmdb.cli.application import Conninfo, GivenConninfo, Json, app, check_given, chosen
from bmdb.cli.doctor import Finding, Level, examine
from bmdb.cli.terminal import one_line, print_json

_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
_WIDEST = max(len(level) for level in Level)


@app.command()
def doctor(given: GivenConninfo = None, conninfo: Conninfo = None, as_json: Json = False) -> None:
    """Examine a database, and say what to do.

    Run it where workers run, as the role that they use. Looks at connection, TLS, pooler, clock, role, settings,
    replication, schema, indexes, vacuum and the heartbeat's round trip; changes nothing. Each finding is ok, a note, a
    warning or a problem. Ends with status 1 if there is a problem.
    """
    database = chosen(given, conninfo)
    check_given(database)
    findings: list[Finding] = []
    for finding in examine(database or None):
        findings.append(finding)
        if not as_json:
            _print(finding)
    levels = Counter(finding.level for finding in findings)
    if as_json:
        shown = _conninfo.redact(_conninfo.given(database or None))
        print_json({"conninfo": shown, "findings": findings, **{f"{level}s": levels[level] for level in _bad()}})
    else:
        print(f"\n{_plural(levels[Level.PROBLEM], 'problem')}, {_plural(levels[Level.WARNING], 'warning')}")
    if levels[Level.PROBLEM]:
        raise typer.Exit(1)


def _bad() -> Iterator[Level]:
    yield Level.PROBLEM
    yield Level.WARNING


def _print(finding: Finding) -> None:
    """The finding at once, since the next one may take a while."""
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(Text(finding.level.ljust(_WIDEST), style=_STYLES[finding.level]), end="")
    print(f"{captured.get()}  {finding.check}: {one_line(finding.text)}", flush=True)
    if finding.advice is not None:
        print(f"{' ' * _WIDEST}  -> {one_line(finding.advice)}", flush=True)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
