"""Known holes in what this project is built of and with: `python tools/audit.py`.

Licences, sources and bans of crates need no network (deny.toml). Advisories do: where they cannot be fetched, this says
that they were skipped, and does not fail, since whoever builds without a network would learn nothing of it. Exits with
status 1 for anything found.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
ADVISORIES = ROOT / "target" / "advisory-db"
SECONDS = 120
# What the programs say when nobody answers; anything else that they do not like is a finding.
UNREACHABLE = (
    "couldn't fetch advisory database",
    "Could not connect to",
    "ConnectionError",
    "connection timeout",
    "Max retries exceeded",
    "Error from server",
    "Client Error",
    "Server Error",
)


def run(program: str, *arguments: str) -> tuple[int, str]:
    """The program's status, and all that it wrote; without an end after two minutes it counts as unreachable."""
    command = [str(PROGRAMS / program), *arguments]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"{UNREACHABLE[0]} within {SECONDS} s"
    return ended.returncode, ended.stdout


def judge(name: str, status: int, said: str) -> bool:
    """Tells the outcome; false for a finding."""
    if status == 0:
        print(f"{name}: nothing found")
        return True
    if any(sign in said for sign in UNREACHABLE):
        print(f"{name}: SKIPPED, since the advisories cannot be fetched here")
        return True
    print(f"{name}: failed\n{said}")
    return False


def crates() -> bool:
    """The advisories of RustSec on Cargo.lock; those fetched last, where there is no network now."""
    arguments = ["audit", "--db", str(ADVISORIES), "--deny", "yanked", "--deny", "unsound"]
    status, said = run("cargo-audit", *arguments)
    if status != 0 and UNREACHABLE[0] in said and (ADVISORIES / ".git").exists():
        print("cargo-audit: no network, so with the advisories of the last time")
        status, said = run("cargo-audit", *arguments, "--no-fetch", "--stale")
    return judge("cargo-audit (Cargo.lock)", status, said)


def packages() -> bool:
    """The advisories of OSV on requirements.lock, as it stands there: nothing is resolved or installed."""
    arguments = ["--requirement", "requirements.lock", "--require-hashes", "--disable-pip"]
    status, said = run(
        "pip-audit", *arguments, "--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", "10"
    )
    return judge("pip-audit (requirements.lock)", status, said)


def bans() -> bool:
    """Licences, sources and bans of crates, by deny.toml."""
    status, said = run("cargo-deny", "--locked", "--offline", "check", "bans", "licenses", "sources")
    return judge("cargo-deny (bans, licenses, sources)", status, said)


def main(arguments: Sequence[str]) -> int:
    """All three, whatever comes of the first."""
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    outcomes = [bans(), crates(), packages()]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
