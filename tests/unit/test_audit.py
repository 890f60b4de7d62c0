"""What the audit takes for a finding, and what for a missing network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import audit


def test_a_finding_fails_and_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert not audit.judge("cargo-audit", 1, "Crate: ring\nID: RUSTSEC-2025-0009")
    assert "RUSTSEC-2025-0009" in capsys.readouterr().out


@pytest.mark.parametrize(
    "said", ["error: couldn't fetch advisory database: no route", "requests.exceptions.ConnectionError: …"]
)
def test_a_missing_network_is_said_and_does_not_fail(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.judge("cargo-audit", 1, said)
    assert "SKIPPED" in capsys.readouterr().out


def test_a_licence_that_is_not_allowed_fails(tmp_path: Path) -> None:
    """The rules in deny.toml are the ones that are asked."""
    rules = (audit.ROOT / "deny.toml").read_text()
    assert '"MIT", ' in rules
    (tmp_path / "deny.toml").write_text(rules.replace('"MIT", ', "").replace('"Apache-2.0", ', ""))
    command = ["--locked", "--offline", "check", "--config", str(tmp_path / "deny.toml"), "licenses"]
    status, said = audit.run("cargo-deny", *command)
    assert status != 0
    assert not audit.judge("cargo-deny", status, said)


def test_it_takes_no_arguments() -> None:
    ended = subprocess.run([sys.executable, audit.__file__, "--quick"], capture_output=True, check=False)
    assert ended.returncode == 2
