"""Row 22: claims wait for one another on a small pool.

Promised: they do not hold the connections that the others need.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.proxy import Proxy

PROCESS = "UnitTest1"


@pytest.mark.timeout(60)
def test_a_claim_that_is_run_again_lets_go_of_its_connection(
    proxy: Proxy, database: str, machines: MakeMachines, connect: Connect
) -> None:
    """One connection, so one claim at a time: the one that meets a conflict queues behind the one that waited."""
    offered = machines(4)
    with (
        connect(proxy.conninfo(database), component="test", pool_size=1) as connection,
        connection.start_session(interval=30) as session,
        ThreadPoolExecutor(2) as threads,
    ):

        def claim(machine: UUID) -> UUID:
            return session.work(PROCESS, lambda q: [machine]).machine

        with proxy.holding_before("INSERT INTO work_token", times=1) as first:
            claims = [threads.submit(claim, offered[0])]
            first.wait()
            claims.append(threads.submit(claim, offered[1]))
            time.sleep(0.1)
            with proxy.injecting("40001", matching="SELECT 1; COMMIT", times=1) as conflict:
                first.release()
                began = time.monotonic()
                assert [one.result(timeout=40) for one in claims] == offered[:2]
                assert time.monotonic() - began < 5
        assert conflict.hits == 1
