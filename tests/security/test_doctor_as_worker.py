"""`bmdb doctor` knows what the roles of `bmdb migrate --roles` are there for."""

from __future__ import annotations

import pytest

from bmdb.cli.doctor import examine
from bmdb.cli.doctor.finding import Level
from tests.security.conftest import Fleet


@pytest.mark.parametrize(
    ("kind", "enough"), [("worker", True), ("owner", True), ("operator", False), ("viewer", False)]
)
def test_a_worker_has_all_that_a_worker_needs(kind: str, enough: bool, fleet: Fleet) -> None:
    findings = [finding for finding in examine(fleet.conninfo(kind)) if finding.check == "privileges"]
    assert all(finding.level is Level.OK for finding in findings) is enough, findings
