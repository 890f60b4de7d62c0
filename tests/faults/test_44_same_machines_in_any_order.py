"""Row 44: claims of the same machines, offered in any order, beside finishes that set tags on them.

Promised: no deadlock.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.faults.conftest import Connect
from tests.processes import eventually
from tests.proxy import Proxy

PROCESS = "UnitTest1"
CLAIMERS = 8
MACHINES = 10
SECONDS = 4.0


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_claims_in_opposite_orders_and_finishes_end_without_a_deadlock(
    database: str, sql: psycopg.Connection[Any], machines: MakeMachines, isolation: str, connect: Connect
) -> None:
    offered = sorted(machines(MACHINES))
    end = time.monotonic() + SECONDS
    errors: list[BaseException] = []
    cycles = [0] * CLAIMERS

    def order(number: int, chance: random.Random) -> list[UUID]:
        match number % 3:
            case 0:
                return offered
            case 1:
                return offered[::-1]
            case _:
                return chance.sample(offered, len(offered))

    with connect(database, component="test", pool_size=2 * CLAIMERS, isolation=isolation) as connection:

        def claim(number: int) -> None:
            chance = random.Random(number)
            try:
                with connection.start_session(interval=10.0) as session:
                    while time.monotonic() < end:
                        held = []
                        # Two at once, so that what one holds another wants.
                        for _ in range(2):
                            try:
                                held.append(session.work(PROCESS, lambda _: order(number, chance)))
                            except bmdb.WorkConflictError:
                                break
                        for work in chance.sample(held, len(held)):
                            tagged = [work.machine, *chance.sample(offered, 2)]

                            def commit(q: bmdb.Queries, tagged: list[UUID] = tagged) -> None:
                                # The tag's foreign key locks the machine's row, which a claim must not want whole.
                                q.machine_set_hardware_report(tagged[0], b"x")

                            work.finish(commit)
                            cycles[number] += 1
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=claim, args=[number]) for number in range(CLAIMERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    # Backends report their deadlocks when they end.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually(lambda: sql.execute(others).fetchone() == (0,))
    counted = sql.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert counted == (0,)
    assert all(count > 0 for count in cycles) and sum(cycles) > 100
    tokens = sql.execute("SELECT sum(token) FROM work_token").fetchone()
    assert tokens == (sum(cycles),)


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_a_rivals_claim_in_flight_is_passed_over_and_not_waited_for(
    proxy: Proxy, database: str, session: bmdb.Session, machines: MakeMachines, isolation: str, connect: Connect
) -> None:
    first, second = machines(2)
    with (
        connect(proxy.conninfo(database), component="rival") as connection,
        connection.start_session(interval=20) as rival,
        ThreadPoolExecutor(2) as threads,
        proxy.holding_before() as commit,
    ):
        claiming = threads.submit(rival.work, PROCESS, lambda _: [first])
        commit.wait()
        passing = threads.submit(session.work, PROCESS, lambda _: [first, second], isolation=isolation)
        try:
            assert passing.result(3).machine == second
        finally:
            commit.release()
        assert claiming.result(10).machine == first
