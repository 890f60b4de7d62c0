"""Measure what workers see of a failover, and write it into docs/high-availability.md. What `make bench-failover` runs.

Two servers with streaming replication, workers that lease and finish without pause, and one of several ends of the
primary. Each row is so many rounds, each on a new pair of servers. Where Patroni and etcd are installed (BMDB_PATRONI
names the folder of Patroni's programs), it decides in further rows. Takes about five minutes, and five more with
Patroni.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.python.marked import write  # noqa: E402
from benches.python.report import table  # noqa: E402
from tests.cluster import Cluster  # noqa: E402
from tests.cluster.load import Judgement, Load, make_machines  # noqa: E402
from tests.cluster.patroni import TTL, PatroniCluster, missing  # noqa: E402

DOCUMENT = ROOT / "docs" / "high-availability.md"
MARKS = ("<!-- written by make bench-failover -->", "<!-- end -->")
HEAD = (
    *("The primary", "Replication", "Interval", "Sessions", "went on", "expired"),
    *("Ends answered", "of them taken back", "Reports not true", "No end for"),
)
WORKERS = 8
WARM_UP = 3.0
AFTER = 1.0


@dataclass(frozen=True)
class Kind:
    """One way to lose a primary."""

    name: str
    synchronous: bool
    interval: float
    end: Callable[[Cluster], None]


def switched(cluster: Cluster) -> None:
    cluster.switch_over()


def killed(cluster: Cluster) -> None:
    cluster.first.kill()
    cluster.second.promote()


def killed_behind(cluster: Cluster) -> None:
    """What is answered in the last half second has not reached the standby."""
    cluster.second.disconnect()
    time.sleep(0.5)
    killed(cluster)


def stopped(cluster: Cluster) -> None:
    cluster.first.freeze()
    cluster.second.promote()


def left_running(cluster: Cluster) -> None:
    """For half a second both take writes, then clients are sent over."""
    cluster.second.promote()
    time.sleep(0.5)
    with cluster.first.sql() as sql:
        sql.execute("ALTER DATABASE fleet ALLOW_CONNECTIONS false")
        sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'fleet'")


KINDS = [
    Kind("switched over as planned", False, 30, switched),
    Kind("switched over as planned", True, 30, switched),
    Kind("switched over as planned", False, 5, switched),
    Kind("killed", False, 30, killed),
    Kind("killed, its standby 0.5 s behind", False, 30, killed_behind),
    Kind("killed", True, 30, killed),
    Kind("stopped (SIGSTOP)", False, 30, stopped),
    Kind("stopped (SIGSTOP)", False, 5, stopped),
    Kind("left running for 0.5 s", False, 30, left_running),
]


def measure(kind: Kind) -> Judgement:
    """One round."""
    with Cluster(synchronous=kind.synchronous) as cluster:
        with cluster.first.sql(cluster.database) as sql:
            make_machines(sql)
        cluster.catch_up()
        with Load(cluster.conninfo, workers=WORKERS, interval=kind.interval) as load:
            time.sleep(WARM_UP)
            kind.end(cluster)
            load.wait_for_work(time.monotonic())
            time.sleep(AFTER)
        with cluster.second.sql(cluster.database) as sql:
            return load.judge(sql)


@dataclass(frozen=True)
class PatroniKind:
    """One way in which Patroni comes to promote the other member."""

    name: str
    synchronous: bool
    interval: float
    sign: signal.Signals | None


PATRONI_KINDS = [
    PatroniKind("Patroni: switchover", False, 30, None),
    PatroniKind("Patroni: switchover", True, 30, None),
    PatroniKind("Patroni: killed with its Patroni", False, 60, signal.SIGKILL),
    PatroniKind("Patroni: killed with its Patroni", True, 60, signal.SIGKILL),
    PatroniKind("Patroni: killed with its Patroni", False, 15, signal.SIGKILL),
    PatroniKind("Patroni: stopped with its Patroni", False, 60, signal.SIGSTOP),
]


def measure_patroni(kind: PatroniKind) -> Judgement:
    """One round with Patroni."""
    with PatroniCluster(synchronous=kind.synchronous) as cluster:
        with psycopg.connect(cluster.conninfo, autocommit=True) as sql:
            make_machines(sql)
        with Load(cluster.conninfo, workers=WORKERS, interval=kind.interval) as load:
            time.sleep(WARM_UP)
            if kind.sign is None:
                cluster.switch_over()
            else:
                old = cluster.primary
                old.send(kind.sign)
                cluster.wait_for_another(old)
            load.wait_for_work(time.monotonic())
            time.sleep(AFTER)
        with psycopg.connect(cluster.conninfo, autocommit=True) as sql:
            return load.judge(sql)


def row(kind: Kind | PatroniKind, rounds: list[Judgement]) -> tuple[str, ...]:
    """The rounds of one kind, added up; the longest time is their median."""
    sessions = sum(each.sessions for each in rounds)
    expired = sum(each.expired for each in rounds)
    false = sum(each.misreported + each.twice for each in rounds)
    return (
        kind.name,
        "synchronous" if kind.synchronous else "asynchronous",
        f"{kind.interval:g} s",
        str(sessions),
        str(sessions - expired),
        str(expired),
        f"{sum(each.finished for each in rounds):,}",
        str(sum(each.taken_back for each in rounds)),
        str(false),
        f"{median(each.longest_gap for each in rounds):.1f} s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind")
    parser.add_argument("--patroni-rounds", type=int, default=1, help="rounds of each kind with Patroni")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        rows.append(row(kind, [measure(kind) for _ in range(options.rounds)]))
        print(*rows[-1], sep=" | ", flush=True)
    absent = missing()
    note = f"Patroni was not measured ({absent})." if absent else f"Patroni's `ttl` is {TTL} s."
    for managed in [] if absent else PATRONI_KINDS:
        rows.append(row(managed, [measure_patroni(managed) for _ in range(options.patroni_rounds)]))
        print(*rows[-1], sep=" | ", flush=True)
    with Cluster() as cluster, cluster.first.sql() as sql:
        version = sql.info.server_version // 10_000
    text = (
        f"{options.rounds} rounds of each kind on PostgreSQL {version}, {WORKERS} sessions to begin with. {note}\n\n"
        f"{table(HEAD, rows)}"
    )
    if options.no_write:
        print(text)
    else:
        write(DOCUMENT, MARKS, text.strip())


if __name__ == "__main__":
    main()
