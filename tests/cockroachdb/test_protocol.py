"""CockroachDB's retry protocol, played by the stand-in: what goes with BEGIN is done again after a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.cockroachdb.stand_in import StandIn
from tests.proxy import Proxy

PROCESS = "Mend"
RELEASE = "RELEASE SAVEPOINT cockroach_restart"
RESTART = "ROLLBACK TO SAVEPOINT cockroach_restart"
NewMachines = Callable[[int], list[UUID]]


@pytest.mark.parametrize("where", [RELEASE, "INSERT INTO machine_agent_heartbeat"])
def test_an_end_that_is_restarted_ends_the_lease_once(
    roach: bmdb.Connection, roach_proxy: Proxy, new_machines: NewMachines, where: str
) -> None:
    """Going back to the savepoint undoes the end of the lease too: then the callback's writes alone would be kept."""
    (machine,) = new_machines(1)
    runs: list[int] = []

    def commit(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO machine_agent_heartbeat VALUES ($1, now())", machine))

    with roach.start_session(interval=60) as session:
        work = session.work(PROCESS, lambda q: [machine])
        with roach_proxy.injecting("40001", where) as told:
            work.finish(commit)
        assert told.hits == 1 and len(runs) == (2 if where == RELEASE else 1)
        assert roach_proxy.count(RESTART) == 1
        assert session.transact(lambda q: q.fetch_value("SELECT count(*) FROM work")) == 0
    assert [event.event for event in roach.history_of(machine)] == ["Started", "Finished"]


def test_a_claim_whose_release_was_not_answered_is_found_in_history(
    roach: bmdb.Connection, roach_proxy: Proxy, new_machines: NewMachines
) -> None:
    """Transactions have no ids to ask about: the event that goes with the lease tells."""
    (machine,) = new_machines(1)
    runs: list[int] = []

    def retrieve(q: bmdb.Queries) -> Any:
        runs.append(1)
        return [machine]

    with roach.start_session(interval=60) as session:
        with roach_proxy.injecting("40003", RELEASE, executed=True):
            work = session.work(PROCESS, retrieve)
        with roach_proxy.injecting("40003", RELEASE, executed=True):
            work.finish(lambda q: q.new_machine())
    assert runs == [1]
    assert [event.event for event in roach.history_of(machine)] == ["Started", "Finished"]


def test_the_fence_stands_after_a_restart(roach: bmdb.Connection, roach_proxy: Proxy) -> None:
    """Going back to the savepoint undoes the fence too, so it is made again before the callback runs again."""
    fence = "INSERT INTO session_fence"
    with roach.start_session(interval=60) as session:
        before = roach_proxy.count(fence)
        with roach_proxy.injecting("40001", RELEASE) as told:
            session.transact(lambda q: q.new_machine())
        assert told.hits == 1
        assert roach_proxy.count(fence) == before + 2


@pytest.mark.parametrize("sqlstate", ["40001", "XX000"])
def test_a_fence_that_fails_after_a_restart_lets_nobody_in(
    roach: bmdb.Connection, roach_proxy: Proxy, sqlstate: str
) -> None:
    """A conflict is one more restart; any other error is raised, and the callback has not run without a fence."""
    fence = "INSERT INTO session_fence"
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO machines DEFAULT VALUES"))

    with roach.start_session(interval=60) as session:
        with roach_proxy.injecting("40001", RELEASE), roach_proxy.injecting(sqlstate, fence, skip=1):
            if sqlstate == "40001":
                session.transact(write)
            else:
                with pytest.raises(bmdb.DatabaseError):
                    session.transact(write)
        stored = session.transact(lambda q: q.fetch_value("SELECT count(*) FROM machines"))
    assert (len(runs), stored) == ((2, 1) if sqlstate == "40001" else (1, 0))


def test_collection_goes_before_everybody_else(roach: bmdb.Connection, roach_proxy: Proxy) -> None:
    """What is in its way is ended by the server, which a priority says; nothing else of the library's asks for one."""
    roach.collect()
    urgent = roach_proxy.statements("PRIORITY HIGH")
    assert [statement.text for statement in urgent] == [
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE PRIORITY HIGH; SAVEPOINT cockroach_restart"
    ]


def test_nothing_is_sent_at_a_weaker_level(
    roach: bmdb.Connection, roach_proxy: Proxy, new_machines: NewMachines
) -> None:
    """Newer servers have READ COMMITTED, in which claims would not be safe: all is SERIALIZABLE, whatever is asked."""
    new_machines(1)
    with roach.start_session(interval=60) as session:
        session.transact(lambda q: q.fetch_value("SELECT 1"), isolation="read committed")
        session.work(PROCESS, bmdb.eligible(lacking=["agent_heartbeat"])).finish()
    sent = " ".join(statement.text for statement in roach_proxy.statements())
    assert "committed" not in sent.lower().replace("settled", "")


def test_what_cannot_be_had_is_refused_in_words(
    roach: bmdb.Connection, roach_dsn: str, new_machines: NewMachines
) -> None:
    """A hint, a connection of the user's: neither fails obscurely."""
    with roach.start_session(interval=60) as session:
        with pytest.raises(bmdb.ConfigError, match="no hints"):
            session.transact(lambda q: q.notify(PROCESS))
        with (
            psycopg.connect(roach_dsn) as theirs,
            pytest.raises(bmdb.ConfigError, match="run_transaction"),
        ):
            session.transact(lambda q: None, connection=theirs)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SELECT pg_advisory_xact_lock(1)", "advisory"),
        ("LISTEN x", "LISTEN"),
        ("WITH a AS (DELETE FROM work RETURNING 1) INSERT INTO work SELECT 1", "same table"),
        ("WITH a AS MATERIALIZED (DELETE FROM work WHERE (a, b) IN (SELECT 1, 2)) SELECT 1", "RETURNING"),
        ("SELECT 1 FROM sessions FOR UPDATE SKIP LOCKED", "families"),
        ("SELECT 1 FROM sessions FOR KEY SHARE", "locks nothing"),
    ],
)
def test_the_stand_in_refuses_what_it_should(text: str, why: str) -> None:
    stand_in = StandIn()
    assert stand_in.translated(text) != text
    assert [why in reason for _, reason in stand_in.refused] == [True]
    old: Any = StandIn("v22.1.0")
    old.translated("SELECT 1 FROM machines FOR UPDATE SKIP LOCKED")
    assert len(old.refused) == 1
