"""What the examples find in the database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines


@pytest.fixture
def provided(machines: MakeMachines, sql: psycopg.Connection[Any]) -> list[UUID]:
    """Machines of the provider that the worker looks after."""
    made = machines(5)
    for number, machine in enumerate(made):
        sql.execute(
            "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, 'Equinix', %s)",
            [machine, f"unit-{number}"],
        )
    return made
