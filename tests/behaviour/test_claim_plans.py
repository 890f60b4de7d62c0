"""Claims and ends look rows up in indexes: no statement of theirs reads a table of a large fleet from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.database import Server
from tests.processes import ROOT

import bmdb

CORE = ROOT / "rust" / "core"
MACHINES = 20_000
FLEET = f"""
INSERT INTO machines (machine_id) SELECT gen_random_uuid() FROM generate_series(1, {MACHINES});
INSERT INTO machine_provided (machine_id, provider, provider_id) SELECT machine_id, 'a', machine_id FROM machines;
INSERT INTO machine_hardware_report (machine_id, hardware_report_raw)
    SELECT machine_id, '' FROM machines LIMIT {MACHINES // 2};
INSERT INTO sessions
    (session_id, session_component_name, session_runtime_info, session_interval_seconds, session_deadline)
    SELECT gen_random_uuid(), 'c', '', 5, now() + interval '1 hour' FROM generate_series(1, 2000);
INSERT INTO work (machine_id, process, session_id, token)
    SELECT m.machine_id, 'UnitTest1', (SELECT session_id FROM sessions LIMIT 1), 1 FROM machines AS m LIMIT 2000;
INSERT INTO work_backoff (machine_id, process, until, cause, last_interval_seconds)
    SELECT machine_id, 'UnitTest1', now() + interval '1 hour', '', 1 FROM machines LIMIT 5000;
INSERT INTO work_token (machine_id, process, token) SELECT machine_id, 'UnitTest1', 1 FROM machines;
INSERT INTO work_loss (machine_id, process, losses, last_lost_at, quarantined_at)
    SELECT machine_id, 'UnitTest1', 3, now(), now() FROM machines LIMIT 2000;
INSERT INTO work_hold (machine_id, process, owner, reason) SELECT machine_id, '', 'a', 'b' FROM machines LIMIT 2000;
INSERT INTO work_attention (process, watcher, machine_id) SELECT 'UnitTest1', '', machine_id FROM machines;
INSERT INTO work_history (machine_id, process, event) SELECT machine_id, 'UnitTest1', 'Started' FROM machines;
"""
LARGE = {
    "machines",
    "sessions",
    "work",
    "work_attention",
    "work_backoff",
    "work_history",
    "work_hold",
    "work_loss",
    "work_token",
    "machine_provided",
    "machine_hardware_report",
}
ELIGIBILITIES = {
    "lacking": bmdb.eligible(lacking=("hardware_report",)),
    "having": bmdb.eligible(having=("provided",)),
    "both": bmdb.eligible(having=("provided",), lacking=("hardware_report",)),
    "two tags": bmdb.eligible(having=("provided", "hardware_report"), lacking=("agent_started",)),
    "where": bmdb.eligible(having=("provided",), where="machine_provided.provider = $1", params=("a",)),
    "where of machines": bmdb.eligible(
        having=("provided",), where="machines.machine_created_at > now() - interval '1 h'"
    ),
}


@pytest.fixture(scope="module", params=["large", "empty"])
def fleet(request: pytest.FixtureRequest, server: Server, template: str) -> Iterator[str]:
    """A database with a large fleet, or with none yet: a plan that is made then is kept while the fleet grows."""
    with server.temporary_database(template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as filling:
            if request.param == "large":
                filling.execute(FLEET)
            # Vacuumed too, since a table that never was is taken for ten pages.
            filling.execute("VACUUM ANALYZE")
        yield dsn


@pytest.fixture(scope="module")
def planner(fleet: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the settings of those that carry claims and ends."""
    with psycopg.connect(fleet) as asking:
        if asking.info.server_version < 160000:
            pytest.skip("EXPLAIN (GENERIC_PLAN) needs PostgreSQL 16")
    source = (CORE / "src/batch/lanes.rs").read_text()
    found = re.search(r'const SETTINGS: &str = "(.*?)";', source, re.DOTALL)
    assert found is not None
    settings = re.sub(r"\\\n\s*", "", found[1])
    assert "enable_seqscan = off" in settings
    with psycopg.connect(fleet, autocommit=True) as connection:
        connection.execute(settings)  # type: ignore[arg-type]
        yield connection


def whole_reads(planner: psycopg.Connection[Any], statement: str) -> list[str]:
    """The large tables that the statement's generic plan reads from end to end, in order or along an index."""
    row = planner.execute("EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + statement).fetchone()  # type: ignore[arg-type]
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])

    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for inner in node.get("Plans", ()):
            yield from nodes(inner)

    found = list(nodes(plan[0]["Plan"]))
    assert any("Relation Name" in node for node in found), plan
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in found
        if node.get("Relation Name") in LARGE
        and (
            node["Node Type"] == "Seq Scan"
            or (
                node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Index Scan") and "Index Cond" not in node
            )
        )
    ]


@pytest.mark.parametrize("eligibility", ELIGIBILITIES.values(), ids=list(ELIGIBILITIES))
def test_claims(planner: psycopg.Connection[Any], fleet: str, eligibility: bmdb.Eligibility) -> None:
    with bmdb.connect(fleet, component="test") as connection:
        statements = connection._batches.statements(eligibility)
    assert len(statements) == 4
    for statement in statements:
        assert whole_reads(planner, statement) == [], statement


CHANGES = {
    "set": [bmdb.set_tag("provided", provider="a", provider_id="b")],
    "set one of several": [bmdb.set_tag("provided", provider_id="b")],
    "clear": [bmdb.clear_tag("provided"), bmdb.clear_tag("hardware_report")],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_ends_with_changes(planner: psycopg.Connection[Any], fleet: str, changes: list[bmdb.Change]) -> None:
    with bmdb.connect(fleet, component="test") as connection:
        statement = connection._batches.end_statement("finish", changes)
    assert whole_reads(planner, statement) == [], statement


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_ends(planner: psycopg.Connection[Any], end: str) -> None:
    statement = Path(CORE / f"queries/work/{end}.sql").read_text()
    assert whole_reads(planner, statement) == []


def test_what_a_lost_answer_is_settled_by(planner: psycopg.Connection[Any]) -> None:
    for name in ("claim/leased.sql", "work/recorded.sql"):
        assert whole_reads(planner, Path(CORE / "queries" / name).read_text()) == [], name


def test_the_guard_sees_what_reads_a_table_from_end_to_end(planner: psycopg.Connection[Any]) -> None:
    assert whole_reads(planner, "SELECT count(*) FROM machines WHERE machine_created_at > $1") != []
    assert whole_reads(planner, "SELECT 1 FROM work WHERE token = $1") != []
    assert whole_reads(planner, "SELECT 1 FROM work WHERE machine_id = $1") == []
