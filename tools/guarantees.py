"""Write the table of docs/guarantees.md: `python tools/guarantees.py [--check | --measure]`.

What happens and what is promised is read from the docstrings of tests/faults; whether it held, and what was measured,
from docs/guarantees.json, where --measure keeps the last run on each version of PostgreSQL. The format is in
CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "faults"
DOCUMENT = ROOT / "docs" / "guarantees.md"
RESULTS = ROOT / "docs" / "guarantees.json"
MARKS = ("<!-- written by make guarantees -->", "<!-- end of guarantees -->")
ROWS = range(1, 45)
SIDES = ("sync", "async", "psycopg")

FIRST = re.compile(r"Rows? (\d+(?:, \d+)*): (.+)", re.DOTALL)
PROMISED = re.compile(r"Promised: (.+)", re.DOTALL)
FILE = re.compile(r"test_(\d\d)_(\w+)\.py")


@dataclass(frozen=True)
class Hazard:
    """A test file of a fault: its rows, its own first, and what its docstring says."""

    path: Path
    rows: tuple[int, ...]
    happens: str
    promised: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


def hazard(path: Path) -> Hazard:
    """What a test file says of itself. Raises ValueError with what is wrong."""
    named = FILE.fullmatch(path.name)
    paragraphs = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")
    first = FIRST.fullmatch(paragraphs[0])
    if named is None or first is None:
        raise ValueError(f"{path.name}: it does not begin with 'Row {path.name[5:7]}: …'")
    promised = PROMISED.fullmatch(paragraphs[1]) if len(paragraphs) > 1 else None
    if promised is None:
        raise ValueError(f"{path.name}: its second paragraph is not 'Promised: …'")
    rows = tuple(int(row) for row in first[1].split(", "))
    if rows[0] != int(named[1]):
        raise ValueError(f"{path.name}: it begins with row {rows[0]}")
    return Hazard(path, rows, _flat(first[2]), _flat(promised[1]))


def hazards(folder: Path = TESTS) -> list[Hazard]:
    """All of them, by number and name. Raises ValueError."""
    return [hazard(path) for path in sorted(folder.glob("test_*.py"))]


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def shown(value: float, unit: str) -> str:
    """A figure with three significant digits."""
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1:
                return f"{value * factor:.3g} {name}"
        return "0 s"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def figures(noted: list[list[Any]]) -> list[str]:
    """What a file's tests noted, text by text: the largest value, or the sum where they say of how many."""
    texts: dict[str, list[list[Any]]] = {}
    for each in noted:
        texts.setdefault(each[0], []).append(each)
    told = []
    for text, found in texts.items():
        if found[0][3] is not None:
            told.append(f"{text}: {sum(each[1] for each in found):,g} of {sum(each[3] for each in found):,}")
        else:
            told.append(f"{text} {shown(max(each[1] for each in found), found[0][2])}")
    return told


def outcome(result: dict[str, Any] | None) -> str:
    """How the tests of a file went, in a word or two."""
    if result is None:
        return "not run yet"
    told = [f"**{result['failed']} failed**"] if result["failed"] else []
    told += [f"{result['passed']} passed"] if result["passed"] else []
    told += [f"{count} skipped: {_flat(reason)}" for reason, count in sorted(result["skipped"].items())]
    return ", ".join(told)


def section(found: list[Hazard], results: dict[str, Any]) -> str:
    """The table, and how it came to be."""
    servers = sorted(results["servers"], key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    runs = {version: results["servers"][version]["files"] for version in servers}
    heads = [f"PostgreSQL {version}" for version in servers]
    lines = [
        f"| # | what happens | promised | API | measured | {' | '.join(heads)} |",
        f"| ---: | --- | --- | --- | --- | {' | '.join('---' for _ in servers)} |",
    ]
    for each in found:
        first = next((run[each.name] for run in runs.values() if each.name in run), None)
        sides = ", ".join(side for side in SIDES if first and side in first["sides"])
        measured = "; ".join(first["figures"]) if first else ""
        rows = ", ".join(map(str, each.rows))
        link = f"[{each.happens}](../tests/faults/{each.name})"
        ends = " | ".join(outcome(run.get(each.name)) for run in runs.values())
        lines.append(f"| {rows} | {link} | {each.promised} | {sides} | {_flat(measured)} | {ends} |")
    covered = {row for each in found for row in each.rows}
    missing = [str(row) for row in ROWS if row not in covered]
    left = f" Without a test of their own: {', '.join(missing)}." if missing else ""
    took = [(version, results["servers"][version]) for version in servers]
    described = "; ".join(f"PostgreSQL {version}: {run['seconds']} s on {run['machine']}" for version, run in took)
    prose = (
        "Each can be run: `make test TESTS=tests/faults/test_09_dead_link.py`, with `PG=15` on an installed"
        " PostgreSQL of that version, and all of them with `make guarantees`, which writes this table. Of times it"
        f" shows the longest.{left} {described}."
    )
    return "\n".join(lines) + "\n\n" + textwrap.fill(prose, 120, break_long_words=False, break_on_hyphens=False)


def replaced(document: str, text: str) -> str:
    """The document with the text between the marks. Raises ValueError when they are not there once."""
    before, after = MARKS
    new, count = re.subn(
        re.escape(before) + ".*?" + re.escape(after), lambda _: f"{before}\n{text}\n{after}", document, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"there is no one place between {before} and {after}")
    return new


def page() -> str:
    """docs/guarantees.md as it should be. Raises ValueError."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"servers": {}}
    return replaced(DOCUMENT.read_text(), section(hazards(), results))


@dataclass
class Recorder:
    """A plugin of pytest that notes how each file's tests went."""

    version: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = Path(report.nodeid.partition("::")[0]).name
        if not FILE.fullmatch(name):
            return
        noted = dict.fromkeys(SIDES, 0)
        of_file = self.files.setdefault(name, {"counts": Counter(), "skipped": Counter(), "sides": noted, "noted": []})
        if report.failed or report.when == "call":
            of_file["counts"][report.outcome] += not report.skipped
        if report.skipped and isinstance(report.longrepr, tuple):
            of_file["skipped"][report.longrepr[2].removeprefix("Skipped: ")] += 1
        if report.when != "teardown":
            return
        for key, value in report.user_properties:
            if key == "sides":
                of_file["sides"].update(dict.fromkeys(str(value).split(), 1))
            elif key == "figure":
                of_file["noted"].append(list(value))  # type: ignore[call-overload]
            elif key == "postgresql":
                self.version = str(value)

    def result(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What docs/guarantees.json keeps of each file."""
        for name, of_file in sorted(self.files.items()):
            yield (
                name,
                {
                    "passed": of_file["counts"]["passed"],
                    "failed": of_file["counts"]["failed"],
                    "skipped": dict(of_file["skipped"]),
                    "sides": [side for side, seen in of_file["sides"].items() if seen],
                    "figures": figures(of_file["noted"]),
                },
            )


def measure(arguments: list[str]) -> int:
    """Run tests/faults, keep what came of it beside what other versions of PostgreSQL did; pytest's exit status."""
    recorder = Recorder()
    began = time.monotonic()
    # Two at a time: most of them wait most of the time, and what they measure should not.
    options = ["-q", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadfile"]
    status = pytest.main([*options, *(arguments or [str(TESTS)])], plugins=[recorder])
    if not recorder.version:
        print("no test told the server's version: nothing is kept", file=sys.stderr)
        return int(status) or 1
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"servers": {}}
    machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
    kept = results["servers"].setdefault(recorder.version, {"files": {}})
    if not arguments:
        kept["files"].clear()
    kept["files"].update(recorder.result())
    kept.setdefault("seconds", 0)
    if not arguments:
        kept["seconds"] = round(time.monotonic() - began)
    kept["machine"] = machine
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return int(status)


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description="Write the table of docs/guarantees.md.")
    parser.add_argument("--check", action="store_true", help="only tell whether it is in step")
    parser.add_argument("--measure", action="store_true", help="run tests/faults first, or the tests named after it")
    parser.add_argument("rest", nargs="*", help="arguments for pytest (default: all of tests/faults)")
    chosen = parser.parse_args(arguments)
    status = measure(chosen.rest) if chosen.measure else 0
    wanted = page()
    if chosen.check:
        if wanted != DOCUMENT.read_text():
            print("docs/guarantees.md is out of date: run tools/guarantees.py", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(wanted)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
