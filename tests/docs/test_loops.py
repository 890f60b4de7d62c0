"""The example of docs/loops.md runs and stops by itself; its tables name every setting there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import psycopg
from tests.conftest import MakeMachines
from tests.docs.test_readme import run

import bmdb
from bmdb.cli import main

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "loops.md").read_text()
EXAMPLE, DECLARED = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_declared_one_reports_on_machines_and_stops(
    database: str, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    made = machines(3)
    assert run(DECLARED, database).strip() == "stopped in good order"
    reported = sql.execute("SELECT machine_id FROM machine_hardware_report").fetchall()
    assert sorted(machine for (machine,) in reported) == sorted(made)


def test_the_example_works_on_machines_and_stops(
    database: str, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    (machine,) = machines(1)
    sql.execute(
        "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, 'Equinix', 'unit')", [machine]
    )
    # What it logs goes to standard error only from warnings on, and there are none.
    assert run(EXAMPLE, database) == "stopped in good order\n"
    assert sql.execute("SELECT machine_id FROM machine_agent_started").fetchall() == [(machine,)]
    failed = sql.execute("SELECT cause, last_interval_seconds FROM work_backoff").fetchall()
    assert failed == [("nobody is at home", 3600)]


def test_the_tables_name_every_setting() -> None:
    for callable_, first in ((bmdb.loop, "process"), (bmdb.run, "loops"), (bmdb.Runner, "loops")):
        names = [name for name in inspect.signature(callable_).parameters if not name.startswith("_")]
        assert names[0] == first
        assert [name for name in names[1:] if f"`{name}`" not in TEXT] == []


def test_the_tables_name_every_option(capsys: Any) -> None:
    assert main(["run", "--help"]) == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--log-level", "--wakeup"}
    assert {option for option in options if f"`{option}`" not in TEXT} == set()
