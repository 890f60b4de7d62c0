"""The public surface, used as its types allow. Nothing here runs: mypy --strict reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type
from uuid import UUID

import psycopg
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine
from sqlalchemy.orm import Session as OrmSession

import bmdb
from bmdb import logs, otel
from bmdb.janitor import Janitor, Reading
from bmdb.metrics import Collector, StatisticsCollector
from bmdb.model import ActiveWork, HistoryEvent, Machine, ProvidedMachine, SessionInfo, SessionUse, WorkBackoff
from bmdb.psycopg import PsycopgQueries, run_transaction
from bmdb.statistics import Statistics

State = Literal["active", "ending", "finished", "failed", "canceled", "lost"]


def worker(conninfo: str) -> None:
    with bmdb.connect(conninfo, component="api", migrate=True, pool_size=4, isolation="read committed") as connection:
        assert_type(connection, bmdb.Connection)
        with connection.start_session(interval=2.5, processor="api") as session:
            assert_type(session, bmdb.Session)
            with session.work("Process", retrieve) as work:
                assert_type(work, bmdb.Work)
                work.finish(lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), b"key"))


def retrieve(q: bmdb.Queries) -> list[ProvidedMachine]:
    return q.machines_for_agent_start(5, "Equinix")


def connections(connection: bmdb.Connection, machine: UUID) -> None:
    assert_type(connection.conninfo, str)
    assert_type(connection.migrate(), int)
    assert_type(connection.migrate(to=1), int)
    assert_type(connection.schema_version(), int)
    assert_type(connection.history_of(machine), list[HistoryEvent])
    assert_type(connection.session_info(machine), SessionInfo | None)
    assert_type(connection.statistics(), Statistics)
    assert_type(connection.collect().leases, int)
    assert_type(connection.tags_of([machine]), dict[UUID, list[str]])
    assert_type(connection.closed, bool)


def sessions(session: bmdb.Session) -> None:
    assert_type(session.uuid, UUID)
    assert_type(session.interval, float)
    assert_type(session.expired, bool)
    assert_type(session.trusted_for, float)
    assert_type(session.wait_expired(1.0), bool)
    session.on_expired(lambda lost: assert_type(lost, bmdb.Session))
    assert_type(session.transact(lambda q: q.count_machines()), int)
    assert_type(session.transact(lambda q: q.new_machine(), isolation="serializable", max_retries=3), Machine)
    assert_type(session.work("Process", lambda q: [UUID(int=7)]), bmdb.Work)
    session.transact(retrieve, isolation=7)  # type: ignore[call-overload]
    session.work(retrieve)  # type: ignore[arg-type]


def foreign_connections(
    session: bmdb.Session, work: bmdb.Work, pg: psycopg.Connection[tuple[int, ...]], engine: Engine
) -> None:
    assert_type(session.transact(on_psycopg, connection=pg), int)
    assert_type(session.transact(lambda q: q.count_machines(), connection=pg), int)
    assert_type(session.transact(lambda q: q.orm, engine=engine), OrmSession)
    work.finish(on_psycopg, connection=pg)
    work.finish(lambda q: q.orm.flush(), engine=engine)
    work.finish(lambda q: q.orm)  # type: ignore[attr-defined]
    work.fail("cause", commit=lambda q: q.connection.execute("…"), connection=pg)
    work.cancel(lambda q: q.new_machine())
    assert_type(run_transaction(pg, lambda conn: conn.execute("…").fetchone()), tuple[int, ...] | None)
    session.transact(on_psycopg)  # type: ignore[arg-type]
    session.transact(on_psycopg, connection=pg, engine=engine)  # type: ignore[call-overload]


def on_psycopg(q: PsycopgQueries) -> int:
    assert_type(q.connection, psycopg.Connection[Any])
    return q.connection.execute("…").rowcount


def works(work: bmdb.Work) -> None:
    assert_type(work.machine, UUID)
    assert_type(work.process, str)
    assert_type(work.token, int)
    assert_type(work.previous_backoff, int | None)
    assert_type(work.state, State)
    assert_type(work.lost, bool)
    work.finish()
    work.fail("cause")
    work.fail("cause", bmdb.Backoff(60, timedelta(hours=1), 1.1, jitter=0.1))
    work.cancel()
    assert_type(work.session, bmdb.Session)
    assert_type(work.backoff, bmdb.Backoff | None)
    work.backoff = bmdb.Backoff(60)
    work.check()
    work.touch()
    work.finish(lambda q: q.count_machines(), isolation="read committed", max_retries=3)
    with work as same:
        assert_type(same, bmdb.Work)
    work.fail(ValueError("cause"))  # type: ignore[call-overload]
    work.token = 7  # type: ignore[misc]


def backoffs(backoff: bmdb.Backoff) -> None:
    assert_type(backoff.next(), int)
    assert_type(backoff.next(60), int)
    assert_type(backoff.schedule(10), list[int])
    assert_type(backoff.maximum, float | None)
    bmdb.Backoff("1m")  # type: ignore[arg-type]
    backoff.initial = 2.0  # type: ignore[misc]


def queries(q: bmdb.Queries, machine: UUID) -> None:
    assert_type(q.machine(machine), Machine | None)
    assert_type(q.machines(None, 10), list[Machine])
    assert_type(q.sessions(machine, 10), list[SessionUse])
    assert_type(q.work_on([machine]), list[ActiveWork])
    assert_type(q.backoffs_of((machine,)), list[WorkBackoff])
    assert_type(q.latest_history_of(machine, 10), list[HistoryEvent])
    assert_type(q.work_backoff_of(machine, "Process"), WorkBackoff | None)
    assert_type(q.provided_machines("Equinix")[0].provider_status, str | None)
    assert_type(q.execute("…", 1, "two", None), int)
    assert_type(q.fetch("…"), list[bmdb.Row])
    assert_type(q.fetch_one("…"), bmdb.Row | None)
    assert_type(q.fetch_value("…"), Any)


def rows(row: bmdb.Row) -> None:
    assert_type(row._fields, tuple[str, ...])
    assert_type(row._asdict(), dict[str, Any])
    assert_type(row[1:], tuple[Any, ...])
    assert_type(len(row), int)


def errors(error: bmdb.Error) -> None:
    if isinstance(error, bmdb.DatabaseError):
        assert_type(error.sqlstate, str)
        assert_type(error.constraint, str | None)
    if isinstance(error, bmdb.RetriesExhaustedError):
        assert_type(error.attempts, int)
    if isinstance(error, bmdb.AmbiguousCommitError):
        assert_type(error.resolve(timeout=1.0), bool)
    leaves: Sequence[type[bmdb.Error]] = (
        bmdb.ConfigError,
        bmdb.ConnectionFailedError,
        bmdb.LeaseLostError,
        bmdb.MigrationError,
        bmdb.SessionExpiredError,
        bmdb.TransactionRestartError,
        bmdb.WorkConflictError,
        bmdb.WorkStateError,
    )
    no_error: type[bmdb.Error] = bmdb.NothingToDo  # type: ignore[assignment]
    print(leaves, no_error)


def metrics(connection: bmdb.Connection, twin: bmdb.AsyncConnection) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(connection))
    registry.register(Collector(connection, twin))
    Collector("postgresql://")  # type: ignore[arg-type]


@bmdb.statistic("nodes", labels=("region",), max_series=50)
def nodes(q: bmdb.Queries) -> dict[str, int]:
    return {"eu": q.count_machines()}


def numbers(connection: bmdb.Connection, work: bmdb.Work) -> None:
    assert_type(nodes.name, str)
    assert_type(nodes.labels, tuple[str, ...])
    janitor = Janitor(None, [nodes], every=30.0)
    CollectorRegistry().register(StatisticsCollector(janitor))
    assert_type(janitor.read(), list[Reading])
    otel.instrument(namespace="site")
    assert_type(otel.trace_id(work.machine, work.process, work.token), str)
    logging.Handler().addFilter(logs.Fields())
