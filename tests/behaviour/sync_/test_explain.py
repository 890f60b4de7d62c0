# Generated from tests/behaviour/async_/test_explain.py by tools/generate_sync.py: do not edit.
"""`explain`: each thing that keeps a process off a machine is made true, alone; then that thing is told, and no other.

What it tells is held against the claim: a machine is leasable in an explanation exactly when a claim gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines

import bmdb

Sql = psycopg.Connection[Any]
WHY = {"owner": "ada", "reason": "fan noise"}
INSTALL = bmdb.Process(
    "install",
    eligible=bmdb.eligible(
        having=("provided",),
        lacking=("agent_started",),
        where="provider = $1 AND provider_location <> '$2'",
        params=("Equinix",),
        order_by="provider_id DESC",
    ),
    excludes=("wipe",),
)


@dataclass
class Fleet:
    """A machine that `install` needs, and everything to spoil that."""

    connection: bmdb.Connection
    session: bmdb.Session
    sql: Sql
    machine: UUID

    def claimed(self) -> bool:
        """Whether a claim gets it; it is given back at once."""
        try:
            work = self.session.work(INSTALL)
        except bmdb.NothingToDo:
            return False
        work.cancel()
        assert work.machine == self.machine
        return True


def provide(sql: Sql, machine: UUID, provider_id: str = "i-1") -> None:
    sql.execute(
        "INSERT INTO machine_provided (machine_id, provider, provider_id, provider_location)"
        " VALUES (%s, %s, %s, 'fra')",
        [machine, "Equinix", provider_id],
    )


@pytest.fixture
def fleet(connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql) -> Fleet:
    """The machine, whose process is registered."""
    (machine,) = machines(1)
    connection.register(INSTALL)
    provide(sql, machine)
    return Fleet(connection, session, sql, machine)


def leased(fleet: Fleet) -> None:
    fleet.session.work("install", lambda q: [fleet.machine])


def excluded(fleet: Fleet) -> None:
    fleet.session.work("wipe", lambda q: [fleet.machine])


def backing_off(fleet: Fleet) -> None:
    for _ in range(2):
        work = fleet.session.work("install", lambda q: [fleet.machine])
        work.fail("no \x1b[31manswer", bmdb.Backoff(600))


def held(fleet: Fleet) -> None:
    fleet.connection.hold(fleet.machine, "install", **WHY, until=datetime.now(UTC) + timedelta(hours=1))


def held_for_all(fleet: Fleet) -> None:
    fleet.connection.hold(fleet.machine, **WHY)


def quarantined(fleet: Fleet) -> None:
    """Its holder is lost once, which is once too often."""
    fleet.connection.register(replace(INSTALL, quarantine_after=1))
    holder = fleet.connection.start_session(interval=1.0)
    holder.work("install", lambda q: [fleet.machine])
    fleet.sql.execute(
        "UPDATE sessions SET session_deadline = now() - interval '1 s' WHERE session_id = %s", [holder.uuid]
    )
    assert fleet.connection.collect() == (1, 1)


def without_the_tag(fleet: Fleet) -> None:
    fleet.sql.execute("DELETE FROM machine_provided")


def with_the_other(fleet: Fleet) -> None:
    fleet.sql.execute("INSERT INTO machine_agent_started VALUES (%s, now(), 'key')", [fleet.machine])


def elsewhere(fleet: Fleet) -> None:
    fleet.sql.execute("UPDATE machine_provided SET provider = 'Hetzner'")


SPOILED: dict[str, tuple[Callable[[Fleet], None], str, list[str]]] = {
    "leased": (leased, "lease", ["leased by test (session ", "token 2, until ", "unless the session is renewed"]),
    "excluded": (excluded, "exclusion", ["wipe, which excludes it, has it leased by test"]),
    "in backoff": (backing_off, "backoff", ["in backoff until ", "after 2 failures in a row: no \x1b[31manswer"]),
    "held": (held, "hold", ["ada keeps install away since ", " UTC, until ", ": fan noise"]),
    "held for all": (held_for_all, "hold", ["ada keeps every process away", "until that is released: fan noise"]),
    "quarantined": (quarantined, "quarantine", ["in quarantine since ", "after 1 lost holders: test (session "]),
    "without a tag": (without_the_tag, "tag", ["it does not have tag provided, which install asks for"]),
    "with a tag": (with_the_other, "tag", ["it has tag agent_started, and install wants machines without it"]),
    "the condition": (elsewhere, "tag", ["does not hold of it: provider = 'Equinix' AND provider_location <> '$2'"]),
}


@pytest.mark.parametrize(("spoil", "kind", "texts"), SPOILED.values(), ids=list(SPOILED))
def test_the_one_thing_in_the_way_is_told(
    fleet: Fleet, spoil: Callable[[Fleet], None], kind: str, texts: list[str]
) -> None:
    assert fleet.connection.explain(fleet.machine, "install").leasable
    assert fleet.claimed()
    assert fleet.connection.backlog("install") == 1
    spoil(fleet)
    explanation = fleet.connection.explain(fleet.machine, "install")
    assert not explanation.leasable
    assert [(clause.kind, clause.blocks) for clause in explanation.clauses] == [(kind, True)]
    for text in texts:
        assert text in explanation.clauses[0].text
    assert not fleet.claimed()
    assert fleet.connection.backlog("install") == 0


def test_an_eligible_machine_has_a_place_in_the_order_of_the_process(fleet: Fleet, machines: MakeMachines) -> None:
    others = machines(3)
    for machine, provider_id in zip(others, ("i-0", "i-2", "i-3"), strict=True):
        provide(fleet.sql, machine, provider_id)
    fleet.connection.hold(others[2], **WHY)
    [clause] = fleet.connection.explain(fleet.machine, INSTALL).clauses
    assert (clause.kind, clause.blocks) == ("eligible", False)
    assert (clause.facts["position"], clause.facts["of"]) == (2, 3)
    assert "number 2 of 3 in the order of the process; a worker of install last asked at " in clause.text
    assert fleet.connection.backlog(INSTALL) == 3


def test_the_last_poll_is_that_of_a_worker(fleet: Fleet) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    fleet.sql.execute("UPDATE process_eligibility SET seen = %s", [long_ago])
    [clause] = fleet.connection.explain(fleet.machine, "install").clauses
    assert datetime.fromisoformat(clause.facts["last_poll"]) == long_ago
    fleet.claimed()
    [clause] = fleet.connection.explain(fleet.machine, "install").clauses
    assert datetime.now(UTC) - datetime.fromisoformat(clause.facts["last_poll"]) < timedelta(minutes=1)


def test_one_of_several_eligibilities_is_enough(fleet: Fleet) -> None:
    other = bmdb.eligible(having=("hardware_report",))
    with pytest.raises(bmdb.NothingToDo):
        fleet.session.work("install", other)
    assert len(fleet.connection.eligibilities("install")) == 2
    assert fleet.connection.explain(fleet.machine, "install").leasable
    assert fleet.connection.backlog("install") == 1
    without_the_tag(fleet)
    told = fleet.connection.explain(fleet.machine, "install")
    assert {clause.facts["tag"] for clause in told.clauses} == {"provided", "hardware_report"}


def test_what_has_gone_since_is_told_and_is_no_error(fleet: Fleet) -> None:
    fleet.sql.execute("CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines, height int)")
    fleet.connection.register(bmdb.Process("rack", eligible=bmdb.eligible(having=("rack",), where="height > 1")))
    fleet.sql.execute("ALTER TABLE machine_rack DROP COLUMN height")
    [clause] = fleet.connection.explain(fleet.machine, "rack").clauses
    assert clause.blocks and clause.facts["sqlstate"] == "42703" and "height" in clause.text
    fleet.sql.execute("DROP TABLE machine_rack")
    [clause] = fleet.connection.explain(fleet.machine, "rack").clauses
    assert clause.blocks and "this database has no such tag" in clause.text
    with pytest.raises(ValueError, match="rack"):
        fleet.connection.backlog("rack")


def test_a_condition_is_not_judged_where_a_tag_is_not_there(fleet: Fleet) -> None:
    wanted = bmdb.eligible(having=("provided",), lacking=("rack",), where="provider = 'Equinix'")
    fleet.connection.register(bmdb.Process("rack", eligible=wanted, watch=False))
    told = fleet.connection.explain(fleet.machine, "rack")
    assert [clause.facts.get("tag") for clause in told.clauses] == ["rack"]


def test_queries_of_their_own_are_told_too(fleet: Fleet) -> None:
    wanted = bmdb.eligible(sql="SELECT machine_id FROM machine_provided WHERE provider_id = $1", params=("i-2",))
    fleet.connection.register(bmdb.Process("audit", eligible=wanted))
    [clause] = fleet.connection.explain(fleet.machine, "audit").clauses
    assert clause.text.endswith("does not return it: SELECT machine_id FROM machine_provided WHERE provider_id = 'i-2'")
    fleet.sql.execute("UPDATE machine_provided SET provider_id = 'i-2'")
    assert fleet.connection.explain(fleet.machine, "audit").leasable


def test_what_nobody_can_know_is_said(fleet: Fleet) -> None:
    unknown = fleet.connection.explain(fleet.machine, "instal")
    assert (unknown.leasable, unknown.clauses[0].kind) == (False, "process")
    assert "no worker has registered a process instal" in str(unknown)
    assert fleet.connection.backlog("instal") is None
    fleet.connection.register(bmdb.Process("wipe"))
    callback = fleet.connection.explain(fleet.machine, "wipe")
    assert (callback.leasable, callback.clauses[0].kind) == (True, "process")
    missing = fleet.connection.explain(uuid4(), "install")
    assert (missing.leasable, [clause.kind for clause in missing.clauses]) == (False, ["machine"])


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("$1::smallint < 0", (-(2**15),)),
        ("$1::bigint < 0 AND $2::bigint::text = '-5'", (-(2**63), -5)),
        ("2 -$1::int = 5 AND $2::float8 < 0", (-3, -1.5)),
        (r"$1::text = E'it\'s \\ $1'", (r"it's \ $1",)),
        ("$1::text = $a$it's $1$a$ -- $1", ("it's $1",)),
        ("$1::jsonb ->> 'a' = 'b''' AND $2::numeric < 0", ({"a": "b'"}, Decimal("-1.50"))),
        ("machine_id <> ALL ($1) AND now() > $2", ([UUID(int=0)], datetime(2026, 1, 2, tzinfo=UTC))),
    ],
)
def test_parameters_are_written_into_what_is_registered(fleet: Fleet, where: str, params: tuple[object, ...]) -> None:
    """A claim, which sends them beside the text, and what is told of it without them must agree."""
    wanted = bmdb.eligible(having=("provided",), where=where, params=params)
    work = fleet.session.work("params", wanted)
    work.cancel()
    [kept] = fleet.connection.eligibilities("params")
    assert kept.fingerprint == wanted.fingerprint and kept.version == bmdb.__version__
    assert fleet.connection.explain(fleet.machine, "params").leasable
    assert fleet.connection.backlog("params") == 1
    statement = fleet.connection.eligibility_sql(kept)
    assert fleet.connection._read(lambda q: q.fetch_value(statement)) == fleet.machine


def test_a_former_definition_does_not_count_once_workers_ask_by_another(fleet: Fleet) -> None:
    def declared(where: str) -> bmdb.Process:
        return bmdb.Process("renewed", eligible=bmdb.eligible(having=("provided",), where=where))

    fleet.connection.register(declared("true"))
    fleet.connection.register(declared("false"))
    assert fleet.connection.backlog("renewed") == 1, "for an hour workers of both may be there"
    assert fleet.connection.backlog(declared("false")) == 0
    assert not fleet.connection.explain(fleet.machine, declared("false")).leasable
    fleet.sql.execute("UPDATE process_eligibility SET seen = now() - interval '61 minutes' WHERE condition = 'true'")
    assert fleet.connection.backlog("renewed") == 0
    assert not fleet.connection.explain(fleet.machine, "renewed").leasable
    fleet.sql.execute("UPDATE process_eligibility SET seen = seen - interval '30 days'")
    assert fleet.connection.backlog("renewed") == 0, "that nobody asks changes nothing"


def test_losses_and_failures_are_counted_from_the_last_release(fleet: Fleet) -> None:
    quarantined(fleet)
    assert fleet.connection.release_quarantine(fleet.machine, "install")
    fleet.session.work("install", lambda q: [fleet.machine]).fail("again", bmdb.Backoff(600))
    [clause] = fleet.connection.explain(fleet.machine, "install").clauses
    assert (clause.kind, clause.facts["failures"]) == ("backoff", 1)
    fleet.connection.clear_backoff(fleet.machine, "install", **WHY)
    quarantined(fleet)
    clauses = fleet.connection.explain(fleet.machine, "install").clauses
    [told] = [clause for clause in clauses if clause.kind == "quarantine"]
    assert len(told.facts["lost"]) == told.facts["losses"] == 1


def test_registered_processes_are_told_with_what_their_workers_say(fleet: Fleet) -> None:
    wipe = bmdb.Process(
        "wipe", bmdb.Backoff(5, 50, 1.5), max_hold=90, crash_backoff=bmdb.Backoff(60), quarantine_after=3
    )
    fleet.connection.register(wipe)
    install, told = fleet.connection.registered()
    assert (install.process, install.excludes, install.crash_backoff_initial) == ("install", ["wipe"], None)
    assert (install.backoff_initial, install.backoff_maximum, install.max_hold) == (60, 3600, None)
    assert (told.process, told.excludes, told.crash_backoff_initial, told.quarantine_after) == (
        "wipe",
        ["install"],
        60,
        3,
    )
    assert (told.backoff_initial, told.backoff_maximum, told.backoff_exponent, told.max_hold) == (5, 50, 1.5, 90)
    assert told.version == bmdb.__version__ and told.seen is not None


def test_workers_with_a_callback_are_seen_too(fleet: Fleet, database: str) -> None:
    wipe = bmdb.Process("wipe")
    fleet.connection.register(wipe)
    fleet.sql.execute("UPDATE processes SET process_seen_at = now() - interval '1 hour'")
    with (
        bmdb.connect(database, component="test") as other,
        other.start_session() as session,
    ):
        with pytest.raises(bmdb.NothingToDo):
            session.work(wipe, lambda q: [])
    _, told = fleet.connection.registered()
    assert told.seen is not None and datetime.now(UTC) - told.seen < timedelta(minutes=1)


def test_a_flood_of_eligibilities_is_not_kept(fleet: Fleet) -> None:
    for number in range(40):
        with pytest.raises(bmdb.NothingToDo):
            fleet.session.work("flood", bmdb.eligible(having=("provided",), where="$1 = 0", params=(number + 1,)))
    assert len(fleet.connection.eligibilities("flood")) == 32
