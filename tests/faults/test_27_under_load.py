"""Row 27: a failover in the middle of work, with the old primary killed, stopped or left running.

Promised: what was answered is there, or its session has expired and says that the database failed over; what was
refused is not there. With synchronous replication nothing that was answered is taken back.
"""

from __future__ import annotations

import time

import pytest

from tests.cluster import Cluster
from tests.cluster.load import Load, make_machines
from tests.faults.figures import Figure

WORKERS = 4


@pytest.mark.parametrize(
    ("fate", "synchronous"),
    [("stopped", False), ("left running", False), ("killed", True)],
    ids=["stopped", "left running", "killed, synchronous"],
)
def test_every_report_is_true_or_taken_back_by_name(fate: str, synchronous: bool, figure: Figure) -> None:
    with Cluster(synchronous=synchronous) as cluster:
        with cluster.first.sql(cluster.database) as sql:
            make_machines(sql)
        cluster.catch_up()
        with Load(cluster.conninfo, workers=WORKERS, interval=12) as load:
            time.sleep(1.0)
            if fate == "killed":
                cluster.first.kill()
            elif fate == "stopped":
                cluster.first.freeze()
            cluster.second.promote()
            if fate == "left running":
                # Whoever promoted it sees to it that clients come over, as a load balancer does.
                time.sleep(0.3)
                with cluster.first.sql() as sql:
                    sql.execute("ALTER DATABASE fleet ALLOW_CONNECTIONS false")
                    sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'fleet'")
            load.wait_for_work(time.monotonic())
            time.sleep(0.5)
        with cluster.second.sql(cluster.database) as sql:
            judged = load.judge(sql)
    assert judged.finished > 50
    assert judged.misreported == 0
    assert judged.twice == 0
    figure("reports that were not true", judged.misreported, of=judged.finished)
    if synchronous:
        assert judged.taken_back == 0
    figure("no work was finished for", judged.longest_gap, "s")
