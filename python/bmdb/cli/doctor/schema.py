"""The schema: its version, and whether all that migrations made is there and works."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from bmdb import _core
from bmdb.cli.doctor.finding import Finding, note, ok, problem, warning
from bmdb.cli.doctor.probe import Probe

# What the newest migrations make, by table; a test compares it with a database that they made.
INDEXES: dict[str, tuple[str, ...]] = {
    "bmdb_schema": ("bmdb_schema_pkey",),
    "machine_agent_heartbeat": ("machine_agent_heartbeat_pkey",),
    "machine_agent_started": (
        "machine_agent_started_pkey",
        "machine_agent_started_public_key_idx",
    ),
    "machine_hardware_report": ("machine_hardware_report_pkey",),
    "machine_os_installation_report": ("machine_os_installation_report_pkey",),
    "machine_os_installation_request": ("machine_os_installation_request_pkey",),
    "machine_provided": (
        "machine_provided_pkey",
        "machine_provided_provider_id_key",
    ),
    "machines": ("machines_pkey",),
    "process_eligibility": ("process_eligibility_pkey",),
    "process_exclusion": (
        "process_exclusion_excluded_idx",
        "process_exclusion_pkey",
    ),
    "process_watch": (
        "process_watch_pkey",
        "process_watch_tag_idx",
    ),
    "processes": ("processes_pkey",),
    "sessions": ("sessions_pkey",),
    "transaction_key": (
        "transaction_key_marked_idx",
        "transaction_key_pkey",
    ),
    "work": (
        "work_pkey",
        "work_session_lease_idx",
    ),
    "work_attention": ("work_attention_due_idx",),
    "work_backoff": ("work_backoff_pkey",),
    "work_history": (
        "work_history_machine_idx",
        "work_history_session_idx",
        "work_history_timestamp_idx",
    ),
    "work_hold": ("work_hold_pkey",),
    "work_loss": (
        "work_loss_pkey",
        "work_loss_quarantined_idx",
    ),
    "work_token": ("work_token_pkey",),
}
TRIGGERS = ("work_exclusion", "work_exclusion_moved")


def _version(probe: Probe) -> int:
    """The version of the schema; 0 where there is none."""
    if not probe.ask("doctor_standing")[0].migrated:
        return 0
    version: int = probe.ask("schema_version")[0].version
    return version


def version(probe: Probe) -> Iterator[Finding]:
    """Whether schema and library fit."""
    found, latest = _version(probe), _core.latest_schema_version()
    facts = {"version": found, "latest": latest}
    if found == 0:
        yield problem("schema", "this database has no schema of bmdb", "run `bmdb migrate`", **facts)
    elif found < latest:
        text = f"the schema has version {found}, and this library wants {latest}"
        yield problem("schema", text, "run `bmdb migrate`: older workers go on meanwhile", **facts)
    elif found > latest:
        text = f"the schema has version {found}, and this library knows {latest} only"
        yield problem("schema", text, "upgrade pybmdb here", **facts)
    else:
        yield ok("schema", f"the schema has version {found}, the latest", **facts)


def _current(probe: Probe) -> bool:
    return _version(probe) == _core.latest_schema_version()


def indexes(probe: Probe) -> Iterator[Finding]:
    """Whether each index that a migration made is there and can be used."""
    if not _current(probe):
        yield note("indexes", "what should be there is known for the latest schema only")
        return
    found = {(row.table_name, row.name): row.valid for row in probe.ask("doctor_indexes", list(INDEXES))}
    wrong = False
    for table, name in ((table, name) for table, names in INDEXES.items() for name in names):
        if (table, name) not in found:
            wrong = True
            advice = "build it again as the migrations do, but concurrently"
            yield problem("indexes", f"index {name} of {table} is missing", advice, table=table, index=name)
    for (table, name), valid in found.items():
        if not valid:
            wrong = True
            advice = f"REINDEX INDEX CONCURRENTLY {name}"
            yield problem(
                "indexes", f"index {name} of {table} is invalid: nothing uses it", advice, table=table, index=name
            )
    if not wrong:
        yield ok("indexes", f"all {sum(map(len, INDEXES.values()))} indexes are there and valid")


def triggers(probe: Probe) -> Iterator[Finding]:
    """Whether exclusion is enforced, and whether changes of tags still wake workers."""
    if not _current(probe):
        yield note("triggers", "what should be there is known for the latest schema only")
        return
    found = {(row.table_name, row.name): row.enabled for row in probe.ask("doctor_triggers")}
    wrong = False
    for name in TRIGGERS:
        if not found.get(("work", name)):
            wrong = True
            state = "disabled" if ("work", name) in found else "missing"
            text = f"trigger {name} of work is {state}: exclusion is not enforced"
            advice = f"enable trigger {name} again" if ("work", name) in found else "make it again as the migrations do"
            yield problem("triggers", text, advice, table="work", trigger=name)
    for (table, name), enabled in found.items():
        if not enabled and table != "work":
            wrong = True
            text = f"trigger {name} of {table} is disabled: workers find its changes on their next sweep only"
            yield warning("triggers", text, f"enable trigger {name} of {table} again", table=table, trigger=name)
    if not wrong:
        yield ok("triggers", "the triggers that enforce exclusion and note changes fire")


def unmigrated(probe: Probe) -> bool:
    """Whether there is nothing to look at. Tables that this role may not read are there all the same."""
    try:
        return _version(probe) == 0
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        return True
