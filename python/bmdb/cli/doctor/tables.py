"""Whether the tables stay small: dead rows, vacuum, and what holds vacuum back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from bmdb.cli.doctor.finding import Finding, note, ok, warning
from bmdb.cli.doctor.probe import Probe
from bmdb.cli.doctor.schema import unmigrated
from bmdb.cli.durations import show_duration

# The tables whose rows come and go; every claim reads them.
BUSY = ("sessions", "work", "work_attention", "work_backoff", "work_loss", "work_token", "machines")
# Dead rows: more than these, and more than so many times the live ones.
MANY_DEAD = 50_000
DEAD_SHARE = 1.0
# Seconds that a snapshot or a transaction may stay open before it is worth a word.
LONG = 300.0


def vacuum(probe: Probe) -> Iterator[Finding]:
    """How many dead rows there are, and whether autovacuum sees to them."""
    if unmigrated(probe):
        yield note("vacuum", "there are no tables to look at")
        return
    wrong = False
    if probe.settings("autovacuum")["autovacuum"] == "off":
        wrong = True
        text = "autovacuum is off: tables grow with each heartbeat, and claims get slower"
        yield warning("vacuum", text, "set autovacuum = on")
    rows = probe.ask("doctor_tables", list(BUSY))
    for row in rows:
        facts = {"table": row.name, "live": row.live, "dead": row.dead, "bytes": row.bytes, "vacuumed": row.vacuumed}
        if not row.automatic:
            wrong = True
            yield warning(
                "vacuum", f"autovacuum is off for {row.name}", f"reset autovacuum_enabled of {row.name}", **facts
            )
        if row.dead > MANY_DEAD and row.dead > DEAD_SHARE * row.live:
            wrong = True
            since = (
                "never"
                if row.vacuumed is None
                else f"{show_duration((datetime.now(UTC) - row.vacuumed).total_seconds())} ago"
            )
            text = f"{row.name} has {row.dead:,} dead rows beside {row.live:,} live ones, and was last vacuumed {since}"
            advice = f"see what holds vacuum back (old transactions, below), then VACUUM {row.name}"
            yield warning("vacuum", text, advice, **facts)
    if not wrong:
        dead = sum(row.dead for row in rows)
        yield ok("vacuum", f"{dead:,} dead rows in all tables that claims read; autovacuum sees to them", dead=dead)


def horizon(probe: Probe) -> Iterator[Finding]:
    """Transactions, prepared transactions and replication slots that keep vacuum from removing what is dead."""
    rows = probe.ask("doctor_horizon", LONG)
    for row in rows:
        facts = {"kind": row.kind, "name": row.name, "owner": row.owner, "seconds": row.seconds}
        age = "" if row.seconds is None else f", open for {show_duration(row.seconds)}"
        if row.kind == "transaction":
            whose = f"{row.owner} ({row.application or 'no application name'}, pid {row.name}, {row.state}{age})"
            text = f"a transaction of {whose} holds vacuum back"
            advice = f"end it where it began, or call pg_terminate_backend({row.name}) at the server"
        elif row.kind == "prepared transaction":
            text = f"prepared transaction {row.name} of {row.owner}{age} holds vacuum back, and its locks"
            advice = "end it by COMMIT PREPARED or ROLLBACK PREPARED: nobody else will"
        else:
            text = f"replication slot {row.name} is {row.state} and holds vacuum back"
            advice = "let its standby come back, or drop the slot"
        yield warning("old transactions", text, advice, **facts)
    (standing,) = probe.ask("doctor_standing")
    if not (standing.superuser or standing.sees):
        text = "what other roles have open cannot be seen"
        yield note("old transactions", text, f"run this with a member of pg_monitor, or GRANT it to {standing.role}")
    elif not rows:
        yield ok("old transactions", f"nothing older than {show_duration(LONG)} holds vacuum back")
