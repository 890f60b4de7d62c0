"""The border rules of the core crate: what it may depend on, and which of its modules may know which."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "rust" / "core"

PURE = ("backoff", "eligibility", "hold", "lease", "pace", "retry", "sqlstate", "tag", "value")
# What the pure modules may name of the crate: each other, texts of statements, and the error that all answer with.
KNOWN_TO_PURE = {*PURE, "dialect", "error", "queries"}
IMPURE = re.compile(
    r"\b(?:tokio\w*|rustls\w*|rustix|fastrand)::"
    r"|\bstd::(?:env|fs|process|thread)\b"
    r"|\b(?:Instant|SystemTime)::now\b"
    r"|\b(?:TcpStream|TcpListener|UdpSocket|UnixStream|ToSocketAddrs)\b"
)
# From the bottom up; a module may name those of its own rank and below. What is not listed is at the bottom.
# A session is below transactions, as what they are fenced by; what it takes to start and end one is in connection.
RANKS = [
    {"session"},
    {"settle", "transaction"},
    {"collect", "process", "work"},
    {"batch", "foreign", "overdue"},
    {"heartbeat"},
    {"connection"},
]


def code_of(text: str) -> str:
    """Rust without its comments and without the tests at its end."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"//.*", "", text)
    return text.partition("#[cfg(test)]")[0]


def files_of(core: Path, module: str) -> list[Path]:
    """The files of a module, be it one file or a folder of them."""
    single = core / "src" / f"{module}.rs"
    return ([single] if single.exists() else []) + sorted((core / "src" / module).rglob("*.rs"))


def modules_of(core: Path) -> list[str]:
    """The modules that lib.rs declares."""
    return re.findall(
        r"^\s*(?:pub(?:\(crate\))? )?mod (\w+);", code_of((core / "src/lib.rs").read_text()), re.MULTILINE
    )


def names_of_crate(code: str, *, top_level: bool) -> set[str]:
    """The modules of the crate that the code names by path: crate::a::B, crate::{a, b::C}, super::a at top level."""
    origin = r"\b(?:crate|super)::" if top_level else r"\b(?:crate|super::super)::"
    named = set()
    for match in re.finditer(origin, code):
        rest = code[match.end() :]
        if not rest.startswith("{"):
            named.update(re.findall(r"^\w+", rest))
            continue
        depth, item = 0, ""
        for character in rest:
            depth += (character == "{") - (character == "}")
            if (character == "," and depth == 1) or not depth:
                named.update(re.findall(r"^\s*(\w+)", item))
                item = ""
            elif depth > 1 or character != "{":
                item += character
            if not depth:
                break
    return named


def knows(core: Path, module: str) -> set[str]:
    """The other modules that `module` names."""
    found: set[str] = set()
    for path in files_of(core, module):
        found |= names_of_crate(code_of(path.read_text()), top_level=path.parent == core / "src")
    return found & set(modules_of(core)) - {module}


def rank(module: str) -> int:
    return next((number for number, level in enumerate(RANKS, start=1) if module in level), 0)


def impurities(core: Path) -> list[str]:
    """Where pure modules do I/O, read a clock, or know a module that may."""
    found = []
    for module in PURE:
        found += [f"{module} knows {other}" for other in sorted(knows(core, module) - KNOWN_TO_PURE)]
        for path in files_of(core, module):
            found += [f"{path.name} uses {use}" for use in IMPURE.findall(code_of(path.read_text()))]
    return found


def upward_arrows(core: Path) -> list[str]:
    """Where a module names one that stands above it."""
    return [
        f"{module} knows {other}"
        for module in modules_of(core)
        for other in sorted(knows(core, module))
        if rank(other) > rank(module)
    ]


def unnamed_queries(core: Path) -> list[str]:
    """The statement files that queries.rs and its cockroachdb.rs do not name, as folder and file next to each other."""
    named = set(re.findall(r'"(\w+)",\s*"(\w+)"', code_of((core / "src/queries.rs").read_text())))
    variants = re.findall(r'"(\w+)/(\w+)"', code_of((CORE / "src/queries/cockroachdb.rs").read_text()))
    named.update((folder, f"{file}.cockroachdb") for folder, file in variants)
    return [
        str(path.relative_to(core))
        for path in sorted((core / "queries").rglob("*.sql"))
        if (path.parent.name, path.stem) not in named
    ]


def uses_of_unsafe(core: Path) -> list[str]:
    return [
        str(path.relative_to(core))
        for path in sorted(core.rglob("*.rs"))
        if re.search(r"\bunsafe\b(?!_)", re.sub(r'"(?:\\.|[^"\\])*"', '""', re.sub(r"//.*", "", path.read_text())))
    ]


def reachable(metadata: dict[str, Any], package: str) -> set[str]:
    """The names of all packages that `package` is built with, its own included, by what cargo resolved."""
    names = {entry["id"]: entry["name"] for entry in metadata["packages"]}
    nodes = {node["id"]: node["dependencies"] for node in metadata["resolve"]["nodes"]}
    waiting = [key for key, name in names.items() if name == package]
    seen: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen.add(key)
            waiting += nodes[key]
    return {names[key] for key in seen}


@pytest.fixture(scope="module")
def metadata() -> Any:
    host = re.findall(r"^host: (.+)$", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE)[0]
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    return json.loads(subprocess.check_output(command, cwd=ROOT, text=True))


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A crate that obeys every rule, for the tests that break one."""
    files = {
        "src/lib.rs": "".join(f"pub mod {module};\n" for module in (*PURE, "error", "pool", *chain(*RANKS))),
        "src/backoff.rs": "use crate::{error::Error, value::{Param, Row}};\n// crate::pool, tokio::\n",
        "src/queries.rs": 'queries! { SESSION_POKE = "session", "poke", One; }\n',
        "src/session.rs": "use crate::pool;\n",
        "src/transaction.rs": "use crate::{session, pool::Pool};\n#[cfg(test)]\nmod tests { use crate::work::Work; }\n",
        "src/value/mod.rs": "use super::super::error::Error;\nmod shape; // unsafe\n#![forbid(unsafe_code)]\n",
        "src/value/shape.rs": "use super::Param;\n",
        "queries/session/poke.sql": "SELECT 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text if path.exists() else text)


def test_the_core_does_not_depend_on_pyo3(metadata: dict[str, Any]) -> None:
    tree = reachable(metadata, "bmdb-core")
    assert "tokio-postgres" in tree
    assert not {name for name in tree if name.startswith("pyo3")}


def test_the_scan_of_dependencies_sees_pyo3_where_it_is(metadata: dict[str, Any]) -> None:
    assert {"bmdb-core", "pyo3"} <= reachable(metadata, "bmdb-python")


def test_pure_modules_do_no_io_and_know_only_each_other() -> None:
    assert all(files_of(CORE, module) for module in PURE)
    assert impurities(CORE) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("src/backoff.rs", "use crate::pool::Pool;", "backoff knows pool"),
        ("src/backoff.rs", "use crate::{value::Row, pool};", "backoff knows pool"),
        ("src/backoff.rs", "fn f(s: &super::session::Session) {}", "backoff knows session"),
        ("src/value/shape.rs", "use super::super::pool::Pool;", "value knows pool"),
        ("src/value/shape.rs", "use tokio::time;", "shape.rs uses tokio::"),
        ("src/backoff.rs", "let now = std::time::Instant::now();", "backoff.rs uses Instant::now"),
        ("src/backoff.rs", "use std::fs;", "backoff.rs uses std::fs"),
    ],
)
def test_the_scan_of_pure_modules_finds_a_violation(core: Path, name: str, text: str, complaint: str) -> None:
    assert impurities(core) == []
    append(core / name, text)
    assert impurities(core) == [complaint]


def test_arrows_between_modules_point_down() -> None:
    assert {module for level in RANKS for module in level} <= set(modules_of(CORE))
    assert upward_arrows(CORE) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("src/pool.rs", "use crate::transaction::Transaction;", "pool knows transaction"),
        ("src/pool.rs", "use crate::session;", "pool knows session"),
        ("src/error.rs", "impl From<crate::session::Gone> for Error {}", "error knows session"),
        ("src/session.rs", "use crate::{pool::Pool, transaction::Transaction};", "session knows transaction"),
        ("src/work.rs", "use crate::heartbeat::Heartbeat;", "work knows heartbeat"),
    ],
)
def test_the_scan_of_arrows_finds_one_that_points_up(core: Path, name: str, text: str, complaint: str) -> None:
    assert upward_arrows(core) == []
    append(core / name, text)
    assert upward_arrows(core) == [complaint]


def test_every_statement_file_is_named_by_the_queries_module() -> None:
    assert list((CORE / "queries").rglob("*.sql"))
    assert unnamed_queries(CORE) == []


def test_the_scan_of_statements_finds_one_that_is_not_named(core: Path) -> None:
    assert unnamed_queries(core) == []
    append(core / "queries/session/forgotten.sql", "SELECT 2\n")
    append(core / "src/queries.rs", '// "session", "forgotten"\n')
    assert unnamed_queries(core) == ["queries/session/forgotten.sql"]


def test_the_core_is_free_of_unsafe_code() -> None:
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert workspace["lints"]["rust"]["unsafe_code"] == "forbid"
    assert tomllib.loads((CORE / "Cargo.toml").read_text())["lints"] == {"workspace": True}
    assert uses_of_unsafe(CORE) == []


def test_the_scan_for_unsafe_code_finds_it(core: Path) -> None:
    append(core / "src/pool.rs", 'const WORD: &str = "unsafe";\n')
    assert uses_of_unsafe(core) == []
    append(core / "src/pool.rs", "fn f() { unsafe { core::hint::unreachable_unchecked() } }\n")
    assert uses_of_unsafe(core) == ["src/pool.rs"]
