"""The import contracts of pyproject.toml hold for the package, and break when an arrow points up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def broken_contracts(root: Path) -> str:
    """What import-linter says about the package `bmdb` under `root`; empty if every contract is kept."""
    linter = Path(sys.executable).with_name("lint-imports")
    command = [str(linter), "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Contracts" in done.stdout, done.stdout
    return done.stdout.partition("Broken contracts")[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A checkout whose package has each layer once, and no import that breaks a contract."""
    for layer in ("cli", "web", "metrics", "_async", "_sync"):
        (tmp_path / "bmdb" / layer).mkdir(parents=True)
        (tmp_path / "bmdb" / layer / "__init__.py").touch()
        (tmp_path / "bmdb" / layer / "part.py").write_text("from bmdb import _core, errors\n")
    (tmp_path / "bmdb" / "__init__.py").write_text("from bmdb import _async, _sync\nfrom bmdb._sync import part\n")
    (tmp_path / "bmdb" / "errors.py").touch()
    (tmp_path / "bmdb" / "cli" / "part.py").write_text("from bmdb import _sync, metrics, web\n")
    return tmp_path


def test_the_package_keeps_every_contract() -> None:
    assert broken_contracts(ROOT / "python") == ""


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("_async", "_sync"),
        ("_sync", "_async"),
        ("_sync", "cli"),
        ("_async", "metrics"),
        ("_sync", "web"),
        ("metrics", "cli"),
        ("web", "cli"),
    ],
)
def test_an_import_that_points_up_or_across_breaks_one(package: Path, importer: str, imported: str) -> None:
    assert broken_contracts(package) == ""
    (package / "bmdb" / importer / "part.py").write_text(f"from bmdb.{imported} import part\n")
    assert f"bmdb.{importer}.part -> bmdb.{imported}.part" in broken_contracts(package)


def test_errors_stand_on_nothing(package: Path) -> None:
    (package / "bmdb" / "errors.py").write_text("from bmdb._sync import part\n")
    assert "bmdb.errors -> bmdb._sync.part" in broken_contracts(package)
