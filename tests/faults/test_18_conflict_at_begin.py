"""Row 18: the statement that travels with BEGIN meets a conflict.

Promised: that is a conflict like any other.
"""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.faults.conftest import Connect
from tests.proxy import Proxy

# Not the heartbeat's, which come by a connection of their own, sooner or later.
OURS = "pg_advisory_xact_lock_shared|machine_agent_started|DELETE FROM work|new_machine"


@pytest.mark.parametrize("opening", ["pg_advisory_xact_lock_shared", "DELETE FROM work"], ids=["fence", "finish"])
def test_conflicts_in_the_opening_are_retried_on_the_same_connection(
    proxy: Proxy, database: str, opening: str, connect: Connect
) -> None:
    """Ten 40001 in a row, each as harmless as one in the callback: no error, no new connection, no long pauses."""
    with (
        connect(proxy.conninfo(database), component="tests", pool_size=1) as connection,
        connection.start_session(interval=20) as session,
    ):
        machine: UUID = session.transact(lambda q: q.new_machine().machine_id)
        work = session.work("P", lambda q: [machine])
        before = {statement.connection for statement in proxy.statements(OURS)}
        with proxy.injecting("40001", matching=opening, times=10) as conflict:
            if opening == "DELETE FROM work":
                work.finish(lambda q: q.machine_delete_agent_started(machine))
            else:
                session.transact(lambda q: q.machine_delete_agent_started(machine))
        assert conflict.hits == 10
        assert {statement.connection for statement in proxy.statements(OURS)} == before
