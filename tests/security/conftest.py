"""Roles of a fleet on the database of a test, and somebody who logs in with each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb

ROLES = ("owner", "worker", "operator", "viewer")


@dataclass(frozen=True)
class Fleet:
    """A database whose roles have been made; `prefix_worker` and the others are their names."""

    database: str
    prefix: str

    def role(self, kind: str) -> str:
        """The name of one of the roles."""
        return f"{self.prefix}_{kind}"

    def conninfo(self, kind: str) -> str:
        """A connection string of somebody who has this role and nothing else."""
        return make_conninfo(self.database, user=f"{self.prefix}_{kind}_login")

    def make_roles(self) -> list[str]:
        """Make the roles, or bring them up to date."""
        with bmdb.connect(self.database, component="test") as connection:
            return connection._core.create_roles(self.prefix)


@pytest.fixture
def drop_roles(sql: psycopg.Connection[Any]) -> Iterator[Callable[[str], None]]:
    """Has roles of this prefix dropped after the test, with all that is theirs."""
    prefixes: list[str] = []
    yield prefixes.append
    for prefix in prefixes:
        names = [
            name for (name,) in sql.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"{prefix}\\_%"])
        ]
        sql.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = ANY (%s)", [names])
        for statement in ("DROP OWNED BY", "DROP ROLE"):
            for name in names:
                sql.execute(f"{statement} {name} {'CASCADE' if statement == 'DROP OWNED BY' else ''}")  # type: ignore[arg-type]


@pytest.fixture
def fleet(database: str, sql: psycopg.Connection[Any], drop_roles: Callable[[str], None]) -> Fleet:
    """The roles on `database`. Roles are the whole server's, so that their names are this test's own."""
    made = Fleet(database, f"fleet_{uuid.uuid4().hex[:12]}")
    drop_roles(made.prefix)
    made.make_roles()
    for kind in ROLES:
        sql.execute(f"CREATE ROLE {made.role(kind)}_login LOGIN IN ROLE {made.role(kind)}")  # type: ignore[arg-type]
    return made
