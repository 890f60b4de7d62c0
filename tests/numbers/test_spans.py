"""Spans: of transactions, of leases from claim to end, and the links between them across processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind, StatusCode

import bmdb
from bmdb import otel, tracing
from tests.conftest import MakeMachines
from tests.processes import eventually

NEEDS = bmdb.eligible(lacking=["agent_started"])


class Telemetry:
    """What was told to OpenTelemetry."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self, name: str) -> list[ReadableSpan]:
        """The ended spans whose name begins so."""
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(name)]

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The data points of a metric by their attributes."""
        data = self.reader.get_metrics_data()
        return {
            frozenset(point.attributes.items()): point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def counts(self, name: str, by: str) -> Counter[Any]:
        """The values of a counter, by one of its attributes: of all connections of this process, other tests' too."""
        counted: Counter[Any] = Counter()
        for attributes, point in self.points(name).items():
            counted[dict(attributes).get(by)] += point.value
        return counted


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Instrumented for the test."""
    told = Telemetry()
    otel.instrument(told.tracers, told.meters)
    try:
        yield told
    finally:
        otel.uninstrument()
        told.meters.shutdown()
        told.tracers.shutdown()


def only(spans: list[ReadableSpan]) -> ReadableSpan:
    (span,) = spans
    return span


def ids(context: Any) -> tuple[int, int]:
    return context.trace_id, context.span_id


def links(span: ReadableSpan) -> dict[Any, list[tuple[int, int]]]:
    """Where its links lead, by what they are."""
    found: dict[Any, list[tuple[int, int]]] = {}
    for link in span.links:
        found.setdefault((link.attributes or {})["bmdb.link"], []).append(ids(link.context))
    return found


def test_a_transaction_says_how_it_went(telemetry: Telemetry, session: bmdb.Session, database: str) -> None:
    assert session.transact(lambda q: q.count_machines(), isolation="repeatable read") == 0
    span = only(telemetry.spans("transact"))
    name = psycopg.conninfo.conninfo_to_dict(database)
    assert span.name == f"transact {name['dbname']}" and span.kind is SpanKind.CLIENT
    expected = {
        "db.system.name": "postgresql",
        "db.namespace": name["dbname"],
        "db.operation.name": "transact",
        "server.address": name["host"],
        "server.port": int(str(name["port"])),
        "bmdb.session": str(session.uuid),
        "bmdb.component": "test",
        "bmdb.attempts": 1,
        "bmdb.isolation": "repeatable read",
        "bmdb.outcome": "committed",
    }
    assert dict(span.attributes or {}) == expected
    assert span.status.status_code is StatusCode.UNSET and not span.events


def test_retries_are_events_with_their_sqlstate(
    telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines, sql: psycopg.Connection[Any], database: str
) -> None:
    machines(1)
    raised = []

    def conflict_in_the_callback(q: bmdb.Queries) -> None:
        if not raised:
            raised.append(1)
            q.execute("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$")

    session.transact(conflict_in_the_callback)
    ended = []

    def conflict_at_commit(q: bmdb.Queries) -> None:
        q.fetch("SELECT count(*) FROM machines")
        q.execute("INSERT INTO machine_rack DEFAULT VALUES")
        if not ended:
            with psycopg.connect(database) as other:
                other.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                other.execute("SELECT count(*) FROM machine_rack")
                other.execute("INSERT INTO machines DEFAULT VALUES")
        ended.append(1)

    sql.execute("CREATE TABLE machine_rack (n serial)")
    session.transact(conflict_at_commit)
    assert len(ended) == 2
    for span, code in zip(telemetry.spans("transact"), ("40001", "40001"), strict=True):
        assert (span.attributes or {})["bmdb.attempts"] == 2
        (event,) = span.events
        assert event.name == "bmdb.retry"
        assert dict(event.attributes or {}) == {
            "bmdb.attempt": 1,
            "db.response.status_code": code,
            "error.type": code,
        }


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda q: q.fetch("SELECT 1/0"), ("failed", "22012", "22012")),
        (lambda q: [][0], ("failed", "IndexError", None)),
    ],
)
def test_a_failed_transaction_says_why(fn: Any, expected: Any, telemetry: Telemetry, session: bmdb.Session) -> None:
    with pytest.raises((bmdb.DatabaseError, IndexError)):
        session.transact(fn)
    span = only(telemetry.spans("transact"))
    told = dict(span.attributes or {})
    assert (told["bmdb.outcome"], told["error.type"], told.get("db.response.status_code")) == expected
    assert span.status.status_code is StatusCode.ERROR
    # Words that are not bmdb's own may hold anything.
    assert (span.status.description is not None) == (expected[2] is not None)


def test_exhausted_retries_are_told_and_counted(telemetry: Telemetry, session: bmdb.Session) -> None:
    fails = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"
    before = telemetry.counts("bmdb.transaction.exhausted", "processor")
    with pytest.raises(bmdb.RetriesExhaustedError):
        session.transact(lambda q: q.execute(fails), max_retries=2)
    span = only(telemetry.spans("transact"))
    told = dict(span.attributes or {})
    assert (told["bmdb.outcome"], told["bmdb.attempts"], told["db.response.status_code"]) == ("exhausted", 3, "40001")
    assert len(span.events) == 2
    assert (telemetry.counts("bmdb.transaction.exhausted", "processor") - before).total() == 1


def test_work_is_one_span_from_claim_to_end(
    telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines
) -> None:
    """Claimed and ended without callbacks: in batches."""
    (machine,) = machines(1)
    work = session.work("Fix", NEEDS)
    assert not telemetry.spans("work")
    work.finish()
    claim, held, finish = (only(telemetry.spans(name)) for name in ("claim Fix", "work Fix", "finish Fix"))
    told = dict(held.attributes or {})
    assert told == {
        "bmdb.process": "Fix",
        "bmdb.machine": str(machine),
        "bmdb.token": work.token,
        "bmdb.session": str(session.uuid),
        "bmdb.component": "test",
        "bmdb.outcome": "finished",
    }
    assert claim.start_time < held.start_time < finish.start_time < finish.end_time <= held.end_time  # type: ignore[operator]
    assert ids(held.context) == ids(otel.lease_context(machine, "Fix", work.token))
    assert f"{held.context.trace_id:032x}" == otel.trace_id(machine, "Fix", work.token)
    assert links(held) == {"claim": [ids(claim.context)]}
    assert links(claim) == links(finish) == {"lease": [ids(held.context)]}
    # Nothing is around the finish, so it is the lease's; the lease is nobody's.
    assert ids(finish.parent) == ids(held.context) and held.parent is None
    assert (finish.attributes or {})["db.operation.name"] == "finish"


def test_with_callbacks_it_is_the_same(telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    work = session.work("Fix", lambda q: [machine])
    work.fail("hostile cause", bmdb.Backoff(1), commit=lambda q: None)
    claim, held, fail = (only(telemetry.spans(name)) for name in ("claim Fix", "work Fix", "fail Fix"))
    assert links(held) == {"claim": [ids(claim.context)]}
    assert links(fail) == {"lease": [ids(held.context)]}
    assert ((held.attributes or {})["bmdb.outcome"], held.status.status_code) == ("failed", StatusCode.ERROR)
    assert (fail.attributes or {})["bmdb.outcome"] == "committed"
    assert "hostile" not in f"{held.to_json()}{fail.to_json()}"


def test_many_share_a_claim_and_an_end(telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines) -> None:
    machines(3)
    works = session.work_many("Fix", 5, NEEDS)
    lost = works.pop()
    session.connection.force_release(lost.machine, "Fix", owner="ann", reason="stuck")
    assert [error is None for error in session.finish_many([*works, lost])] == [True, True, False]
    claim, finish = only(telemetry.spans("claim Fix")), only(telemetry.spans("finish Fix"))
    held = {ids(span.context): (span.attributes or {})["bmdb.outcome"] for span in telemetry.spans("work Fix")}
    assert sorted(held.values()) == ["finished", "finished", "lost"]
    assert set(links(claim)["lease"]) == set(links(finish)["lease"]) == set(held)
    assert (finish.attributes or {})["db.operation.batch.size"] == 3
    release = only(telemetry.spans("force_release"))
    assert held[links(release)["lease"][0]] == "lost"


def test_inside_the_block_it_is_the_current_span(
    telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines
) -> None:
    machines(1)
    tracer = telemetry.tracers.get_tracer("user")
    with tracer.start_as_current_span("around"):
        before = trace.get_current_span()
        with session.work("Fix", NEEDS) as work:
            with tracer.start_as_current_span("inside"):
                session.transact(lambda q: None)
            work.finish()
        assert trace.get_current_span() is before
    held, inside, finish, claim = (only(telemetry.spans(n)) for n in ("work Fix", "inside", "finish Fix", "claim Fix"))
    assert ids(inside.parent) == ids(finish.parent) == ids(held.context)
    assert ids(only(telemetry.spans("transact")).parent) == ids(inside.context)
    assert ids(claim.parent) == ids(only(telemetry.spans("around")).context)


def test_a_callback_runs_inside_its_transactions_span(telemetry: Telemetry, session: bmdb.Session) -> None:
    tracer = telemetry.tracers.get_tracer("user")

    def callback(q: bmdb.Queries) -> None:
        tracer.start_span("statement").end()

    session.transact(callback)
    assert ids(only(telemetry.spans("statement")).parent) == ids(only(telemetry.spans("transact")).context)
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_look_that_finds_nothing_leaves_no_span(telemetry: Telemetry, session: bmdb.Session) -> None:
    with pytest.raises(bmdb.NothingToDo):
        session.work("Fix", NEEDS)
    assert not telemetry.spans("claim")
    with pytest.raises(bmdb.NothingToDo):
        session.work("Fix", lambda q: [])
    span = telemetry.spans("claim")[0]
    assert ((span.attributes or {})["bmdb.outcome"], span.status.status_code) == ("nothing", StatusCode.UNSET)


def test_a_lost_lease_ends_its_span_without_an_end(
    telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines
) -> None:
    machines(2)
    lost, forgotten = session.work_many("Fix", 2, NEEDS)
    session.connection.force_release(lost.machine, "Fix", owner="ann", reason="stuck")
    with pytest.raises(bmdb.LeaseLostError):
        lost.finish()
    span = only(telemetry.spans("work Fix"))
    assert ((span.attributes or {})["bmdb.outcome"], span.status.status_code) == ("lost", StatusCode.ERROR)
    assert (only(telemetry.spans("finish Fix")).attributes or {})["bmdb.outcome"] == "lost"
    del forgotten, lost
    eventually(lambda: len(telemetry.spans("work Fix")) == 2)
    assert (telemetry.spans("work Fix")[1].attributes or {})["bmdb.outcome"] == "abandoned"


HOLDER = """
import sys
import bmdb
from bmdb import otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

def told(span):
    return f"{span.name} {span.context.trace_id:032x}\\n"

tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=told)))
otel.instrument(tracers)
with bmdb.connect(sys.argv[1], component="first") as connection, connection.start_session() as session:
    session.work("Fix", bmdb.eligible(lacking=["agent_started"])).fail("later", bmdb.Backoff(1))
"""


def test_the_next_lease_links_to_the_one_before_in_another_process(
    telemetry: Telemetry, session: bmdb.Session, machines: MakeMachines, database: str, sql: psycopg.Connection[Any]
) -> None:
    (machine,) = machines(1)
    done = subprocess.run([sys.executable, "-c", HOLDER, database], capture_output=True, text=True, timeout=60)
    told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    sql.execute("DELETE FROM work_backoff")
    work = session.work("Fix", NEEDS)
    assert work.token == 2
    work.finish()
    ((previous, _),) = links(only(telemetry.spans("work Fix")))["previous lease"]
    assert f"{previous:032x}" == told["work Fix"] == otel.trace_id(machine, "Fix", 1)


def test_collection_is_a_span_when_it_freed_something(
    telemetry: Telemetry, connection: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
        " session_deadline) VALUES ('gone', '', 5, now() - interval '90 seconds')"
    )
    assert connection.collect() == (1, 0)
    told = only(telemetry.spans("collect")).attributes or {}
    assert (told["bmdb.sessions"], told["bmdb.leases"], told["db.operation.name"]) == (1, 0, "collect")


def test_a_psycopg_connection_is_watched_alike(telemetry: Telemetry, session: bmdb.Session, database: str) -> None:
    raised = []

    def callback(q: bmdb.Queries) -> None:
        if not raised:
            raised.append(1)
            q.execute("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$")

    with psycopg.connect(database) as pg:
        session.transact(callback, connection=pg)
    span = only(telemetry.spans("transact"))
    (event,) = span.events
    assert (event.attributes or {})["db.response.status_code"] == "40001"
    assert (span.attributes or {})["bmdb.attempts"] == 2


async def test_under_asyncio_too(telemetry: Telemetry, database: str, machines: MakeMachines) -> None:
    (machine,) = machines(1)
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session() as session,
    ):
        await session.transact(lambda q: q.count_machines())
        async with session.work("Fix", NEEDS) as work:
            assert (
                trace.get_current_span().get_span_context().trace_id == otel.lease_context(machine, "Fix", 1).trace_id
            )
            await work.finish()
        assert not trace.get_current_span().get_span_context().is_valid
        assert await session.finish_many([]) == []
    assert (only(telemetry.spans("work Fix")).attributes or {})["bmdb.outcome"] == "finished"
    assert ids(only(telemetry.spans("finish Fix")).parent) == ids(only(telemetry.spans("work Fix")).context)


def test_durations_and_counts_go_through_the_meter(
    telemetry: Telemetry, connection: bmdb.Connection, machines: MakeMachines, database: str
) -> None:
    machines(2)
    before = telemetry.counts("bmdb.work.finished", "result")
    with connection.start_session(processor="fixer") as session:
        session.work("Fix", NEEDS).finish()
    with bmdb.connect(database, component="second") as second, second.start_session(processor="fixer") as session:
        session.work("Fix", NEEDS).finish()

    # The second connection is closed by now: what it counted stays, and is not added again.
    for _ in range(3):
        assert telemetry.counts("bmdb.work.finished", "result") - before == {"finished": 2}
    operations = {
        dict(by)["db.operation.name"]: point for by, point in telemetry.points("db.client.operation.duration").items()
    }
    assert operations["finish"].count == 2 and operations["finish"].sum > 0
    processes = {dict(by).get("bmdb.process") for by in telemetry.points("db.client.operation.duration")}
    assert processes == {"Fix", None}
    with connection.start_session(interval=1):
        eventually(lambda: any(point.value for point in telemetry.points("bmdb.heartbeat.lateness.count").values()))


def test_nobody_watches_unless_asked_to(session: bmdb.Session, machines: MakeMachines) -> None:
    assert tracing.observer is None
    machines(1)
    work = session.work("Fix", NEEDS)
    assert work._span is None
    work.finish()


def test_nothing_of_opentelemetry_is_imported_unless_asked_for(database: str) -> None:
    source = f"""
import sys, bmdb
with bmdb.connect({database!r}, component="plain") as connection, connection.start_session() as session:
    session.transact(lambda q: q.count_machines())
found = [name for name in sys.modules if name.startswith("opentelemetry")]
sys.exit(f"imported: {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_missing_extra_is_named() -> None:
    source = "import sys; sys.modules['opentelemetry'] = None; import bmdb; import bmdb.otel"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'pip install "pybmdb[otel]"' in done.stderr.splitlines()[-1]


def test_a_sampler_that_raises_disturbs_no_transaction(session: bmdb.Session, machines: MakeMachines) -> None:
    class Broken(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            raise LookupError

        def get_description(self) -> str:
            return "broken"

    machines(1)
    otel.instrument(TracerProvider(Broken()))
    try:
        assert session.transact(lambda q: q.count_machines()) == 1
        with session.work("Fix", NEEDS) as work:
            work.finish()
        assert work.state == "finished"
    finally:
        otel.uninstrument()
