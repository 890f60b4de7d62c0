"""A backend that is gone before COMMIT is sent leaves no doubt: the callback runs again."""

from __future__ import annotations

import bmdb


def test_the_callback_runs_again(session, sql, writes) -> None:
    runs: list[int] = []

    def write(q: bmdb.Queries) -> None:
        runs.append(q.execute("INSERT INTO writes VALUES ('x')"))
        if len(runs) == 1:
            pid = q.fetch_value("SELECT pg_backend_pid()")
            assert sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)

    session.transact(write)
    assert len(runs) == 2
    assert sql.execute("SELECT count(*) FROM writes").fetchone() == (1,)
