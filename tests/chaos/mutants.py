"""Promises taken out of the real library one at a time, and the tests that must notice. What `make mutants` runs.

The texts of statements are changed in a copy of the extension module, in place, so that nothing is built. What is code
is changed in a copy of the sources, all of it behind the variable BMDB_MUTANT, so that one build does for all.
A mutant is caught when one of its tests fails that passes with the library as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "rust" / "core"
MODULE = "_core.abi3.so"
VARIABLE = "BMDB_MUTANT"

FAULTS = "tests/faults/test_"
GIVEN_AWAY = (
    f"{FAULTS}02_paused_between_work_and_finish.py"
    "::test_a_lease_that_the_database_gave_away_is_lost_although_its_session_is_trusted"
)


@dataclass(frozen=True)
class Mutant:
    """What is taken out: in `path`, below rust/core, `old` becomes `new`. `tests`: those that must notice.

    In code either both are expressions, or `new` has a HERE, which is true when this mutant is asked for.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def in_sql(self) -> bool:
        """Whether it changes a statement's text, and needs no build."""
        return self.path.endswith(".sql")

    def original(self) -> str:
        """The file as it is."""
        return (CORE / self.path).read_text()

    def changed(self) -> str:
        """The file as the mutant has it, code being guarded. Raises ValueError unless `old` is there once."""
        original = self.original()
        if original.count(self.old) != 1:
            raise ValueError(f"{self.path} has {original.count(self.old)} times: {self.old}")
        if self.in_sql:
            return original.replace(self.old, self.new)
        return self.guarded(original)

    def guarded(self, source: str) -> str:
        """The source with `old` as something that is `new` when the variable names this mutant."""
        condition = f'(std::env::var("{VARIABLE}").as_deref() == Ok("{self.name}"))'
        new = self.new if "HERE" in self.new else f"(if HERE {{ {self.new} }} else {{ {self.old} }})"
        return source.replace(self.old, new.replace("HERE", condition))


MUTANTS = (
    Mutant(
        "a fence without a lock", "queries/session/fence.sql",
        "session_deadline > clock_timestamp()\nFOR KEY SHARE", "session_deadline > clock_timestamp()",
        (f"{FAULTS}24_collection_in_a_holders_transaction.py",),
    ),
    Mutant(
        "a fence that does not look at the deadline", "queries/session/fence.sql",
        " AND session_deadline > clock_timestamp()", "",
        ("tests/behaviour/sync_/test_sessions.py",),
    ),
    Mutant(
        "a renewal that revives", "queries/session/renew.sql",
        " AND session_deadline > clock_timestamp()", "",
        ("tests/behaviour/sync_/test_sessions.py",),
    ),
    Mutant(
        "a collection that waits for holders", "queries/collect/lock_expired.sql",
        "FOR UPDATE SKIP LOCKED", "FOR UPDATE",
        (f"{FAULTS}24_collection_in_a_holders_transaction.py",),
    ),
    Mutant(
        "a collection that waits for ends", "queries/collect/busy.sql",
        "AND free.machine_id IS NULL", "AND false",
        (f"{FAULTS}24_collection_in_a_holders_transaction.py",),
    ),
    Mutant(
        "a finish that does not compare session and token", "queries/work/finish.sql",
        "\n        AND w.session_id IS NOT DISTINCT FROM wanted.session_id AND w.token = wanted.token", "",
        (GIVEN_AWAY,),
    ),
    Mutant(
        "a claim that is not judged again", "queries/claim/verify.sql",
        "/*judged*/ true\n        AND", "true OR /*judged*/ true AND",
        (f"{FAULTS}43_declared_claims.py",),
    ),
    Mutant(
        "a claim that locks as for a deletion", "queries/claim/scan.sql",
        "FOR NO KEY UPDATE SKIP LOCKED", "FOR UPDATE SKIP LOCKED",
        (f"{FAULTS}44_tags_beside_a_claim.py",),
    ),
    Mutant(
        "a claim that does not touch the token's row", "queries/work/claim.sql",
        "ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + excluded.token",
        "ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token",
        (f"{FAULTS}43_stale_snapshot.py", f"{FAULTS}02_paused_between_work_and_finish.py"),
    ),
    Mutant(
        "a session that trusts itself until the deadline", "src/lease.rs",
        "interval - interval / 5", "interval",
        (f"{FAULTS}08_beats_fail_until_trust_ends.py",),
    ),
    Mutant(
        "trust without an end", "src/lease.rs",
        "self.loss.is_none() && now >= self.trusted_until", "false",
        (f"{FAULTS}03_machine_suspended.py",),
    ),
    Mutant(
        "a lost COMMIT that is told as a failure", "src/settle.rs",
        "return Ok(Some(committed))", "return Ok(Some(false))",
        (f"{FAULTS}14_commit_reply_lost.py",),
    ),
    Mutant(
        "a collection that does not spare what is being ended", "src/collect.rs",
        "!busy.contains(id)", "true",
        (f"{FAULTS}24_collection_in_a_holders_transaction.py",),
    ),
    Mutant(
        "a finish that does not count what it ended", "src/transaction.rs",
        "self.roll_back_or_drop().await?;\n                return Err(self.plan.missing());", "",
        (f"{FAULTS}02_paused_between_work_and_finish.py",),
    ),
    Mutant(
        "ends in a batch that are not counted", "src/batch/ends.rs",
        "_ if ended.contains(&position) => Some(true)", "_ if HERE || ended.contains(&position) => Some(true)",
        (f"{FAULTS}02_paused_between_work_and_finish.py", "tests/behaviour/sync_/test_batches.py"),
    ),
    Mutant(
        "a COMMIT that is sent although trust has ended", "src/transaction/conclude.rs",
        "session.check()", "Ok::<(), Error>(())",
        (f"{FAULTS}03_machine_suspended.py",),
    ),
    Mutant(
        "a COMMIT over a swallowed error", "src/dialect.rs",
        '"SELECT 1; COMMIT"', '{ if HERE { "COMMIT" } else { "SELECT 1; COMMIT" } }',
        (f"{FAULTS}19_swallowed_errors.py",),
    ),
    Mutant(
        "a renewal that counts from its answer", "src/heartbeat.rs",
        "session.renewed(sent, ", "session.renewed(if HERE { self.clock.now() } else { sent }, ",
        (f"{FAULTS}08_answers_that_take_their_time.py",),
    ),
    Mutant(
        "a failover that looks for no claims", "queries/session/forgotten.sql",
        "WHERE NOT EXISTS", "WHERE false AND NOT EXISTS",
        (f"{FAULTS}27_failover.py",),
    ),
    Mutant(
        "a failover that costs no session", "src/timelines.rs",
        "missing(conn, holder.id(), &account).await?", "None",
        (f"{FAULTS}27_failover.py",),
    ),
    Mutant(
        "a primary of the past that may be used", "src/timelines.rs",
        "timeline.is_some_and(|timeline| timeline < self.highest())", "false",
        (f"{FAULTS}28_split_brain.py",),
    ),
    Mutant(
        "an end that is durable here only and reported", "src/batch/ends.rs",
        "Some(true) if *here_only =>", "Some(true) if *here_only && !HERE =>",
        (f"{FAULTS}29_standby_wait_cancelled.py",),
    ),
)  # fmt: skip


def patched(module: bytes, mutant: Mutant) -> bytes:
    """The extension module with a statement's text changed in place. Raises ValueError if it does not have the text."""
    old, new = mutant.original(), mutant.changed()
    if len(new.encode()) > len(old.encode()):
        # Comments make room.
        new = re.sub(r"^--.*\n", "", new, flags=re.MULTILINE)
    text = new.encode().ljust(len(old.encode()))
    if len(text) != len(old.encode()):
        raise ValueError(f"{mutant.name} is longer than what it replaces")
    if old.encode() not in module:
        raise ValueError(f"the module was built from another {mutant.path}: run make venv")
    return module.replace(old.encode(), text)


def package(directory: Path, module: bytes) -> Path:
    """A copy of the Python package with this module, in `directory`; the folder to import it from."""
    shutil.copytree(ROOT / "python", directory, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (directory / "bmdb" / MODULE).write_bytes(module)
    return directory


def run_tests(package: Path, tests: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run tests with the package in that folder."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    whole = {**inherited, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, check=False)


def failed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a test failed. Raises RuntimeError when pytest could not run them."""
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.returncode == 1


def build(directory: Path) -> bytes:
    """The extension module with all mutants of the code in it, each behind the variable."""
    for name in ("rust", "python"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, directory)
    for mutant in MUTANTS:
        if not mutant.in_sql:
            path = directory / "rust" / "core" / mutant.path
            path.write_text(mutant.guarded(path.read_text()))
    maturin = Path(sys.executable).with_name("maturin")
    command = [maturin, "build", "--release", "--locked", "--out", directory / "wheel", "--interpreter", sys.executable]
    quick = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16"}
    # Apart from the checkout's own: cargo would take the one for the other.
    target = {"CARGO_TARGET_DIR": str(ROOT / "target" / "mutants")}
    subprocess.run(command, cwd=directory, env={**os.environ, **quick, **target}, check=True)
    (wheel,) = (directory / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"bmdb/{MODULE}")


def catcher(done: subprocess.CompletedProcess[str]) -> str | None:
    """The test that noticed, if one has. Raises RuntimeError when a test could not even begin, which says nothing."""
    if not failed(done):
        return None
    found = re.search(r"^FAILED \S*::(\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no test ran to a failure:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return found[1]


def outcomes(chosen: Sequence[Mutant]) -> Iterator[tuple[Mutant, str | None, float]]:
    """For each mutant the test that caught it, if one has, and how many seconds that took."""
    module = (ROOT / "python" / "bmdb" / MODULE).read_bytes()
    with tempfile.TemporaryDirectory(prefix="bmdb-mutants-") as folder:
        directory = Path(folder)
        built = None if all(mutant.in_sql for mutant in chosen) else build(directory / "sources")
        for number, mutant in enumerate(chosen):
            changed = patched(module, mutant) if mutant.in_sql else built
            assert changed is not None
            began = time.monotonic()
            done = run_tests(package(directory / str(number), changed), mutant.tests, {VARIABLE: mutant.name})
            yield mutant, catcher(done), time.monotonic() - began


def main() -> int:
    """Run them, print, and answer 1 when one was not caught, or a test fails without any."""
    parser = argparse.ArgumentParser(description="Take promises out of the library, one at a time.")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their names")
    parser.add_argument("--sql", action="store_true", help="only those that need no build")
    asked = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if (mutant.in_sql or not asked.sql) and (not asked.words or any(word in mutant.name for word in asked.words))
    ]
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    if failed(done := run_tests(ROOT / "python", tests, {})):
        print(done.stdout[-3000:], "tests fail without any mutant", sep="\n")
        return 1
    escaped = 0
    for mutant, test, seconds in outcomes(chosen):
        escaped += test is None
        print(f"{mutant.name}: {f'caught by {test}' if test else 'ESCAPED'} in {seconds:.0f} s", flush=True)
    print(f"{len(chosen) - escaped} of {len(chosen)} were caught")
    return int(escaped > 0)


if __name__ == "__main__":
    sys.exit(main())
