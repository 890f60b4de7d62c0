"""The verdict: what the workers were told against what the database holds. Pure; one function for each promise.

A promise that was broken is a line of text; no line means that all held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from tests.chaos.facts import Event, Facts
from tests.chaos.ledger import Act, Told

Lease = tuple[UUID, int]

# The event of history that each way of ending work leaves.
EVENTS = {"finish": "Finished", "fail": "Failed", "cancel": "Canceled"}


def judge(facts: Facts, told: Told) -> list[str]:
    """All promises that were broken."""
    checks = (
        no_stale_write(facts),
        one_holder_after_another(facts),
        reports_are_true(facts, told),
        nothing_ends_by_itself(facts, told),
        told_in_time(facts, told),
        nothing_left(facts),
        nobody_starves(facts),
        (f"a worker met what it should not: {broken}" for broken in told.broken),
    )
    return [line for check in checks for line in check]


def successors(facts: Facts) -> dict[Lease, Event]:
    """For each lease that somebody else's followed: the beginning of that."""
    by_machine: defaultdict[UUID, list[Event]] = defaultdict(list)
    for event in facts.starts():
        by_machine[event.machine].append(event)
    return {
        (before.machine, before.token): after
        for starts in by_machine.values()
        for before, after in pairwise(sorted(starts, key=lambda start: start.token))
    }


def no_stale_write(facts: Facts) -> Iterator[str]:
    """What a holder wrote was committed under its own lease, before the next claim, while its session was there.

    A transaction is fenced by its session: it lands although an operator took the lease alone away. A finish does not.
    """
    followed = successors(facts)
    revoked = {(event.machine, event.token) for event in facts.ends() if event.event == "Revoked"}
    holders = {(event.machine, event.token): event for event in facts.starts()}
    for write in facts.writes.values():
        ended = facts.session_ends.get(write.session)
        if ended is not None and write.committed > ended:
            yield f"{write} was committed after the end of its session at {ended}"
        if write.machine is None or write.token is None:
            continue
        own = holders.get((write.machine, write.token))
        if own is None or own.session != write.session:
            yield f"{write} was written under a lease of {own}"
        elif write.committed < own.committed:
            yield f"{write} was committed before its lease {own}"
        after = followed.get((write.machine, write.token))
        spared = write.kind == "transact" and (write.machine, write.token) in revoked
        if after is not None and write.committed > after.committed and not spared:
            yield f"stale: {write} was committed after {after}"


def one_holder_after_another(facts: Facts) -> Iterator[str]:
    """Tokens rise with each lease of a machine, and each ends once, in its holder's name, before the next begins."""
    ends: defaultdict[Lease, list[Event]] = defaultdict(list)
    for event in facts.ends():
        ends[event.machine, event.token].append(event)
    last: dict[UUID, int] = {}
    followed = successors(facts)
    for start in facts.starts():
        if start.token <= last.get(start.machine, 0):
            yield f"the token did not rise: {start} after {last[start.machine]}"
        last[start.machine] = start.token
        ended = ends.pop((start.machine, start.token), [])
        if len(ended) != 1:
            yield f"{start} ended {len(ended)} times: {ended}"
            continue
        (end,) = ended
        if end.session != start.session:
            yield f"{start} was ended by another session: {end}"
        after = followed.get((start.machine, start.token))
        if after is not None and end.committed > after.committed:
            yield f"two holders at once: {end} came after {after}"
    for lease, without in ends.items():
        yield f"{lease} ended without having begun: {without}"


def reports_are_true(facts: Facts, told: Told) -> Iterator[str]:
    """What was told to have happened is there, what was told to have failed is not; so for what was found out later."""
    events = {(event.machine, event.token, event.event): event for event in facts.events}
    for act in told.acts:
        happened = _happened(act, facts, events)
        claimed = {"ok": True, "failed": False, "unknown": act.committed}[act.outcome]
        if claimed is not None and happened is not claimed:
            yield f"{act} was told to have {'happened' if claimed else 'failed'}, and it is not so"


def _happened(act: Act, facts: Facts, events: dict[tuple[UUID | None, int | None, str], Event]) -> bool | None:
    """Whether the act is in the database; None if that cannot be told from what another act left."""
    if act.kind in ("claim", "transact"):
        return act.nonce in facts.writes
    ended = events.get((act.machine, act.token, EVENTS[act.kind]))
    if act.kind == "finish":
        # Both or neither: the callback's row and the end of the lease.
        return (act.nonce in facts.writes) if (ended is not None) >= (act.nonce in facts.writes) else None
    if act.kind == "fail":
        return ended is not None and ended.cause == act.nonce
    # A session that is closed cancels, too.
    return True if ended is not None and act.outcome == "ok" else (None if ended is not None else False)


def nothing_ends_by_itself(facts: Facts, told: Told) -> Iterator[str]:
    """A lease began, was finished or failed together with what its callback wrote, or because somebody asked for it."""
    finishes = {(write.machine, write.token) for write in facts.writes.values() if write.kind == "finish"}
    failures = {act.nonce for act in told.acts if act.kind == "fail"}
    claims = Counter(write.session for write in facts.writes.values() if write.kind == "claim")
    starts = Counter(event.session for event in facts.starts())
    for session in claims.keys() | starts.keys():
        if claims[session] != starts[session]:
            yield f"session {session} has {starts[session]} leases of {claims[session]} claims that were committed"
    finished = {(event.machine, event.token) for event in facts.ends() if event.event == "Finished"}
    for lease in finished ^ finishes:
        yield f"{lease} was {'finished without' if lease in finished else 'not finished in spite of'} its writing"
    for event in facts.ends():
        if event.event == "Failed" and event.cause not in failures:
            yield f"nobody failed {event}"


def told_in_time(facts: Facts, told: Told) -> Iterator[str]:
    """Nobody was told that a lease is its own after the database had given the machine to somebody else.

    Only leases that went with their session: one that an operator took away is noticed at its end.
    """
    followed = successors(facts)
    lost = {(event.machine, event.token): event for event in facts.ends() if event.event == "Lost"}
    for belief in told.beliefs:
        lease = (belief.machine, belief.token)
        after = followed.get(lease)
        if lease in lost and after is not None and belief.at > after.committed.timestamp():
            at = datetime.fromtimestamp(belief.at, after.committed.tzinfo)
            yield f"told at {at} that it was the holder: {belief}, after {after}"


def nothing_left(facts: Facts) -> Iterator[str]:
    """No lease and no session outlives the workers and a collection."""
    if facts.leases_left or facts.sessions_left:
        yield f"{facts.leases_left} leases and {facts.sessions_left} sessions were left"


def nobody_starves(facts: Facts) -> Iterator[str]:
    """Every machine was finished, or waits for its backoff."""
    finished = {event.machine for event in facts.events if event.event == "Finished"}
    for machine in facts.machines:
        if machine not in finished and machine not in facts.waiting:
            yield f"machine {machine} was never finished and is in no backoff"
