"""Rules for all sources: length, names, no SQL under python/, what some Python modules may hold, one version."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "bmdb"
LONGEST = 600
SUFFIXES = {".py", ".pyi", ".rs", ".sql"}
GENERATED = {"_sync", "sync_"}
NOT_OURS = {"target", "dist", "node_modules", "__pycache__"}
FORBIDDEN = {"common", "helper", "helpers", "impl", "impls", "util", "utils"}
# Users of the package like any other; the rest is what its front is made of.
ABOVE = {
    "__init__",
    "__main__",
    "cli",
    "demo",
    "janitor",
    "loops",
    "metrics",
    "otel",
    "psycopg",
    "sqlalchemy",
    "testing",
    "web",
}

# Ends a transaction in place of the server, and reads the tags of its answers.
PLAYS_THE_SERVER = PACKAGE / "testing" / "proxy" / "exchange.py"

STATEMENT = re.compile(
    r"\bSELECT\s+\S"
    r"|\bINSERT\s+INTO\s"
    r"|\bUPDATE\s+\S+(?:\s+(?:AS\s+)?\w+)?\s+SET\s"
    r"|\bDELETE\s+FROM\s"
    r"|\b(?:CREATE|ALTER|DROP)\s+(?:DATABASE|FUNCTION|INDEX|ROLE|SCHEMA|SEQUENCE|TABLE|TRIGGER|TYPE|USER|VIEW)\s"
    r"|\bTRUNCATE\s+(?:TABLE\s+)?\w"
    r"|\bWITH\s+\w+\s+AS\s*\("
    r"|^\s*(?:ABORT|BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION|(?:LISTEN|NOTIFY|SHOW)\s+\w+)"
    r"(?:\s+(?:WORK|TRANSACTION|ISOLATION\s+LEVEL\s+[A-Z ]+|READ\s+\w+|PREPARED\b.*))*\s*;?\s*$"
    r"|^\s*(?:SAVEPOINT|RELEASE\s+SAVEPOINT|ROLLBACK\s+TO|LOCK\s+TABLE|SET\s+(?:LOCAL|SESSION|TRANSACTION))\s"
)
# In lower case only where a text starts like a statement: prose may well select something from a list.
LOWER_STATEMENT = re.compile(
    r"^\s*(?:select\s+[\w*.,()\s]+?\s+from\s+\w+\s*(?:$|where|order|limit|join|for|group|;)"
    r"|select\s+\w+\(|insert\s+into\s+\w|delete\s+from\s+\w+\s*(?:$|where|;)|update\s+\w+\s+set\s+\w+\s*="
    r"|(?:create|alter|drop)\s+(?:table|index|type|schema|database|role)\s+"
    r"(?:if\s+(?:not\s+)?exists\b|\w+\s*(?:$|[(;]|(?:add|as|cascade|drop|on|with)\b)))"
)


def sources(root: Path) -> Iterator[Path]:
    """Every source file that people write, with its path relative to `root`."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        folders = relative.parts[:-1]
        if path.suffix not in SUFFIXES or NOT_OURS & set(folders) or any(part.startswith(".") for part in folders):
            continue
        yield relative


def too_long(root: Path) -> list[str]:
    """Sources of more than 600 lines; generated ones are as long as they have to be."""
    lengths = {
        path: len((root / path).read_text(encoding="utf-8").splitlines())
        for path in sources(root)
        if not GENERATED & set(path.parts)
    }
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST]


def badly_named(root: Path) -> list[str]:
    """Sources, or folders of them, whose name says nothing about what they hold."""
    return [
        str(path)
        for path in sources(root)
        if any(FORBIDDEN & set(re.split(r"[_\-.]", part.lower())) for part in (*path.parts[:-1], path.stem))
    ]


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text in the code with its line. Docstrings are left out; an f-string's values are shown as {}."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                skipped.add(id(first.value))
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in skipped:
            yield node.lineno, node.value if isinstance(node.value, str) else node.value.decode("latin-1")


def statements(source: str) -> list[int]:
    """The lines on which a text is a statement of SQL."""
    return [line for line, text in texts(ast.parse(source)) if STATEMENT.search(text) or LOWER_STATEMENT.search(text)]


def imports(source: str) -> set[str]:
    """What the source imports when it runs, as dotted names: `from a import b` is a.b, `from . import b` is ..b."""
    tree = ast.parse(source)
    only_for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def own_imports(source: str) -> list[str]:
    """The imports of the package itself."""
    return sorted(name for name in imports(source) if name.startswith((".", "bmdb.")) or name == "bmdb")


def through_the_front(source: str) -> list[str]:
    """Imports of public names from the front of the package, which pulls in both twins and all below them."""
    modules = {path.stem for path in PACKAGE.iterdir()} | {"_core", "errors"}
    return [
        name
        for name in own_imports(source)
        if name == "bmdb" or (name.count(".") == 1 and name.removeprefix("bmdb.") not in modules)
    ]


def more_than_imports(source: str) -> list[int]:
    """The lines of a package's front that are neither its docstring, an import, `__all__` nor `__version__`."""
    found = []
    for number, node in enumerate(ast.parse(source).body):
        docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        named = isinstance(node, ast.Assign | ast.AnnAssign) and re.match(r"__(all|version)__\b", ast.unparse(node))
        if not (docstring or named or isinstance(node, ast.Import | ast.ImportFrom)):
            found.append(node.lineno)
    return found


def place(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_no_source_is_longer_than_600_lines() -> None:
    assert too_long(ROOT) == []


def test_the_scan_of_lengths_finds_a_long_file(tmp_path: Path) -> None:
    place(tmp_path, "rust/core/src/fits.rs", "//\n" * 600)
    place(tmp_path, "python/bmdb/_sync/made.py", "#\n" * 601)
    place(tmp_path, "target/debug/made.rs", "//\n" * 601)
    assert too_long(tmp_path) == []
    place(tmp_path, "rust/core/src/long.rs", "//\n" * 601)
    assert too_long(tmp_path) == ["rust/core/src/long.rs: 601 lines"]


def test_every_source_is_named_after_what_it_holds() -> None:
    assert badly_named(ROOT) == []


def test_the_scan_of_names_finds_empty_ones(tmp_path: Path) -> None:
    place(tmp_path, "python/bmdb/commonplace.py", "")
    assert badly_named(tmp_path) == []
    bad = ["python/bmdb/db_utils.py", "rust/core/src/helpers/mod.rs", "rust/core/src/impls.rs"]
    for name in bad:
        place(tmp_path, name, "")
    assert badly_named(tmp_path) == bad


def test_there_is_no_sql_under_python() -> None:
    found = {
        path: statements(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PLAYS_THE_SERVER
    }
    assert found
    assert {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        '"SELECT 1"',
        'f"SELECT {column} FROM machine"',
        '"""\n  INSERT INTO machine VALUES ($1)"""',
        '"UPDATE work SET token = 1"',
        '"UPDATE work AS w SET token = 1"',
        'b"DELETE FROM work"',
        '"CREATE TABLE t ()"',
        '"WITH gone AS (DELETE " "FROM work) TABLE gone"',
        '"BEGIN"',
        '"ROLLBACK TO SAVEPOINT x"',
        '"SET LOCAL lock_timeout = 1"',
        '"select machine_id from machine where x"',
        '"insert into machine values (1)"',
        '"BEGIN ISOLATION LEVEL SERIALIZABLE"',
        '"create table machine (machine_id uuid)"',
        '"update work set token = 1"',
    ],
)
def test_the_scan_for_sql_finds_a_statement(text: str) -> None:
    assert statements(f"x = {text}\n") == [1]
    assert statements(f"def f(x={text}): pass\n") == [1]


@pytest.mark.parametrize(
    "text",
    [
        '"Select a machine from the list"',
        '"select a machine from the list"',
        '"update the session before its deadline"',
        '"COMMIT was sent and its outcome is not known"',
        '"create table of machines"',
        '"the transaction must begin anew"',
    ],
)
def test_the_scan_for_sql_leaves_prose_alone(text: str) -> None:
    assert statements(f"x = {text}\n") == []


def test_the_scan_for_sql_reads_neither_docstrings_nor_comments() -> None:
    assert statements('def f():\n    """q.execute("SELECT 1")"""\n    # SELECT 1\n') == []


def test_errors_import_nothing_of_the_package() -> None:
    assert own_imports((PACKAGE / "errors.py").read_text(encoding="utf-8")) == []


def test_only_what_stands_above_the_twins_imports_through_the_package_front() -> None:
    found = {
        str(path.relative_to(ROOT)): through_the_front(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in ABOVE
    }
    assert found
    assert {path: names for path, names in found.items() if names} == {}


def test_the_scan_of_imports_sees_every_form() -> None:
    source = (
        "import bmdb\nimport os\nfrom bmdb import Connection, errors\nfrom bmdb.errors import Error\n"
        "from . import x\nfrom .y import z\nif TYPE_CHECKING:\n    from bmdb import Work\n"
    )
    assert own_imports(source) == ["..x", ".y.z", "bmdb", "bmdb.Connection", "bmdb.errors", "bmdb.errors.Error"]
    assert through_the_front(source) == ["bmdb", "bmdb.Connection"]


def test_the_front_of_the_package_only_imports() -> None:
    assert more_than_imports((PACKAGE / "__init__.py").read_text(encoding="utf-8")) == []


def test_the_scan_of_the_front_finds_code() -> None:
    source = '"""Doc."""\nimport os\nfrom os import path\n__all__ = ["path"]\n__version__: str = "1"\n'
    assert more_than_imports(source) == []
    assert more_than_imports(source + "def f(): pass\nx = 1\n'text'\n") == [6, 7, 8]


def test_the_wheel_and_the_crates_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert project["version"] == workspace["package"]["version"]
