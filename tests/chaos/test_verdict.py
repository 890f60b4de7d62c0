"""The verdict sees what it is there for: a world in which all is well, and each promise broken in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tests.chaos.facts import Event, Facts, Write
from tests.chaos.ledger import Act, Belief, Told
from tests.chaos.verdict import judge

MACHINE, LOST, NEXT = uuid4(), uuid4(), uuid4()


def at(seconds: float) -> datetime:
    return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def write(kind: str, token: int | None, session: UUID, seconds: float) -> Write:
    return Write(str(uuid4()), kind, MACHINE if token else None, token, session, at(seconds))


class World:
    """A machine that a session loses at 10 s, and another session then finishes."""

    def __init__(self) -> None:
        self.claim, self.second_claim = write("claim", None, LOST, 1), write("claim", None, NEXT, 12)
        self.early = write("transact", 1, LOST, 5)
        self.finish = write("finish", 2, NEXT, 20)
        self.failure = str(uuid4())
        self.facts = Facts(
            machines=[MACHINE],
            writes={each.nonce: each for each in (self.claim, self.second_claim, self.early, self.finish)},
            events=[
                Event(MACHINE, 1, "Started", LOST, None, at(1)),
                Event(MACHINE, 1, "Lost", LOST, None, at(10)),
                Event(MACHINE, 2, "Started", NEXT, None, at(12)),
                Event(MACHINE, 2, "Finished", NEXT, None, at(20)),
            ],
            session_ends={LOST: at(10), NEXT: at(30)},
        )
        self.told = Told(
            acts=[
                Act(self.claim.nonce, "claim", LOST, MACHINE, 1, "ok"),
                Act(self.early.nonce, "transact", LOST, MACHINE, 1, "unknown", True),
                Act(str(uuid4()), "finish", LOST, MACHINE, 1, "failed"),
                Act(self.failure, "fail", LOST, MACHINE, 1, "failed"),
                Act(self.second_claim.nonce, "claim", NEXT, MACHINE, 2, "ok"),
                Act(self.finish.nonce, "finish", NEXT, MACHINE, 2, "ok"),
            ],
            beliefs=[Belief(at(8).timestamp(), LOST, MACHINE, 1), Belief(at(19).timestamp(), NEXT, MACHINE, 2)],
            broken=[],
        )

    def event(self, number: int, **changed: object) -> None:
        self.facts.events[number] = replace(self.facts.events[number], **changed)  # type: ignore[arg-type]

    def move(self, moved: Write, seconds: float) -> None:
        self.facts.writes[moved.nonce] = replace(moved, committed=at(seconds))


def test_a_world_in_order_has_no_fault() -> None:
    world = World()
    assert judge(world.facts, world.told) == []


BREAKING: dict[str, tuple[Callable[[World], object], str]] = {
    "a write after the next claim": (lambda w: (w.move(w.early, 13), w.facts.session_ends.clear()), "stale"),
    "a write after the session's end": (lambda w: w.move(w.early, 11), "after the end of its session"),
    "a write under another's lease": (lambda w: w.event(0, session=NEXT), "written under a lease of"),
    "a token that falls": (lambda w: (w.event(2, token=1), w.event(3, token=1)), "did not rise"),
    "a lease without an end": (lambda w: w.facts.events.pop(1), "ended 0 times"),
    "a lease that ends twice": (lambda w: w.facts.events.append(w.facts.events[3]), "ended 2 times"),
    "two holders at once": (lambda w: w.event(1, committed=at(15)), "two holders"),
    "ok, and not there": (lambda w: w.facts.writes.pop(w.finish.nonce), "told to have happened"),
    "failed, and there": (lambda w: setattr(w.told.acts[5], "outcome", "failed"), "told to have failed"),
    "found out wrongly": (lambda w: w.facts.writes.pop(w.early.nonce), "told to have happened"),
    "failed in spite of a refusal": (
        lambda w: w.event(1, event="Failed", cause=w.failure),
        "told to have failed",
    ),
    "failed by nobody": (lambda w: w.event(1, event="Failed", cause=str(uuid4())), "nobody failed"),
    "finished without its writing": (lambda w: w.event(1, event="Finished"), "finished without"),
    "a claim without a lease": (lambda w: w.facts.writes.pop(w.claim.nonce), "claims that were committed"),
    "told too late": (
        lambda w: w.told.beliefs.append(Belief(at(12.5).timestamp(), LOST, MACHINE, 1)),
        "told at",
    ),
    "a lease left": (lambda w: setattr(w.facts, "leases_left", 1), "were left"),
    "a starved machine": (lambda w: w.facts.machines.append(uuid4()), "never finished"),
    "a worker that broke": (lambda w: w.told.broken.append("KeyError"), "KeyError"),
}


@pytest.mark.parametrize("fault", BREAKING)
def test_a_broken_promise_is_seen(fault: str) -> None:
    world = World()
    breaking, words = BREAKING[fault]
    breaking(world)
    found = judge(world.facts, world.told)
    assert any(words in line for line in found), found
