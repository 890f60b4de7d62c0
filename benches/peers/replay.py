"""A script for pgbench out of what bmdb was seen to send: the texts of a lease and its end, in as many trips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[(\d+)\] (LOG|DETAIL):  (.*)$")
_SENT = re.compile(r"^(?:statement|execute [^:]*): (.*)$", re.DOTALL)
_VALUE = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
_UUID = re.compile(r"^\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?$")

# A fresh name for each claim, and a random place in the order of ids, as bmdb's is at its start; not so far back that
# nothing may come after it.
_CLAIM, _LEASE = (f"(lpad(to_hex(:claim::bigint), 28, '0') || '{number}')::uuid" for number in ("0000", "0001"))
_PLACE = "(lpad(to_hex(:place::bigint), 8, '0') || repeat('0', 24))::uuid"
_SETTINGS = ("\\set claim random(1, 9223372036854775806)", f"\\set place random(0, {0xF0000000})")


@dataclass
class Statement:
    """A statement as the server logged it."""

    text: str
    values: dict[int, str] = field(default_factory=dict)


def logged(log: str) -> list[Statement]:
    """The statements in a server's log, in order, with the values of their parameters."""
    statements: list[Statement] = []
    entry: list[str] = []
    kind = ""

    def conclude() -> None:
        text = "\n".join(entry)
        if kind == "LOG" and (sent := _SENT.match(text)):
            statements.append(Statement(sent[1].strip()))
        elif kind == "DETAIL" and statements:
            found = _VALUE.findall(text)
            statements[-1].values |= {int(n): value[1:-1].replace("''", "'") for n, value in found if value != "NULL"}

    for line in log.splitlines():
        if head := _ENTRY.match(line):
            conclude()
            kind, entry = head[2], [head[3]]
        else:
            entry.append(line.removeprefix("\t"))
    conclude()
    return statements


def last_cycles(statements: Sequence[Statement]) -> tuple[list[Statement], list[Statement]]:
    """The last two cycles of a single caller: from a claim's BEGIN to the end of the lease. Raises ValueError."""
    cycles: list[list[Statement]] = []
    open_cycle: list[Statement] | None = None
    for statement in statements:
        if statement.text.startswith("BEGIN"):
            open_cycle = [statement]
        elif open_cycle is not None:
            open_cycle.append(statement)
            if "'Finished'" in statement.text:
                cycles.append(open_cycle)
                open_cycle = None
    if len(cycles) < 2:
        raise ValueError("the log has no two cycles")
    return cycles[-2], cycles[-1]


def script(before: Sequence[Statement], cycle: Sequence[Statement]) -> tuple[str, dict[str, str]]:
    """The script, and the constants to define for it. What differs from the cycle before is made anew each time."""
    *claim, finish = cycle
    constants = {"session": next(value for value in claim[1].values.values() if _UUID.match(value))}
    lines = [*_SETTINGS, "\\startpipeline"]
    names = [set(statement.values.values()) for statement in claim if statement.values]
    shared = set.intersection(*names)
    for earlier, statement in zip(before, claim, strict=False):
        made = {
            number: _CLAIM if value in shared else _PLACE
            for number, value in statement.values.items()
            if _UUID.match(value) and earlier.values.get(number) != value
        }
        lines += [f"{text};" for text in _filled(statement, made, constants)]
    lines.append("\\endpipeline")
    of_claim = f"FROM work AS claimed WHERE claimed.session_id = :session AND claimed.lease_id = {_LEASE}"
    made = {}
    for number, value in finish.values.items():
        if f"${number}::bigint[]" in finish.text:
            made[number] = f"(SELECT array_agg(claimed.token) {of_claim})"
        elif _UUID.match(value) and before[-1].values.get(number) != value:
            made[number] = f"(SELECT array_agg(claimed.machine_id) {of_claim})"
    lines += [f"{text};" for text in _filled(finish, made, constants)]
    return "\n".join(lines) + "\n", constants


def _filled(statement: Statement, made: dict[int, str], constants: dict[str, str]) -> list[str]:
    """The statement, or each of several, with what is made in place of its parameters, and variables for constants."""
    text = re.sub(r"--.*", "", statement.text).strip().removesuffix(";")

    def value(found: re.Match[str]) -> str:
        number = int(found[1])
        if number in made:
            return made[number]
        for name, known in constants.items():
            if known == statement.values[number]:
                return f":{name}"
        name = f"c{len(constants)}"
        constants[name] = statement.values[number]
        return f":{name}"

    if statement.values:
        return [re.sub(r"\$(\d+)", value, text)]
    return [part.strip() for part in text.split(";")]
