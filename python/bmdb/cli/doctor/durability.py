"""What a crash or a failover of the server takes with it."""

from __future__ import annotations

from collections.abc import Iterator

from bmdb.cli.doctor.finding import Finding, note, ok, problem, warning
from bmdb.cli.doctor.probe import Probe


def storage(probe: Probe) -> Iterator[Finding]:
    """Whether a commit that was reported survives the server."""
    found = probe.settings("fsync", "full_page_writes", "synchronous_commit")
    if found["fsync"] == "off":
        text = "fsync is off: after a crash of the machine the database may be damaged, leases and all"
        yield problem("durability", text, "set fsync = on; off is for databases that are thrown away", **found)
    elif found["full_page_writes"] == "off":
        text = "full_page_writes is off: a crash in the middle of a write may damage a page"
        yield warning(
            "durability", text, "set full_page_writes = on, unless the file system cannot tear pages", **found
        )
    if found["synchronous_commit"] == "off":
        text = "synchronous_commit is off: a crash takes back leases and ends that were reported"
        yield problem("durability", text, "set synchronous_commit = on for the workers' role", **found)
    elif found["fsync"] == "on" and found["full_page_writes"] == "on":
        yield ok(
            "durability",
            f"a commit is on disk when it is reported (synchronous_commit {found['synchronous_commit']})",
            **found,
        )


def replication(probe: Probe) -> Iterator[Finding]:
    """Whether a standby that is promoted has what was committed."""
    found = probe.settings("synchronous_commit", "synchronous_standby_names")
    standbys = {row.state: row.count for row in probe.ask("doctor_standbys")}
    names, how = found.get("synchronous_standby_names") or "", found["synchronous_commit"]
    count = sum(standbys.values())
    facts = {"synchronous_standby_names": names, "synchronous_commit": how, "standbys": standbys}
    if not names and not count:
        yield note("replication", "no standby follows this server: when it is lost, so is the database", None, **facts)
    elif not names:
        text = f"{count} standbys follow, and no commit waits for them: one that is promoted may lack the last leases"
        advice = "set synchronous_standby_names, or stop all workers before a standby is promoted"
        yield warning("replication", text, advice, **facts)
    elif how in ("local", "off", "remote_write"):
        text = f"synchronous_commit = {how} does not wait until a synchronous standby has a commit on disk"
        yield warning("replication", text, "set synchronous_commit = on for the workers' role", **facts)
    elif not count:
        text = f"no standby is connected, and commits wait for {names}: nothing can be leased until one is back"
        yield problem("replication", text, "start a standby, or take synchronous_standby_names back", **facts)
    else:
        yield ok("replication", f"a commit is on a standby, too, when it is reported ({names})", **facts)
