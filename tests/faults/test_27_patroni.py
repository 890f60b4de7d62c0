"""Row 27: Patroni switches the primary over, in the middle of work.

Promised: sessions of 30 s go on, and nothing that was answered is lost.
"""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.cluster.load import Load, make_machines
from tests.cluster.patroni import PatroniCluster, missing
from tests.faults.figures import Figure

ABSENT = missing()


@pytest.mark.skipif(ABSENT is not None, reason=f"{ABSENT}; docs/high-availability.md says how")
@pytest.mark.timeout(180)
def test_sessions_go_on_over_a_switchover_by_patroni(figure: Figure) -> None:
    with PatroniCluster() as cluster:
        with psycopg.connect(cluster.conninfo, autocommit=True) as sql:
            make_machines(sql)
        with Load(cluster.conninfo, workers=4, interval=30) as load:
            time.sleep(1.0)
            cluster.switch_over()
            load.wait_for_work(time.monotonic())
            time.sleep(0.5)
        with psycopg.connect(cluster.conninfo, autocommit=True) as sql:
            judged = load.judge(sql)
    assert judged.expired == 0
    assert judged.taken_back == 0
    assert judged.misreported == 0
    figure("Patroni's switchover kept workers waiting for", judged.longest_gap, "s")
