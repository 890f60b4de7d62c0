"""The dashboard, the alert rules and the table of metrics say nothing that a real page does not have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import promql_parser
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import bmdb
from tests.conftest import MakeMachines
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "ops" / "rules" / "bmdb.yml"
DASHBOARD = ROOT / "ops" / "dashboards" / "bmdb.json"
DOCUMENTED = (ROOT / "docs" / "numbers.md").read_text()
# What Prometheus itself adds, or makes of a histogram.
ADDED = {"instance", "job", "le"}

Page = dict[str, set[str]]


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> dict[str, str]:
    """Every query of the rules and of the dashboard, with values for Grafana's variables, by where it stands."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$process", ".*")
            found[f"panel {panel['title']} {target['refId']}"] = text
    for variable in dashboard["templating"]["list"]:
        if (asked := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))) is not None:
            found[f"variable {variable['name']}"] = f"max by ({asked[2]}) ({asked[1]})"
    return found


def unknown(query: str, page: Page) -> list[str]:
    """The metrics in the query that the page lacks, and the labels that none of its metrics has."""
    names = set(re.findall(r"\bbmdb_\w+", query))
    labels = {label for group in re.findall(r"\bby \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    labels |= {label for group in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)\s*[=!]", group)}
    had = ADDED.union(*(page.get(name, set()) for name in names))
    return sorted((names - page.keys()) | (labels - had))


@pytest.fixture
def page(database: str, machines: MakeMachines, sql: psycopg.Connection[Any]) -> Page:
    """What `/metrics` of a real runner has: metrics with the names of their labels."""
    machines(2)
    needs = bmdb.eligible(lacking=["agent_started"])

    @bmdb.loop(bmdb.Process("Fix", eligible=needs, backoff=bmdb.Backoff(600)))
    def fix(work: bmdb.Work) -> bmdb.Change:
        return bmdb.set_tag("agent_started", agent_started_at=datetime.now(UTC), agent_public_key=b"k")

    with bmdb.Runner(fix, database, listen="127.0.0.1:0") as runner:
        eventually(lambda: runner.states() and sum(runner.states()[0].ended.values()) >= 2)
        assert runner.address is not None
        host, port = runner.address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    found: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_is_promql() -> None:
    assert len(queries()) > 50
    for where, query in queries().items():
        try:
            promql_parser.parse(query)
        except ValueError as error:
            pytest.fail(f"{where}: {error}\n{query}")


def test_the_parser_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match=r".+"):
        promql_parser.parse("sum by (a (bmdb_stats_machines)")


def test_every_metric_and_label_of_the_queries_is_exported(page: Page) -> None:
    assert {where: lacking for where, query in queries().items() if (lacking := unknown(query, page))} == {}
    # And the scan would find one that is not.
    assert unknown("sum by (proces) (rate(bmdb_work_finishd[5m]))", page) == ["bmdb_work_finishd", "proces"]
    assert unknown('bmdb_stats_machines{region="eu"}', page) == ["region"]


def test_the_table_has_what_is_exported_and_nothing_else(page: Page) -> None:
    told = {
        name: {label for label in labels.replace(" ", "").split(",") if label}
        for name, labels in re.findall(r"^\| `(bmdb_\w+)` \| \w+ \| ([\w, ]*) ?\|", DOCUMENTED, re.MULTILINE)
    }
    exported: Page = {}
    for name, labels in page.items():
        base = re.sub(r"_(bucket|sum|count)$", "", name) if name.endswith(("_bucket", "_sum", "_count")) else name
        if not name.endswith("_created"):
            exported.setdefault(base, set()).update(labels - {"le"})
    assert {name for name in exported if name.startswith("bmdb_")} == told.keys()
    assert {name: labels for name, labels in told.items() if labels != exported[name]} == {}


def test_each_alert_says_what_happened_what_to_do_and_where_to_read_on() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", DOCUMENTED, re.MULTILINE)
    }
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 10
    for rule in rules():
        told = rule["annotations"]
        assert told["summary"] and len(told["description"]) > 30 and rule["labels"]["severity"]
        path, _, anchor = told["runbook_url"].partition("#")
        assert path == "docs/numbers.md" and anchor == rule["alert"].lower() and anchor in headings, rule["alert"]


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    text = RULES.with_name("bmdb.test.yml").read_text()
    for rule in rules():
        assert f"alertname: {rule['alert']}}}" in text and f'alertname="{rule["alert"]}"' in text


def test_panels_say_what_they_show() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] == "row" or (panel["description"] and panel["targets"]), panel["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not there")
@pytest.mark.parametrize("arguments", [("check", "rules", "bmdb.yml"), ("test", "rules", "bmdb.test.yml")])
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
