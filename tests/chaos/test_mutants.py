"""The list of mutants is in step with the library, and those that need no build and little time are caught here.

`make mutants` runs all of them.
"""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from tests.chaos import mutants
from tests.chaos.mutants import MODULE, MUTANTS, ROOT, Mutant

QUICK = ("a fence without a lock", "a finish that does not compare session and token")


def named(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def test_names_are_different() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS])
def test_what_is_taken_out_is_there_once_and_its_tests_are_there(name: str) -> None:
    mutant = named(name)
    assert mutant.changed() != mutant.original()
    assert mutant.tests
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS if mutant.in_sql])
def test_a_statement_is_changed_in_place(name: str) -> None:
    mutant = named(name)
    original = mutant.original().encode()
    changed = mutants.patched(b"\x00" + original + b"\x01", mutant)
    assert len(changed) == len(original) + 2
    assert changed[1:-1].strip() != original.strip()


def test_what_is_not_there_any_more_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 0 times"):
        dataclasses.replace(MUTANTS[0], old="no such text").changed()
    with pytest.raises(ValueError, match="built from another"):
        mutants.patched(b"", MUTANTS[0])


def test_only_a_test_that_ran_has_caught_something() -> None:
    def done(code: int, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, f"====\n{line}\n", "")

    assert mutants.catcher(done(0, "2 passed")) is None
    assert mutants.catcher(done(1, "FAILED tests/x.py::test_it[a] - assert 1 == 2")) == "test_it[a]"
    with pytest.raises(RuntimeError, match="no test ran"):
        mutants.catcher(done(1, "ERROR tests/x.py::test_it - AttributeError"))
    with pytest.raises(RuntimeError, match="ended with 4"):
        mutants.catcher(done(4, "no such file"))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_of_a_statement_is_caught(name: str, tmp_path: Path) -> None:
    mutant = named(name)
    module = (ROOT / "python" / "bmdb" / MODULE).read_bytes()
    package = mutants.package(tmp_path / "package", mutants.patched(module, mutant))
    done = mutants.run_tests(package, mutant.tests, {})
    assert mutants.catcher(done) is not None, done.stdout[-3000:]
