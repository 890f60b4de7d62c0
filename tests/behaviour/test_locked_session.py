"""A session whose row somebody locked: for the sync twin alone, as the wait is the server's."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import bmdb


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_closing_a_session_whose_row_is_locked_comes_to_an_end(
    connection: bmdb.Connection, sql: psycopg.Connection[Any]
) -> None:
    session = connection.start_session(interval=60)
    with sql.transaction():
        sql.execute("SELECT 1 FROM sessions WHERE session_id = %s FOR UPDATE", [session.uuid])
        with pytest.raises(bmdb.Error):
            session.close()
