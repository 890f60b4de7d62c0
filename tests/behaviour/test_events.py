"""What can be seen from outside: log records under "bmdb", counters, and the database in numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.processes import eventually
from tests.proxy import Proxy

import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All records under "bmdb"."""
    with caplog.at_level(logging.DEBUG, logger="bmdb"):
        yield caplog


def records(log: pytest.LogCaptureFixture, name: str, level: int, words: str) -> list[logging.LogRecord]:
    found = [record for record in log.records if record.name == name and record.levelno == level]
    return [record for record in found if words in record.getMessage()]


def samples(connection: bmdb.Connection, name: str) -> dict[tuple[str, ...], Any]:
    """A metric's values by its labels' values, in the labels' order."""
    return {tuple(labels.values()): value for sample, _, labels, value in connection.metrics() if sample == name}


class TestLog:
    def test_a_loss_is_an_error_that_names_the_session(
        self, connection: bmdb.Connection, sql: Sql, log: pytest.LogCaptureFixture
    ) -> None:
        with connection.start_session(interval=1) as session:
            sql.execute("DELETE FROM sessions")
            eventually(lambda: records(log, "bmdb.session", logging.ERROR, str(session.uuid)), 3)
        (record,) = records(log, "bmdb.session", logging.ERROR, str(session.uuid))
        assert "row is gone" in record.getMessage()
        assert record.bmdb_session == str(session.uuid)  # type: ignore[attr-defined]

    def test_a_close_is_no_error(self, connection: bmdb.Connection, log: pytest.LogCaptureFixture) -> None:
        session = connection.start_session()
        session.close()
        eventually(lambda: records(log, "bmdb.session", logging.INFO, "it was closed"), 3)
        assert not [record for record in log.records if record.levelno >= logging.WARNING]

    def test_a_failed_heartbeat_is_one_warning_and_its_recovery_is_told(
        self, database: str, proxy: Proxy, log: pytest.LogCaptureFixture
    ) -> None:
        with (
            bmdb.connect(proxy.conninfo(database), component="test") as connection,
            connection.start_session(interval=2) as session,
        ):
            with proxy.cutting_before("UPDATE sessions", times=2) as cut:
                cut.wait(5, hits=2)
            eventually(lambda: records(log, "bmdb.heartbeat", logging.INFO, "back after"), 5)
            assert not session.expired
            assert len(records(log, "bmdb.heartbeat", logging.WARNING, "trusted for")) == 1
            assert samples(connection, "bmdb_heartbeat_failures") == {(): 2}

    def test_collection_tells_what_it_freed(
        self, connection: bmdb.Connection, sql: Sql, log: pytest.LogCaptureFixture
    ) -> None:
        sql.execute(
            "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES ('gone', '', 5, clock_timestamp() - interval '1 s')"
        )
        with connection.start_session(interval=1):
            eventually(lambda: records(log, "bmdb.collect", logging.INFO, "1 sessions"), 5)

    def test_a_broken_handler_breaks_nothing(self, connection: bmdb.Connection, sql: Sql) -> None:
        class Broken(logging.Handler):
            def handle(self, record: logging.LogRecord) -> bool:
                raise RuntimeError("out of paper")

        handler = Broken()
        told: list[bmdb.Session] = []
        logger = logging.getLogger("bmdb.session")
        logger.addHandler(handler)
        try:
            with connection.start_session(interval=1) as session:
                session.on_expired(told.append)
                sql.execute("DELETE FROM sessions")
                eventually(lambda: told, 3)
        finally:
            logger.removeHandler(handler)


class TestMetrics:
    def test_sessions_and_transactions_by_processor(self, connection: bmdb.Connection) -> None:
        with connection.start_session(processor="starter") as starter, connection.start_session() as unnamed:
            assert samples(connection, "bmdb_session_started") == {("starter",): 1, ("unknown",): 1}
            assert samples(connection, "bmdb_sessions_live") == {("starter",): 1, ("unknown",): 1}
            for _ in range(3):
                starter.transact(lambda q: q.count_machines())
            with pytest.raises(ZeroDivisionError):
                unnamed.transact(lambda q: 1 // 0)
            assert samples(connection, "bmdb_transaction_executed") == {("starter",): 3, ("unknown",): 1}
            assert samples(connection, "bmdb_transaction_failed") == {("starter",): 0, ("unknown",): 1}
        assert samples(connection, "bmdb_sessions_live") == {("starter",): 0, ("unknown",): 0}
        assert samples(connection, "bmdb_session_started") == {("starter",): 1, ("unknown",): 1}

    def test_retries_are_counted_apart(self, connection: bmdb.Connection) -> None:
        runs = []

        def conflict(q: bmdb.Queries) -> None:
            runs.append(1)
            if len(runs) < 4:
                raise bmdb.DatabaseError("again", "40001")

        with connection.start_session(processor="starter") as session:
            session.transact(conflict)
            runs.clear()
            with pytest.raises(bmdb.RetriesExhaustedError):
                session.transact(conflict, max_retries=1)
        assert samples(connection, "bmdb_transaction_executed") == {("starter",): 2}
        assert samples(connection, "bmdb_transaction_retried") == {("starter",): 4}
        assert samples(connection, "bmdb_transaction_failed") == {("starter",): 1}

    def test_transactions_are_timed_by_outcome(self, connection: bmdb.Connection) -> None:
        with connection.start_session(processor="starter") as session:
            session.transact(lambda q: q.execute("SELECT pg_sleep(0.06)"))
            with pytest.raises(ZeroDivisionError):
                session.transact(lambda q: 1 // 0)
        histograms = samples(connection, "bmdb_transaction_seconds")
        counts = {outcome: buckets[-1] for (_, outcome), (buckets, _) in histograms.items()}
        assert counts == {"committed": (float("inf"), 1), "failed": (float("inf"), 1), "unknown": (float("inf"), 0)}
        buckets, total = histograms["starter", "committed"]
        assert 0.06 <= total < 1
        assert dict(buckets)[0.05] == 0

    def test_work_by_process_and_result(self, connection: bmdb.Connection, machines: MakeMachines) -> None:
        rack = machines(1)
        with connection.start_session(processor="starter") as session:
            session.work(PROCESS, lambda q: rack).finish()
            session.work(PROCESS, lambda q: rack).cancel()
            for _ in range(2):
                session.work("UnitTest2", lambda q: rack).fail("no answer", bmdb.Backoff())
            with session.work("UnitTest2", lambda q: rack):
                assert samples(connection, "bmdb_leases_live") == {("starter",): 1}
            with pytest.raises(bmdb.NothingToDo):
                session.work(PROCESS, lambda q: [])
            assert samples(connection, "bmdb_leases_live") == {("starter",): 0}
        assert samples(connection, "bmdb_work_started") == {("starter", PROCESS): 2, ("starter", "UnitTest2"): 3}
        assert samples(connection, "bmdb_work_finished") == {
            ("starter", PROCESS, "finished"): 1,
            ("starter", PROCESS, "canceled"): 1,
            ("starter", "UnitTest2", "failed"): 2,
            ("starter", "UnitTest2", "canceled"): 1,
        }

    def test_closing_a_session_settles_its_leases(self, connection: bmdb.Connection, machines: MakeMachines) -> None:
        rack = machines(1)
        with connection.start_session(processor="starter") as session:
            session.work(PROCESS, lambda q: rack)
        assert samples(connection, "bmdb_leases_live") == {("starter",): 0}
        assert samples(connection, "bmdb_work_finished") == {("starter", PROCESS, "canceled"): 1}

    def test_so_does_its_loss(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        rack = machines(1)
        with connection.start_session(interval=1, processor="starter") as session:
            work = session.work(PROCESS, lambda q: rack)
            sql.execute("DELETE FROM sessions")
            assert session.wait_expired(3)
            assert work.lost
            assert samples(connection, "bmdb_leases_live") == {("starter",): 0}
            assert samples(connection, "bmdb_work_finished") == {}

    def test_a_finish_that_failed_is_not_counted(self, connection: bmdb.Connection, machines: MakeMachines) -> None:
        rack = machines(1)
        with connection.start_session(processor="starter") as session:
            work = session.work(PROCESS, lambda q: rack)
            with pytest.raises(ZeroDivisionError):
                work.finish(lambda q: 1 // 0)
            assert samples(connection, "bmdb_work_finished") == {}
            work.finish()
            assert samples(connection, "bmdb_work_finished") == {("starter", PROCESS, "finished"): 1}

    def test_heartbeats_and_their_lateness(self, connection: bmdb.Connection) -> None:
        with connection.start_session(interval=1):
            eventually(lambda: samples(connection, "bmdb_heartbeats")[()] >= 2, 4)
        buckets, total = samples(connection, "bmdb_heartbeat_lateness_seconds")[()]
        assert buckets[-1][1] >= 2 and 0 <= total < 1
        assert samples(connection, "bmdb_heartbeat_failures") == {(): 0}

    def test_collections(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        with connection.start_session(interval=60) as session:
            rack = machines(1)
            session.work(PROCESS, lambda q: rack)
            sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 s'")
            assert connection.collect() == (1, 1)
            assert samples(connection, "bmdb_collected_sessions") == {(): 1}
            assert samples(connection, "bmdb_collected_leases") == {(): 1}

    def test_connections_count_for_themselves(self, connection: bmdb.Connection, database: str) -> None:
        with bmdb.connect(database, component="other") as other, other.start_session(processor="other"):
            assert samples(connection, "bmdb_session_started") == {}


def test_a_quarantine_is_warned_of(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql, log: pytest.LogCaptureFixture
) -> None:
    with connection.start_session(interval=60) as session:
        rack = machines(1)
        session.work(bmdb.Process(PROCESS, quarantine_after=1), lambda q: rack)
        sql.execute("UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 s'")
        assert connection.collect() == (1, 1)
    eventually(lambda: records(log, "bmdb.collect", logging.WARNING, "1 leases were lost once too often"))


class TestLooking:
    def test_history_is_oldest_first_and_of_one_machine(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines
    ) -> None:
        machine, other = machines(2)
        session.work(PROCESS, lambda q: [other]).finish()
        session.work(PROCESS, lambda q: [machine]).fail("no answer", bmdb.Backoff())
        session.work(PROCESS, lambda q: [machine]).finish()
        history = connection.history_of(machine)
        assert [event.event for event in history] == ["Started", "Failed", "Started", "Finished"]
        assert [event.timestamp for event in history] == sorted(event.timestamp for event in history)
        assert {event.machine_id for event in history} == {machine}
        assert connection.history_of(uuid4()) == []

    def test_a_session_that_nobody_knows(self, connection: bmdb.Connection) -> None:
        assert connection.session_info(uuid4()) is None

    def test_statistics(self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines) -> None:
        rack = machines(5)
        now = datetime.now(UTC)

        def furnish(q: bmdb.Queries) -> None:
            for number, machine in enumerate(rack[:4]):
                q.machine_add_provided(machine, "Equinix", str(number))
            q.machine_set_agent_started(rack[0], now, b"key")
            q.machine_set_agent_heartbeat(rack[0], now)
            q.machine_set_os_installation_request(rack[0], 1, b"")
            q.machine_set_os_installation_request(rack[1], 1, b"")
            q.machine_set_os_installation_report(rack[1], 1, "Success", b"")

        session.transact(furnish)
        session.work(PROCESS, lambda q: rack).fail("no answer", bmdb.Backoff(60))
        with session.work(PROCESS, lambda q: [rack[1]]), session.work("UnitTest2", lambda q: [rack[1]]):
            statistics = connection.statistics()
        assert statistics.machines == 5
        assert statistics.machines_provided == 4
        assert statistics.machines_heartbeating == 1
        assert statistics.machines_pending_installation == 1
        assert statistics.machines_installed == 1
        assert statistics.machines_pending_agent_start == 2
        assert statistics.machines_pending_agent_recovery == 0
        assert statistics.active_work == {PROCESS: 1, "UnitTest2": 1}
        assert statistics.active_backoffs == {PROCESS: 1}

    def test_tags_are_read_from_the_database(self, connection: bmdb.Connection, sql: Sql) -> None:
        key = "machine_id uuid PRIMARY KEY REFERENCES machines (machine_id)"
        sql.execute(f"CREATE TABLE machine_rack ({key}, row int, label varchar(7))")
        sql.execute(f"CREATE TABLE machine_blessed ({key})")
        # None of these is a tag: another key, no reference, another name.
        sql.execute("CREATE TABLE machine_log (id int PRIMARY KEY, machine_id uuid REFERENCES machines (machine_id))")
        sql.execute("CREATE TABLE machine_lookalike (machine_id uuid PRIMARY KEY)")
        sql.execute(f"CREATE TABLE owners ({key})")
        tags = {name: (table, fields) for name, table, fields in connection.tags()}
        assert set(tags) == {
            "agent_heartbeat", "agent_started", "blessed", "hardware_report", "os_installation_report",
            "os_installation_request", "provided", "rack",
        }  # fmt: skip
        assert tags["rack"] == ("machine_rack", [("row", "integer"), ("label", "character varying(7)")])
        assert tags["blessed"] == ("machine_blessed", [])

    def test_looking_needs_no_session(self, connection: bmdb.Connection, machines: MakeMachines) -> None:
        machine: UUID = machines(1)[0]
        assert connection.history_of(machine) == []
        assert connection.statistics().machines == 1
