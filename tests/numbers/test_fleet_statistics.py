"""The janitor's gauges: what they count, and what becomes of them when a query fails or a label value vanishes."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb.janitor import BACKLOG, BUILT_IN, FORGET
from tests.conftest import MakeMachines
from tests.database import EmbeddedServer
from tests.numbers.conftest import Scrape, Scraped
from tests.processes import eventually

NEEDS_AGENT = bmdb.eligible(having=["provided"], lacking=["agent_started"])
START = bmdb.Process("ShepherdAgentStart", eligible=NEEDS_AGENT, quarantine_after=1)
ORIGINAL = {
    "active_backoffs",
    "active_work",
    "machines",
    "machines_provided",
    "machines_heartbeating",
    "machines_pending_installation",
    "machines_installed",
    "machines_pending_agent_start",
    "machines_pending_agent_recovery",
}


@pytest.fixture
def provided(machines: MakeMachines, sql: psycopg.Connection[Any]) -> MakeMachines:
    """Makes machines that need an agent."""

    def make(count: int) -> Any:
        made = machines(count)
        for machine in made:
            sql.execute("INSERT INTO machine_provided VALUES (%s, 'Equinix', %s)", [machine, str(machine)])
        return made

    return make


def test_the_nine_of_the_original_keep_their_names() -> None:
    assert {kind.metric for kind in BUILT_IN} >= {f"bmdb_stats_{name}" for name in ORIGINAL}


def test_each_counts_what_it_says(
    scraped: Scrape, session: bmdb.Session, provided: MakeMachines, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    _, second, third = provided(3)
    (silent,) = machines(1)
    sql.execute(
        "INSERT INTO machine_agent_heartbeat SELECT machine_id, now() FROM machines WHERE machine_id = %s", [silent]
    )
    session.work(START)
    session.work("UnitTest1", lambda q: [second]).fail("no", bmdb.Backoff(600))
    session.connection.hold(third, owner="ann", reason="disk")
    page = scraped().scrape()
    assert page["bmdb_stats_machines",] == 4
    assert page["bmdb_stats_machines_provided",] == 3
    assert page["bmdb_stats_machines_heartbeating",] == 1
    assert page["bmdb_stats_machines_pending_agent_start",] == 2
    for zero in ("machines_installed", "machines_pending_installation", "machines_pending_agent_recovery"):
        assert page[f"bmdb_stats_{zero}",] == 0
    assert page["bmdb_stats_active_work", "ShepherdAgentStart"] == 1
    assert page["bmdb_stats_active_backoffs", "UnitTest1"] == 1
    assert page["bmdb_stats_holds", ""] == 1
    assert page["bmdb_stats_sessions", "live"] == 1
    assert page["bmdb_stats_sessions", "expired"] == 0
    assert page["bmdb_stats_collection_lag_seconds",] == 0
    # One of three is leased; the third is held, if it is not the one that was leased.
    left = session.connection.backlog(START)
    assert page["bmdb_stats_backlog", "ShepherdAgentStart"] == left and left in (1, 2)
    assert page["bmdb_stats_quarantines", "ShepherdAgentStart"] == 0


def test_an_expired_session_is_seen_with_its_lag(scraped: Scrape, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
        " session_deadline) VALUES ('gone', '', 5, now() - interval '90 seconds')"
    )
    page = scraped().scrape()
    assert page["bmdb_stats_sessions", "expired"] == 1
    assert 90 <= page["bmdb_stats_collection_lag_seconds",] < 150


def test_a_quarantine_is_counted(
    scraped: Scrape, connection: bmdb.Connection, provided: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    provided(1)
    session = connection.start_session(interval=1)
    session.work(START)
    sql.execute("UPDATE sessions SET session_deadline = now() - interval '1 second'")
    other = scraped()
    eventually(lambda: (connection.collect(), other.scrape()["bmdb_stats_quarantines", "ShepherdAgentStart"] == 1)[1])


def test_a_failing_query_loses_one_gauge_and_says_which(
    scraped: Scrape, provided: MakeMachines, sql: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    provided(2)
    janitor = scraped()
    assert janitor.scrape()["bmdb_stats_machines_heartbeating",] == 0
    sql.execute("ALTER TABLE machine_agent_heartbeat RENAME COLUMN agent_heartbeat_at TO seen")
    for failures in (1, 2):
        page = janitor.scrape()
        # Lost, not stale; the one that needs the same column, too, and nothing else.
        lost = {"machines_heartbeating", "machines_pending_agent_recovery"}
        assert {name for (_, name, process), up in _about(page, "up") if not up and not process} == lost
        for name in lost:
            assert (f"bmdb_stats_{name}",) not in page
            assert page["bmdb_statistic_failures_total", "", name] == failures
        assert page["bmdb_stats_machines",] == 2
        janitor.clock.now += 10
    assert janitor.scrape()["bmdb_statistic_age_seconds", "", "machines_heartbeating"] == 20
    told = [record for record in caplog.records if "machines_heartbeating" in record.getMessage()]
    assert len(told) == 1 and "agent_heartbeat_at" in told[0].getMessage()
    sql.execute("ALTER TABLE machine_agent_heartbeat RENAME COLUMN seen TO agent_heartbeat_at")
    page = janitor.scrape()
    assert page["bmdb_stats_machines_heartbeating",] == 0
    assert page["bmdb_statistic_up", "", "machines_heartbeating"] == 1
    assert page["bmdb_statistic_age_seconds", "", "machines_heartbeating"] == 0


def _about(page: Any, what: str) -> Any:
    return [((key[0], key[2], key[1]), value) for key, value in page.items() if key[0] == f"bmdb_statistic_{what}"]


def test_a_backlog_that_cannot_be_counted_loses_that_process_only(
    scraped: Scrape, connection: bmdb.Connection, provided: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    provided(1)
    sql.execute("CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines, name text)")
    racked = bmdb.Process("Rack", eligible=bmdb.eligible(having=["provided"], lacking=["rack"]))
    with connection.start_session() as session:
        session.work(START).cancel()
        session.work(racked).cancel()
    janitor = scraped()
    page = janitor.scrape()
    assert (page["bmdb_stats_backlog", "Rack"], page["bmdb_stats_backlog", "ShepherdAgentStart"]) == (1, 1)
    sql.execute("DROP TABLE machine_rack")
    page = janitor.scrape()
    assert ("bmdb_stats_backlog", "Rack") not in page
    assert page["bmdb_statistic_up", "Rack", "backlog"] == 0
    assert page["bmdb_stats_backlog", "ShepherdAgentStart"] == 1


def test_what_vanished_reads_zero_and_is_forgotten_in_the_end(
    scraped: Scrape, session: bmdb.Session, machines: MakeMachines
) -> None:
    janitor = scraped()
    (machine,) = machines(1)
    work = session.work("UnitTest1", lambda q: [machine])
    assert janitor.scrape()["bmdb_stats_active_work", "UnitTest1"] == 1
    work.cancel()
    for seconds in (1.0, FORGET - 2.0):
        janitor.clock.now += seconds
        assert janitor.scrape()["bmdb_stats_active_work", "UnitTest1"] == 0
    janitor.clock.now += 2.0
    assert ("bmdb_stats_active_work", "UnitTest1") not in janitor.scrape()


def test_a_registered_process_reads_zero_from_the_first_time_on(scraped: Scrape, connection: bmdb.Connection) -> None:
    connection.register(bmdb.Process("Idle", eligible=NEEDS_AGENT))
    page = scraped().scrape()
    for name in ("active_work", "active_backoffs", "quarantines"):
        assert page[f"bmdb_stats_{name}", "Idle"] == 0


def test_however_often_it_is_scraped_the_database_is_asked_once(
    scraped: Scrape, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    machines(1)
    janitor = scraped(every=60.0)
    assert janitor.scrape()["bmdb_stats_machines",] == 1
    machines(1)
    for _ in range(20):
        janitor.clock.now += 2.9
        page = janitor.scrape()
        assert page["bmdb_stats_machines",] == 1
    assert page["bmdb_statistic_age_seconds", "", "machines"] == pytest.approx(58.0)
    janitor.clock.now += 2.1
    assert janitor.scrape()["bmdb_stats_machines",] == 2


def test_scrapes_that_come_together_make_one_reading(scraped: Scrape, database: str) -> None:
    called = []

    @bmdb.statistic("slow")
    def slow(q: bmdb.Queries) -> int:
        called.append(1)
        time.sleep(0.3)
        return len(called)

    janitor = scraped(slow, every=60.0)
    pages: list[Any] = []
    threads = [threading.Thread(target=lambda: pages.append(janitor.scrape())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [page["bmdb_user_slow",] for page in pages] == [1] * 5


def test_nothing_is_asked_before_somebody_scrapes(scraped: Scrape, sql: psycopg.Connection[Any]) -> None:
    scraped()
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert sql.execute(count).fetchone() == (0,)


def test_a_locked_table_loses_what_needs_it_and_waits_no_longer_than_a_statement_may(
    scraped: Scrape, machines: MakeMachines, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmdb.janitor.STATEMENT_LIMIT", 0.3)
    machines(1)
    with psycopg.connect(database) as locker:
        locker.execute("LOCK TABLE machine_agent_heartbeat IN ACCESS EXCLUSIVE MODE")
        janitor = scraped()
        began = time.monotonic()
        page = janitor.scrape()
        assert time.monotonic() - began < 5
        assert ("bmdb_stats_machines_heartbeating",) not in page
        assert page["bmdb_stats_machines",] == 1
        assert page["bmdb_statistic_seconds", "", "machines_heartbeating"] >= 0.3
        locker.rollback()
    assert janitor.scrape()["bmdb_stats_machines_heartbeating",] == 0


def test_an_outage_loses_all_and_ends(own_server: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bmdb.statistics")
    dsn = own_server.create_database("bmdb")
    with bmdb.connect(dsn, component="test", migrate=True):
        pass
    janitor = Scraped(dsn)
    assert janitor.scrape()["bmdb_stats_machines",] == 0
    own_server.stop()
    for _ in range(2):
        page = janitor.scrape()
        assert not [key for key in page if key[0].startswith("bmdb_stats_")]
        assert {up for _, up in _about(page, "up")} == {0.0}
    own_server.start()
    eventually(lambda: janitor.scrape().get(("bmdb_stats_machines",)) == 0)
    janitor.janitor.close(5.0)
    told = [record.getMessage().split(" be read")[0] for record in caplog.records if record.name == "bmdb.statistics"]
    assert told == ["statistics cannot", "statistics can"]


def test_a_scrape_does_not_wait_for_ever(scraped: Scrape) -> None:
    release = threading.Event()

    @bmdb.statistic("stuck")
    def stuck(q: bmdb.Queries) -> int:
        release.wait(20)
        return 1

    janitor = scraped(stuck, patience=0.5)
    began = time.monotonic()
    try:
        page = janitor.scrape()
        assert time.monotonic() - began < 5
        # What was read by then is there.
        assert page["bmdb_stats_machines",] == 0 and ("bmdb_user_stuck",) not in page
    finally:
        release.set()


def test_two_janitors_may_read_the_same_database(scraped: Scrape, machines: MakeMachines) -> None:
    machines(2)
    assert [scraped().scrape()["bmdb_stats_machines",] for _ in range(2)] == [2, 2]


def test_it_cannot_write(scraped: Scrape, sql: psycopg.Connection[Any]) -> None:
    @bmdb.statistic("writes")
    def writes(q: bmdb.Queries) -> int:
        q.new_machine()
        return 1

    page = scraped(writes).scrape()
    assert page["bmdb_statistic_up", "", "user_writes"] == 0
    assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)


def test_an_embedded_server_is_refused() -> None:
    from bmdb.janitor import Janitor

    with pytest.raises(bmdb.ConfigError, match="connection of their own"):
        Janitor("embedded:")


def test_a_closed_janitor_tells_what_it_read_last(scraped: Scrape, machines: MakeMachines) -> None:
    machines(1)
    janitor = scraped()
    janitor.scrape()
    janitor.janitor.close(5.0)
    machines(1)
    assert janitor.scrape()["bmdb_stats_machines",] == 1
    assert BACKLOG.metric == "bmdb_stats_backlog"
