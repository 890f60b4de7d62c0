"""`bmdb prune` and `bmdb collect` on a real database."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.conftest import PROCESS, Answer, Documents


@pytest.fixture
def history(sql: Any) -> None:
    """Five events of long ago, and two of today."""
    sql.execute(
        "INSERT INTO work_history (machine_id, process, event, timestamp)"
        " SELECT gen_random_uuid(), %s, 'Started', now() - days * interval '1 day'"
        " FROM unnest(ARRAY[0, 1, 91, 92, 93, 94, 400]) AS days",
        [PROCESS],
    )


@pytest.mark.usefixtures("history")
class TestPrune:
    def test_what_is_older_goes_in_batches(self, bmdb_command: Answer, document: Documents, sql: Any) -> None:
        told = document("prune", "--history-older-than", "90d", "--dry-run")
        assert told == {
            "older_than_seconds": 7776000.0,
            "events": 5,
            "deleted": 0,
            "partitions": [],
            "dry_run": True,
        }
        assert bmdb_command("prune", "--history-older-than", "90d", "--dry-run")[1].startswith(
            "5 events are older than 90d"
        )
        done = document("prune", "--history-older-than", "90d", "--batch", 2)
        assert (done["events"], done["deleted"]) == (5, 5)
        assert sql.execute("SELECT count(*) FROM work_history").fetchone() == (2,)
        again = (0, "0 events deleted that were older than 90d\n", "")
        assert bmdb_command("prune", "--history-older-than", "90d") == again

    @pytest.mark.parametrize("age", ["0", "59m", "soon", "9" * 30 + "d", ""])
    def test_an_age_that_makes_no_sense(self, age: str, bmdb_command: Answer, sql: Any) -> None:
        assert bmdb_command("prune", "--history-older-than", age)[0] == 2
        assert sql.execute("SELECT count(*) FROM work_history").fetchone() == (7,)

    def test_an_age_is_needed(self, bmdb_command: Answer) -> None:
        status, _, errors = bmdb_command("prune")
        assert status == 2
        assert "--history-older-than" in errors


def test_collect_frees_what_expired_sessions_held(
    machines: Any, bmdb_command: Answer, document: Documents, sql: Any
) -> None:
    (machine,) = machines(1)
    sql.execute(
        "WITH gone AS (INSERT INTO sessions (session_component_name, session_runtime_info,"
        " session_interval_seconds, session_deadline)"
        " VALUES ('gone', '', 5, clock_timestamp() - interval '1 second') RETURNING session_id)"
        " INSERT INTO work SELECT %s, %s, session_id, 1 FROM gone",
        [machine, PROCESS],
    )
    assert document("collect") == {"sessions": 1, "leases": 1}
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert bmdb_command("collect") == (0, "0 expired sessions collected, 0 leases freed\n", "")
