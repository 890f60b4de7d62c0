"""Why a machine is not worked on, and what the processes ask of machines: `bmdb explain` and `bmdb processes`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

import bmdb
from bmdb.cli import fleet
from bmdb.cli.application import BadAnswer, Conninfo, Json, app, opened
from bmdb.cli.completion import complete_process
from bmdb.cli.durations import show_duration
from bmdb.cli.operators import Machine
from bmdb.cli.terminal import one_line, print_error, print_json, print_table, visible
from bmdb.explanation import Clause, Explanation
from bmdb.model import RegisteredEligibility, RegisteredProcess
from bmdb.unseen import is_seen

PROCESS_COLUMNS = (
    "PROCESS",
    "BACKLOG",
    "LAST ASKED",
    "BACKOFF",
    "EXCLUDES",
    "AFTER A CRASH",
    "QUARANTINE",
    "ELIGIBILITY",
)
_MOST_PROCESSES = 1000


@app.command()
def explain(
    machine: Machine,
    process: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROCESS]",
            help="The process that does, or does not, work on it; by default each that is known.",
            autocompletion=complete_process,
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with status 1 if no process may have the machine now.")
    ] = False,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Tell why a machine is not worked on.

    Who has it, what keeps workers away, and how to end that. An answer is status 0, whatever it says, unless with
    --exit-code; status 1 if there is no such machine.
    """
    with opened(conninfo) as connection:
        explanations = [connection.explain(machine, name) for name in _asked_about(connection, process)]
        known = connection._look(lambda q: q.machine(machine)) is not None
    if not known:
        raise BadAnswer(f"there is no machine {machine}: `bmdb machines` lists those there are")
    if as_json:
        print_json({"machine_id": machine, "explanations": [_document(one) for one in explanations]})
    elif not explanations:
        print(f"no process is known here: nobody has worked on machine {machine}, nor registered to do so")
    else:
        print("\n\n".join("\n".join(_lines(one)) for one in explanations))
    if exit_code and not any(one.leasable for one in explanations):
        raise typer.Exit(1)


def _asked_about(connection: bmdb.Connection, process: str | None) -> list[str]:
    if process is not None:
        return [process]
    return [row[0] for row in connection._look(lambda q: q._core.call("process_known", ("", _MOST_PROCESSES)))]


def _document(explanation: Explanation) -> dict[str, Any]:
    return {"process": explanation.process, "leasable": explanation.leasable, "clauses": explanation.clauses}


def _lines(explanation: Explanation) -> Iterator[str]:
    """The explanation for people; what others wrote is shown, and not acted on."""
    answer = "can be leased" if explanation.leasable else "cannot be leased"
    yield f"machine {explanation.machine} {answer} for {visible(explanation.process)} now"
    ways: dict[str, None] = {}
    for clause in explanation.clauses:
        yield f"  {'-' if clause.blocks else '+'} {one_line(clause.text)}"
        if clause.blocks and (way := _way_out(explanation, clause)):
            ways[way] = None
    for way in ways:
        yield f"    {way}"


def _way_out(explanation: Explanation, clause: Clause) -> str | None:
    """The command that ends what keeps the process off the machine, fit to be copied."""
    machine, process = explanation.machine, explanation.process
    if clause.kind in ("lease", "exclusion"):
        holder = str(clause.facts.get("process") or process)
        return f"bmdb force-release {machine} {_argument(holder)} --reason …"
    if clause.kind == "backoff":
        return f"bmdb clear-backoff {machine} {_argument(process)} --reason …"
    if clause.kind == "quarantine":
        return f"bmdb release-quarantine {machine} {_argument(process)}"
    if clause.kind == "hold":
        held = clause.facts.get("process")
        return f"bmdb release {machine}" + (f" --process {_argument(str(held))}" if held else "")
    return None


def _argument(text: str) -> str:
    """A text as a shell takes it: with an escape for each character that is not seen, as bash, zsh and ksh read it."""
    if all(map(is_seen, text)):
        return shlex.quote(text)
    marks = (mark if is_seen(mark) and mark not in "\\'" else f"\\U{ord(mark):08x}" for mark in text)
    return f"$'{''.join(marks)}'"


@app.command()
def processes(
    process: Annotated[
        str | None,
        typer.Argument(metavar="[PROCESS]", help="This process only.", autocompletion=complete_process),
    ] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL that finds the machines of each.")] = False,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """List processes: rules, backlog, what they ask for.

    Those that workers have registered. The backlog is how many machines could be leased now; a question mark stands
    for a process that chooses its machines in a callback, which nobody else can ask.
    """
    with opened(conninfo) as connection:
        found = [one for one in connection.registered() if process in (None, one.process)]
        backlogs = {one.process: _backlog(connection, one.process) for one in found}
        asked: dict[str, list[RegisteredEligibility]] = {one.process: [] for one in found}
        for eligibility in connection.eligibilities(process):
            asked.setdefault(eligibility.process, []).append(eligibility)
        texts = {
            (one.process, one.fingerprint): _text(connection, one)
            for several in asked.values()
            for one in several
            if sql or as_json
        }
    if process is not None and not found:
        raise BadAnswer(
            f"no worker has registered a process {visible(process)}: `bmdb processes` lists those there are"
        )
    if as_json:
        print_json({"processes": [_process_document(one, backlogs, asked, texts) for one in found]})
        return
    print_table(PROCESS_COLUMNS, (_process_cells(one, backlogs, asked[one.process]) for one in found))
    for (name, fingerprint), text in texts.items():
        print(f"\n{visible(name)}, eligibility {fingerprint}:")
        print("\n".join(visible(line) for line in text.splitlines()) if text else "(it names a tag that is not there)")


def _backlog(connection: bmdb.Connection, process: str) -> int | None:
    """How many machines wait for it; None if that cannot be told, and a warning if it should have been."""
    try:
        return connection.backlog(process)
    except (ValueError, bmdb.DatabaseError) as error:
        print_error(f"warning: the backlog of {process} cannot be told: {error}")
        return None


def _text(connection: bmdb.Connection, eligibility: RegisteredEligibility) -> str | None:
    try:
        return connection.eligibility_sql(eligibility)
    except ValueError:
        return None


def _process_document(
    one: RegisteredProcess,
    backlogs: Mapping[str, int | None],
    asked: Mapping[str, list[RegisteredEligibility]],
    texts: Mapping[tuple[str, str], str | None],
) -> dict[str, Any]:
    eligibilities = [
        {**dataclasses.asdict(each), "query": texts[each.process, each.fingerprint]} for each in asked[one.process]
    ]
    return {**dataclasses.asdict(one), "backlog": backlogs[one.process], "eligibilities": eligibilities}


def _process_cells(
    one: RegisteredProcess, backlogs: Mapping[str, int | None], asked: list[RegisteredEligibility]
) -> Sequence[str]:
    backlog = backlogs[one.process]
    return (
        one_line(one.process),
        "?" if backlog is None else str(backlog),
        "-" if one.seen is None else fleet.shown_time(one.seen),
        _periods(one.backoff_initial, one.backoff_maximum),
        ", ".join(map(one_line, one.excludes)) or "-",
        _periods(one.crash_backoff_initial, one.crash_backoff_maximum),
        "-" if one.quarantine_after is None else f"after {one.quarantine_after}",
        "\n".join(_asks(each) for each in asked) or "-",
    )


def _periods(initial: float | None, maximum: float | None) -> str:
    """The shortest and the longest period of a backoff."""
    if initial is None:
        return "-"
    return show_duration(initial) + (f" to {show_duration(maximum)}" if maximum is not None else "")


def _asks(eligibility: RegisteredEligibility) -> str:
    """What is asked of a machine, in a few words."""
    parts = []
    if eligibility.having:
        parts.append("having " + ", ".join(eligibility.having))
    if eligibility.lacking:
        parts.append("lacking " + ", ".join(eligibility.lacking))
    if eligibility.condition or eligibility.sql:
        parts.append(f"where {eligibility.condition}" if eligibility.condition else "by a query")
    return one_line(", ".join(parts)) or "any machine"
