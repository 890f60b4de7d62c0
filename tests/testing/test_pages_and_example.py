"""The page about testing, and the example with its tests, run by a pytest of their own as in users' projects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "rebooter"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "testing.md").read_text(), re.MULTILINE | re.DOTALL)


def run(*arguments: str | Path, directory: Path) -> str:
    """Run pytest in a process of its own, without this project's configuration; its output. Fails if it fails."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "error", *map(str, arguments)]
    command += ["-W", "ignore:XDG_RUNTIME_DIR", "--rootdir", str(directory), "-c", os.devnull]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_examples_tests_pass_alone_and_in_several_processes() -> None:
    assert "7 passed" in run("-n", "2", EXAMPLE, directory=EXAMPLE)


def test_every_test_on_the_page_passes(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"test_block_{number}.py").write_text(block)
    assert f"{len(BLOCKS)} passed" in run(tmp_path, directory=tmp_path)


ASYNC = """
import pytest

async def lease(bmdb_async_connect, machine):
    async with bmdb_async_connect() as connection, await connection.start_session() as session:
        async with session.work("Look", lambda q: [machine]) as work:
            await work.finish()

@pytest.mark.asyncio
async def test_with_pytest_asyncio(bmdb_async_connect, bmdb_fleet):
    [machine] = bmdb_fleet(1)
    await lease(bmdb_async_connect, machine)
    assert bmdb_fleet.events(machine) == ["Started", "Finished"]

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_with_anyio(bmdb_async_connect, bmdb_fleet, bmdb_clock, bmdb_faults):
    [machine] = bmdb_fleet(1)
    with bmdb_faults.cut_at_commit():
        await lease(bmdb_async_connect, machine)
    assert bmdb_clock.pass_backoffs() == 0
    assert bmdb_fleet.events(machine) == ["Started", "Finished"]
"""


def test_async_tests_run_by_whatever_plugin_runs_them(tmp_path: Path) -> None:
    (tmp_path / "test_async.py").write_text(ASYNC)
    assert "2 passed" in run(tmp_path, directory=tmp_path)


IDLE = """
import sys

def test_nothing():
    assert not [name for name in sys.modules if name.split(".")[0] == "bmdb"]
"""


def test_a_run_without_the_fixtures_imports_nothing_of_bmdb(tmp_path: Path) -> None:
    (tmp_path / "test_idle.py").write_text(IDLE)
    assert "1 passed" in run(tmp_path, directory=tmp_path)


def test_the_fixtures_are_listed_with_their_documentation(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--fixtures", "-W", "ignore", "-c", os.devnull, "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    page = (ROOT / "docs" / "testing.md").read_text()
    for name in re.findall(r"^(bmdb_\w+)", listed, re.MULTILINE):
        assert f"`{name}`" in page
    assert len(re.findall(r"^bmdb_\w+", listed, re.MULTILINE)) == 10
    assert not re.search(r"^bmdb_\w+.*\n +no docstring available", listed, re.MULTILINE)
