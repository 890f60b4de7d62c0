"""The role that workers connect as: what it may do, and what it brings to each session."""

from __future__ import annotations

from collections.abc import Iterator

from bmdb.cli.doctor.finding import Finding, note, ok, problem, warning
from bmdb.cli.doctor.probe import Probe
from bmdb.cli.doctor.schema import unmigrated

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
# What a worker does, by its statements: a lock on a row needs UPDATE. Of tags it is reading: which are written is up to
# the processes.
NEEDED: dict[str, tuple[str, ...]] = {
    "bmdb_schema": ("SELECT",),
    "machines": ("SELECT", "UPDATE"),
    "process_eligibility": _ALL,
    "process_exclusion": ("SELECT", "INSERT", "DELETE"),
    "process_watch": _ALL,
    "processes": ("SELECT", "INSERT", "UPDATE"),
    "sessions": _ALL,
    "transaction_key": _ALL,
    "work": _ALL,
    "work_attention": _ALL,
    "work_backoff": _ALL,
    "work_history": ("SELECT", "INSERT"),
    "work_hold": ("SELECT",),
    "work_loss": _ALL,
    "work_token": ("SELECT", "INSERT", "UPDATE"),
}
# Milliseconds. A heartbeat is sent every half interval (by default 2.5 s), a callback may well take seconds.
SHORT_STATEMENT = 10_000
SHORT_IDLE = 60_000
BROKEN = 1_000


def standing(probe: Probe) -> Iterator[Finding]:
    """What the role may do beyond tables: use the schema, migrate it, and end the backend of a holder that is stuck."""
    (row,) = probe.ask("doctor_standing")
    facts = {
        "role": row.role,
        "superuser": row.superuser,
        "schema": row.schema,
        "may_migrate": bool(row.superuser or (row.creates and row.owns is not False)),
        "may_signal": bool(row.superuser or row.signals),
    }
    if row.schema is None or not row.usable:
        advice = f"GRANT USAGE ON SCHEMA … TO {row.role}, or set its search_path"
        yield problem("role", f"{row.role} finds no schema that it may use", advice, **facts)
    elif row.superuser:
        text = f"{row.role} is a superuser: workers need only read and write bmdb's tables"
        yield note("role", text, "make a role for the workers, and keep this one for migrations", **facts)
    elif facts["may_migrate"]:
        yield ok("role", f"{row.role} may use schema {row.schema}, and migrate it", **facts)
    else:
        text = f"{row.role} may use schema {row.schema}, but not migrate it"
        yield note(
            "role", text, "run `bmdb migrate` as the owner of the tables; workers need no more than this", **facts
        )
    if not facts["may_signal"]:
        text = f"{row.role} may not end backends of other roles: a worker of theirs that is stopped may keep its locks"
        yield note("role", text, f"let all workers share one role, or GRANT pg_signal_backend TO {row.role}", **facts)


def privileges(probe: Probe) -> Iterator[Finding]:
    """Whether it may do to each table what a worker does. There are no sequences: ids and tokens need none."""
    if unmigrated(probe):
        yield note("privileges", "there are no tables to have privileges on")
        return
    pairs = [(table, privilege) for table, several in NEEDED.items() for privilege in several]
    missing = probe.ask("doctor_privileges", [table for table, _ in pairs], [privilege for _, privilege in pairs])
    for row in missing:
        lacking = ", ".join(row.missing)
        text = f"{probe.info.user} lacks {lacking} on {row.name}"
        advice = f"GRANT {lacking} ON {row.name} TO {probe.info.user}"
        yield problem("privileges", text, advice, table=row.name, missing=list(row.missing))
    if not missing:
        yield ok("privileges", f"{probe.info.user} may do all that a worker does to bmdb's tables and to tags")


def isolation(probe: Probe) -> Iterator[Finding]:
    """The isolation and access mode that a transaction gets which asks for none."""
    found = probe.settings("default_transaction_isolation", "default_transaction_read_only")
    level, read_only = found["default_transaction_isolation"], found["default_transaction_read_only"] == "on"
    facts = {"isolation": level, "read_only": read_only}
    if read_only:
        text = f"transactions of {probe.info.user} only read unless they ask to write: bmdb asks, your own may not"
        advice = f"reset default_transaction_read_only for role {probe.info.user}, or for the database"
        yield warning("isolation", text, advice, **facts)
    if level != "read committed":
        text = f"the default isolation is {level}: bmdb asks for what it needs, your own SQL may meet conflicts"
        advice = f"set default_transaction_isolation = 'read committed' for role {probe.info.user}, unless it is meant"
        yield note("isolation", text, advice, **facts)
    elif not read_only:
        yield ok("isolation", "transactions that ask for nothing are read committed and may write", **facts)


def timeouts(probe: Probe) -> Iterator[Finding]:
    """Limits of the role, the database or the server that end what a worker does."""
    limits = {
        "statement_timeout": (SHORT_STATEMENT, "statements", "claims, collection and your callbacks' statements fail"),
        "transaction_timeout": (SHORT_IDLE, "transactions", "callbacks that take longer fail, however often they run"),
        "idle_in_transaction_session_timeout": (SHORT_IDLE, "idle transactions", "callbacks that wait are cut off"),
        "idle_session_timeout": (SHORT_IDLE, "idle connections", "heartbeats are lost"),
        "lock_timeout": (SHORT_STATEMENT, "waits for a lock", "ends of work that meet another transaction fail"),
    }  # fmt: skip
    found = {name: int(value) for name, value in probe.settings(*limits).items()}
    fine = True
    for name, (short, what, consequence) in limits.items():
        limit = found.get(name, 0)
        if limit == 0:
            continue
        fine = False
        text = f"{name} ends {what} after {limit / 1000:g} s: {consequence}"
        advice = f"set {name} = 0 for role {probe.info.user}, or a time that nothing sound takes"
        facts = {"setting": name, "milliseconds": limit}
        if limit <= BROKEN:
            yield problem("timeouts", text, advice, **facts)
        elif limit < short:
            yield warning("timeouts", text, advice, **facts)
        else:
            yield note("timeouts", text, advice, **facts)
    if fine:
        yield ok("timeouts", "no limit of the role or the server ends what a worker does")
