"""`bmdb migrate --roles`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from bmdb.cli import main


def test_the_roles_are_made_and_named(
    database: str, drop_roles: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"fleet_{uuid.uuid4().hex[:12]}"
    drop_roles(prefix)
    expected = [f"{prefix}_{kind}" for kind in ("owner", "worker", "operator", "viewer")]
    for _ in range(2):
        assert main(["migrate", database, "--roles", "--role-prefix", prefix, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["roles"] == expected
    assert main(["migrate", database, "--roles", "--role-prefix", prefix]) == 0
    assert f"roles {', '.join(expected)}: GRANT" in capsys.readouterr().out


def test_a_prefix_that_makes_no_name_is_told(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", database, "--roles", "--role-prefix", "a b"]) == 1
    assert "prefix" in capsys.readouterr().err
