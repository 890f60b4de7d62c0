"""Why a process does not work on a machine, clause by clause: one implementation for Python, terminal and page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from bmdb._core import Eligibility, Row

__all__ = ["Clause", "Explanation", "conditions", "explained", "literal", "unregistered"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that decides whether the process gets the machine.

    `kind` is "machine" (there is none), "lease", "backoff", "exclusion", "hold", "quarantine", "tag" (what the process
    asks of machines), "process" (nothing says what it asks) or "eligible". `blocks`: it keeps the process off. `text`
    is one sentence for people; it repeats what others wrote (causes, reasons), so escape it wherever it is shown.
    `facts` are what it is made of: names to JSON values, timestamps in ISO 8601.
    """

    kind: str
    blocks: bool
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether the process may have the machine now, and all that decides it. `str()` is a line for each clause."""

    machine: UUID
    process: str
    leasable: bool
    clauses: tuple[Clause, ...]

    def __str__(self) -> str:
        answer = "can be leased" if self.leasable else "cannot be leased"
        lines = [f"machine {self.machine} {answer} for {self.process} now"]
        return "\n".join([*lines, *(f"{'✗' if clause.blocks else '·'} {clause.text}" for clause in self.clauses)])


def explained(
    machine: UUID, process: str, facts: Sequence[tuple[str, Mapping[str, Any]]], examined: Sequence[list[Clause]]
) -> Explanation:
    """Puts the database's facts (kind and what there is to say) and what the process asks of machines together.

    `examined` are the clauses of each eligibility. One that the machine meets is enough.
    """
    if not any(kind == "machine" for kind, _ in facts):
        return Explanation(machine, process, False, (Clause("machine", True, "there is no such machine"),))
    clauses = [Clause(kind, True, _TEXTS[kind](said), said) for kind, said in facts if kind in _TEXTS]
    met = [asked for asked in examined if not any(clause.blocks for clause in asked)]
    if not met:
        clauses += [clause for asked in examined for clause in asked]
    elif not clauses:
        clauses += met[0]
    return Explanation(machine, process, not any(clause.blocks for clause in clauses), tuple(clauses))


def conditions(
    process: str, fingerprint: str, eligibility: Eligibility, answer: Row, place: Row | None, seen: datetime | None
) -> list[Clause]:
    """What an eligibility asks that the machine does not meet, or that it is eligible, with its place.

    `answer` is a row of the query that examines one machine: having, lacking, holds, eligible.
    """

    def clause(text: str, **facts: object) -> Clause:
        return Clause("tag", True, text, {"eligibility": fingerprint, **facts})

    failing = []
    for tag, has in zip(eligibility.having, answer.having, strict=True):
        if has is None:
            failing.append(clause(f"it must have tag {tag}, and this database has no such tag", tag=tag, must="have"))
        elif not has:
            failing.append(clause(f"it does not have tag {tag}, which {process} asks for", tag=tag, must="have"))
    for tag, has in zip(eligibility.lacking, answer.lacking, strict=True):
        if has is None:
            failing.append(clause(f"it must lack tag {tag}, and this database has no such tag", tag=tag, must="lack"))
        elif has:
            failing.append(clause(f"it has tag {tag}, and {process} wants machines without it", tag=tag, must="lack"))
    asked = eligibility.sql or eligibility.where
    # Where a tag is not there nothing is said of the condition; a query may also answer neither yes nor no.
    judged = answer.holds is False or (eligibility.sql is not None and answer.holds is None)
    if asked is not None and judged and not any(c.facts["must"] == "have" for c in failing):
        what = (
            "the query of the process does not return it" if eligibility.sql else "this condition does not hold of it"
        )
        failing.append(clause(f"{what}: {' '.join(asked.split())}", sql=asked))
    if failing:
        return failing
    return [_eligible(process, fingerprint, eligibility, place, seen)]


def _eligible(
    process: str, fingerprint: str, eligibility: Eligibility, place: Row | None, seen: datetime | None
) -> Clause:
    facts: dict[str, Any] = {"eligibility": fingerprint, "last_poll": seen.isoformat() if seen else None}
    text = "eligible now"
    if place is not None and place.place is not None:
        facts |= {"position": place.place, "of": place.machines}
        ordered = eligibility.order_by is not None or eligibility.sql is not None
        how = "in the order of the process" if ordered else "by id, which claims go through round and round"
        text += f", number {place.place} of {place.machines} {how}"
    asked = (
        f"a worker of {process} last asked at {_at(seen.isoformat())}" if seen else f"no worker of {process} has asked"
    )
    return Clause("eligible", False, f"{text}; {asked}", facts)


def unregistered(process: str, known: bool) -> Clause:
    """The clause of a process whose workers have not said what they ask of machines."""
    if known:
        text = f"workers of {process} choose machines in a callback of their own: what it asks cannot be told from here"
        return Clause("process", False, text)
    return Clause("process", True, f"no worker has registered a process {process}")


def literal(value: object) -> str:
    """A parameter as it stands in SQL."""
    # Takes tens of milliseconds.
    from psycopg import sql

    if isinstance(value, dict):
        return f"{literal(json.dumps(value))}::jsonb"
    written = sql.Literal(value).as_string(None)
    # A cast binds more tightly than a sign.
    return f"({written.strip()})" if isinstance(value, int | float | Decimal) and value < 0 else written


def _at(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        # Infinity, and years that Python does not know.
        return moment


def _holder(said: Mapping[str, Any]) -> str:
    who = f"{said['component']} (session {said['session_id']}) since {_at(said['since'])}, token {said['token']}"
    if said["live"]:
        return f"{who}, until {_at(said['until'])} unless the session is renewed"
    return f"{who}; its session expired at {_at(said['until'])} and is about to be collected"


def _lease(said: Mapping[str, Any]) -> str:
    return f"leased by {_holder(said)}"


def _exclusion(said: Mapping[str, Any]) -> str:
    return f"{said['process']}, which excludes it, has it leased by {_holder(said)}"


def _backoff(said: Mapping[str, Any]) -> str:
    failures = said["failures"]
    often = f", after {failures} failure{'s' if failures != 1 else ''} in a row" if failures else ""
    return f"in backoff until {_at(said['until'])}{often}: {said['cause']}"


def _hold(said: Mapping[str, Any]) -> str:
    whom = "every process" if said["process"] is None else said["process"]
    until = "until that is released" if said["until"] is None else f"until {_at(said['until'])}"
    return f"{said['owner']} keeps {whom} away since {_at(said['since'])}, {until}: {said['reason']}"


def _quarantine(said: Mapping[str, Any]) -> str:
    lost = "; ".join(
        f"{one['component']} (session {one['session_id']}) at {_at(one['at'])}" for one in said["lost"] or ()
    )
    return f"in quarantine since {_at(said['since'])}, after {said['losses']} lost holders{f': {lost}' if lost else ''}"


_TEXTS = {
    "lease": _lease,
    "exclusion": _exclusion,
    "backoff": _backoff,
    "hold": _hold,
    "quarantine": _quarantine,
}
