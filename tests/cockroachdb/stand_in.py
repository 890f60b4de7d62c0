"""A stand-in for CockroachDB in front of PostgreSQL: its banner, its retry protocol, and what it would refuse.

It is no CockroachDB. It translates the few texts that PostgreSQL would not take, plays that RELEASE SAVEPOINT
cockroach_restart commits and that going back to it begins on a new snapshot, and refuses, by name, what the
documentation says is not there or has no effect. Conflicts are PostgreSQL's own, or injected by the proxy. What passes
here is known to be free of what was thought of; that CockroachDB takes it, only CockroachDB tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tests.proxy.framing import Message
from tests.proxy.statements import plain

_BEGIN_AGAIN = "ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SAVEPOINT cockroach_restart"
_FAMILY = re.compile(r",\s*FAMILY \w+ \([^)]*\)")
_CHANGES = re.compile(r"(?:INSERT|DELETE|UPDATE)\b")
_REFUSED = [
    (r"\bpg_(?:try_)?advisory_", "advisory locks are accepted and do nothing"),
    (r"\bLISTEN\b|\bpg_notify\b|^NOTIFY\b", "there is no LISTEN and NOTIFY"),
    (r"\bxid8\b|\bpg_current_xact_id|\bpg_xact_status\b|\bxmin\b", "there are no transaction ids"),
    (r"\bctid\b|\btableoid\b", "rows have no place"),
    (r"\bpg_stat_|\bpg_locks\b|\bpg_terminate_backend\b|\bpg_blocking_pids\b", "there are no backends to look at"),
    (r"\bpg_control_system\b|\bpg_walfile_name\b|\bpg_current_wal_lsn\b", "there is no write-ahead log to ask about"),
    (r"\bhashtextextended\b|\buuid_hash\b|\bmake_interval\b", "there is no such function"),
    (r"\bCOLLATE \"C\"", 'there is no collation "C"'),
    (r"\bFOR (?:KEY )?SHARE\b|\bFOR NO KEY\b", "it locks nothing under SERIALIZABLE"),
    (r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|TRIGGER)\b|^DO \$", "there is no PL/pgSQL in 22.2"),
    (r"\bPARTITION (?:BY|OF)\b|\bUSING brin\b|\bfillfactor\b|\bautovacuum", "tables are not stored like that"),
    (r"\bsessions\b[^;()]*\bSKIP LOCKED\b", "SKIP LOCKED cannot be used for tables with multiple column families"),
    (r"\bREAD COMMITTED\b|'read committed'", "the library relies on SERIALIZABLE here"),
    (r"\bSET (?:jit|plan_cache_mode|enable_seqscan)\b", "there is no such setting"),
]


class StandIn:
    """Speaks as CockroachDB of this version would, as far as the library can tell.

    `refused` says what it had to refuse, and why.
    """

    def __init__(self, version: str = "v24.1.0") -> None:
        self.version = version
        self.refused: list[tuple[str, str]] = []
        self._rules = [(re.compile(pattern, re.IGNORECASE), why) for pattern, why in _REFUSED]
        year, release = (int(number) for number in version.removeprefix("v").split(".")[:2])
        if (year, release) < (22, 2):
            self._rules.append((re.compile(r"\bSKIP LOCKED\b"), "SKIP LOCKED is there from 22.2 on"))

    def __call__(self, direction: str, message: Message) -> Iterable[Message]:
        """What goes on in place of a message."""
        if direction == "to_client":
            yield message
            if message.type == b"R" and message.payload == b"\0\0\0\0":
                yield Message(b"S", b"crdb_version\0CockroachDB CCL " + self.version.encode() + b" (stand-in)\0")
        elif message.type == b"Q":
            yield Message(b"Q", self._said(message.payload.rstrip(b"\0")) + b"\0")
        elif message.type == b"P":
            name, text, rest = message.payload.split(b"\0", 2)
            yield Message(b"P", name + b"\0" + self._said(text) + b"\0" + rest)
        else:
            yield message

    def _said(self, text: bytes) -> bytes:
        return self.translated(text.decode()).encode()

    def translated(self, text: str) -> str:
        """The text for PostgreSQL; one that it must refuse if CockroachDB would."""
        code = plain(text)
        why = self._objection(code)
        if why is not None:
            self.refused.append((code, why))
            return f"CockroachDB refuses this: {why}"
        if code == "ROLLBACK TO SAVEPOINT cockroach_restart":
            return _BEGIN_AGAIN
        if code == "RELEASE SAVEPOINT cockroach_restart":
            # The transaction is over with it, and what follows is a COMMIT of nothing.
            return "SELECT 1; COMMIT AND CHAIN"
        if code.startswith("BEGIN"):
            code = code.replace(" PRIORITY HIGH", "")
            return code.replace(" AS OF SYSTEM TIME follower_read_timestamp()", " READ ONLY")
        if "CREATE TABLE" in code:
            return _FAMILY.sub("", code)
        if re.search(r"\bversion\(\)", code):
            return code.replace("version()", f"'CockroachDB CCL {self.version} (stand-in)'::text")
        return text

    def _objection(self, code: str) -> str | None:
        for pattern, why in self._rules:
            if pattern.search(code):
                return why
        for statement in code.split(";"):
            changed = _changed(statement)
            if len(set(changed)) < len(changed):
                return "multiple modification subqueries of the same table are not supported"
            if any(_CHANGES.match(body) and "RETURNING" not in body for body in _within(statement)):
                return "WITH clause does not return any columns: missing RETURNING clause?"
        return None


def _changed(statement: str) -> list[str]:
    """The tables that a statement changes, each as often as it does so."""
    words = re.findall(r'[\w."]+', re.sub(r"'[^']*'", "", statement))
    tables = []
    for before, word, after, later in zip(["", *words], words, [*words[1:], ""], [*words[2:], "", ""], strict=False):
        if word.upper() in ("INSERT", "DELETE"):
            tables.append(later.strip('"'))
        elif word.upper() == "UPDATE" and before.upper() not in ("FOR", "DO", "ON"):
            tables.append(after.strip('"'))
    return tables


def _within(statement: str) -> Iterator[str]:
    """What stands in the parentheses of each part of WITH."""
    for found in re.finditer(r"\bAS (?:MATERIALIZED )?\(", statement):
        depth, end = 1, found.end()
        while depth and end < len(statement):
            depth += {"(": 1, ")": -1}.get(statement[end], 0)
            end += 1
        yield statement[found.end() : end].strip()
