"""The report: figures from the facts, as a dictionary for JSON and as text for people."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from bmdb.demo.facts import Facts, MachineFacts
from bmdb.demo.invariants import Invariant, finishes, waits
from bmdb.demo.worker import BACKOFF
from bmdb.model import Event

_WIDTH = 100
_LABEL = 20


def summary(facts: Facts, invariants: Sequence[Invariant], *, seconds: float) -> dict[str, Any]:
    """Everything that the report says, ready for JSON: ids as text, periods and times in seconds."""
    events = Counter(event.event for machine in facts.machines for event in machine.history)
    done = [machine for machine in facts.machines if finishes(machine)]
    return {
        "ok": all(invariant.holds for invariant in invariants),
        "seconds": round(seconds, 1),
        "machines": {
            "total": len(facts.machines),
            "by_provider": dict(Counter(machine.provider for machine in facts.machines)),
            "can_be_done": sum(machine.can_be_done for machine in facts.machines),
            "done": len(done),
            "done_after_failures": sum(_count(machine, Event.FAILED) > 0 for machine in done),
            "in_backoff": sum(machine.backoff is not None for machine in facts.machines),
        },
        "events": {str(event): events[event] for event in Event},
        "longest_period": BACKOFF.maximum,
        "failures": list(_failures(facts)),
        "in_backoff": [
            {
                "machine": str(machine.machine),
                "provider_id": machine.provider_id,
                "cause": machine.backoff.cause,
                "period": machine.backoff.last_interval_seconds,
            }
            for machine in facts.machines
            if machine.backoff is not None
        ],
        "killed": _killed(facts),
        "stopped": _stopped(facts),
        "duplicate_finishes": sum(max(0, len(finishes(machine)) - 1) for machine in facts.machines),
        "leases_left": facts.leases_left,
        "workers": [
            {
                "worker": worker.number,
                "pid": worker.pid,
                "sessions": [str(session) for session in worker.sessions],
                "finished": len(worker.finished),
                "failed": len(worker.failed),
                "refused": len(worker.refusals),
                "status": worker.status,
            }
            for worker in facts.workers
        ],
        "invariants": [
            {"name": invariant.name, "holds": invariant.holds, "violations": list(invariant.violations)}
            for invariant in invariants
        ],
    }


def _count(machine: MachineFacts, kind: Event) -> int:
    return sum(event.event == kind for event in machine.history)


def _failures(facts: Facts) -> Iterator[dict[str, Any]]:
    """By cause: how often, on how many machines, and the shortest wait after a first, second, … failure in a row."""
    times: Counter[str] = Counter()
    machines: dict[str, set[UUID]] = {}
    shortest: dict[str, dict[int, float]] = {}
    for machine in facts.machines:
        for event in machine.history:
            if event.event == Event.FAILED:
                cause = event.failed_cause or ""
                times[cause] += 1
                machines.setdefault(cause, set()).add(machine.machine)
        for failed, started, number in waits(machine):
            seen = shortest.setdefault(failed.failed_cause or "", {})
            waited = (started.timestamp - failed.timestamp).total_seconds()
            seen[number] = min(waited, seen.get(number, waited))
    for cause, count in times.most_common():
        seen = shortest.get(cause, {})
        yield {
            "cause": cause,
            "times": count,
            "machines": len(machines[cause]),
            "shortest_waits": [round(seen[number], 1) for number in sorted(seen)],
        }


def _killed(facts: Facts) -> dict[str, Any] | None:
    killed = facts.killed
    if killed is None:
        return None
    worker = next(worker for worker in facts.workers if worker.number == killed.worker)
    held = []
    for machine in facts.machines:
        for event in machine.history:
            if event.event == Event.LOST and event.session_id == killed.session:
                entry = {
                    "machine": str(machine.machine),
                    "provider_id": machine.provider_id,
                    "token": event.token,
                    "freed_after": _seconds(killed.at, event.timestamp),
                }
                held.append(entry | _successor(machine, killed.at, event.token))
    return {"worker": killed.worker, "pid": worker.pid, "session": str(killed.session), "held": held}


def _stopped(facts: Facts) -> dict[str, Any] | None:
    stopped = facts.stopped
    if stopped is None:
        return None
    worker = next(worker for worker in facts.workers if worker.number == stopped.worker)
    machine = next(machine for machine in facts.machines if machine.machine == stopped.lease[0])
    refusal = next((refusal for refusal in worker.refusals if refusal.lease == stopped.lease), None)
    return {
        "worker": stopped.worker,
        "pid": worker.pid,
        "session": str(stopped.session),
        "machine": str(machine.machine),
        "provider_id": machine.provider_id,
        "token": stopped.lease[1],
        "stopped_for": _seconds(stopped.at, stopped.continued),
        "refused": refusal is not None,
        "outcome_refused": refusal.outcome if refusal else None,
        "error": refusal.error if refusal else None,
        "message": refusal.message if refusal else None,
        "tokens_at_endpoint": list(machine.tokens),
        **_successor(machine, stopped.at, stopped.lease[1]),
    }


def _successor(machine: MachineFacts, since: datetime, token: int | None) -> dict[str, Any]:
    """Who finished the machine under a later lease, and how many seconds after `since`."""
    later = [event for event in finishes(machine) if (event.token or 0) > (token or 0)]
    if not later:
        return {"finished_by": None, "finished_token": None, "finished_after": None}
    finish = later[0]
    return {
        "finished_by": finish.component,
        "finished_token": finish.token,
        "finished_after": _seconds(since, finish.timestamp),
    }


def _seconds(since: datetime, until: datetime) -> float:
    return round((until - since).total_seconds(), 1)


def rendered(report: dict[str, Any]) -> str:
    """The report as text."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    machines, events = report["machines"], report["events"]
    yield ""
    yield "What happened, by the history that the database keeps"
    yield ""
    failed_first = machines["done_after_failures"]
    yield from _item(
        "machines",
        f"{machines['done']} of {machines['total']} have their agent now, {failed_first} of them after failures;"
        f" {machines['in_backoff']} never answered: in backoff",
    )
    yield from _item(
        "leases",
        f"{events['Started']}: {events['Finished']} finished, {events['Failed']} failed,"
        f" {events['Lost']} lost with their worker, {events['Canceled']} canceled",
    )
    label = "failures"
    for failure in report["failures"]:
        text = f"{failure['cause']}: {failure['times']} on {_machines(failure['machines'])}"
        if seen := ", ".join(f"{wait:g}" for wait in failure["shortest_waits"]):
            text += f", tried again after no less than {seen} s"
        yield from _item(label, text)
        label = ""
    if periods := Counter(entry["period"] for entry in report["in_backoff"]):
        each = ", ".join(f"{period} s for {_machines(count)}" for period, count in sorted(periods.items()))
        limit = f"longer with each failure in a row, up to {report['longest_period']:g} s"
        yield from _item("backoff now", f"{each}; {limit}")
    yield ""
    yield from _scene_lines(report)
    yield ""
    yield from _item("duplicate finishes", str(report["duplicate_finishes"]))
    yield from _item("leases left", str(report["leases_left"]))
    yield ""
    yield from _verdict(report)
    if (kept := report.get("kept")) is not None:
        yield from _ways_on(kept["conninfo"], kept["held"])


def _ways_on(conninfo: str, held: str) -> Iterator[str]:
    """How to look at the database that was kept."""
    yield ""
    yield "The database is kept, and one machine is on hold. What is each doing, why is that one not worked on,"
    yield "and how is it freed?"
    yield ""
    yield f"  export BMDB_CONNINFO={shlex.quote(conninfo)}"
    yield "  bmdb machines"
    yield f"  bmdb explain {held}"
    yield f"  bmdb history {held}"
    yield f"  bmdb release {held}"


def _machines(count: int) -> str:
    return f"{count} machine" if count == 1 else f"{count} machines"


def _verdict(report: dict[str, Any]) -> Iterator[str]:
    broken = 0
    for invariant in report["invariants"]:
        broken += not invariant["holds"]
        yield f"  {'ok    ' if invariant['holds'] else 'BROKEN'}  {invariant['name']}"
        for violation in invariant["violations"]:
            yield from textwrap.wrap(violation, _WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12)
    yield ""
    count = len(report["invariants"])
    if broken:
        yield f"{broken} of {count} invariants are BROKEN ({report['seconds']:g} s in all)."
    else:
        yield f"All {count} invariants hold ({report['seconds']:g} s in all): one worker died and one fell asleep,"
        yield "yet no machine was forgotten, and none was finished twice."


def _scene_lines(report: dict[str, Any]) -> Iterator[str]:
    if (killed := report["killed"]) is not None:
        for held in killed["held"]:
            yield from _item(
                "killed",
                f"worker {killed['worker']} (SIGKILL), while it held {held['provider_id']} under token {held['token']}."
                f" Its session ran out, and {held['freed_after']:g} s after the kill the machine was free again."
                f" {_succeeded(held)} after the kill.",
            )
    if (stopped := report["stopped"]) is not None:
        yield from _item(
            "stopped",
            f"worker {stopped['worker']} (SIGSTOP), for {stopped['stopped_for']:g} s, while it held"
            f" {stopped['provider_id']} under token {stopped['token']}. {_succeeded(stopped)} after the stop.",
        )
        if stopped["refused"]:
            refused = f"its {stopped['outcome_refused']} was refused and wrote nothing"
            yield from _item("", f"Continued, {refused}. {stopped['error']}: {stopped['message']}.")
        if len(tokens := stopped["tokens_at_endpoint"]) > 1:
            under = ", ".join(map(str, tokens))
            yield from _item(
                "",
                f"Outside the database nothing is fenced: the machine was told to start its agent under tokens {under}."
                " This is what the tokens are for: it turns down one that is older than the last.",
            )


def _succeeded(entry: dict[str, Any]) -> str:
    if entry["finished_by"] is None:
        return "Nobody finished it"
    who, token, seconds = entry["finished_by"], entry["finished_token"], entry["finished_after"]
    return f"{who.capitalize()} finished it under token {token}, {seconds:g} s"


def _item(label: str, text: str) -> list[str]:
    indent = " " * (_LABEL + 2)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"  {label:<{_LABEL}}", subsequent_indent=indent, break_on_hyphens=False
    )
