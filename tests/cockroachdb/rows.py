"""Which tests are skipped when BMDB_TEST_CONNINFO names a CockroachDB, where they cannot hold, and why."""

from __future__ import annotations

import re

_REASONS: list[tuple[str, str]] = [
    (r"^tests/cockroachdb/", "its tests play CockroachDB in front of PostgreSQL"),
    (r"psycopg|sqlalchemy|engine|connections", "connections and engines of the user's are refused there"),
    (r"doctor", "the doctor examines PostgreSQL"),
    (r"wakeup|notify|hints|watch|attention|sweep", "there are no hints and no notes of triggers"),
    (r"test_(10|13|16|29)_", "it is about PostgreSQL's backends, crash recovery or standbys"),
    (r"test_(2[678]|30|31|32)_", "it is about PostgreSQL's locks, replication, poolers or processes"),
    (r"test_12_", "there is no pg_terminate_backend"),
    (r"test_14_batches|test_14_commit|test_15_", "transactions have no ids to ask about"),
    (
        r"test_0[12]_|test_43_stale_snapshot",
        "it orders commits by track_commit_timestamp, or looks at PostgreSQL's snapshots",
    ),
    (r"test_21_", "there SERIALIZABLE misses nothing"),
    (r"test_24_", "collection has priority there, and passes over nobody"),
    (r"partition|history_by_month|prune", "history is one table there"),
    (r"embedded|own_server", "it is about a server of its own"),
    (r"isolation", "every transaction is SERIALIZABLE there"),
    (r"migrat", "schemas change statement by statement there: tests/cockroachdb"),
]


def reason(node: str, fixtures: tuple[str, ...]) -> str | None:
    """Why a test, by its id, is not for CockroachDB; None if it is."""
    if "own_server" in fixtures:
        return "it stops and starts a PostgreSQL of its own"
    return next((why for pattern, why in _REASONS if re.search(pattern, node)), None)
