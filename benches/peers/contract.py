"""What an adapter says of its peer: what it promises, and where it stands in the run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contract:
    """What a queue promises, as read from the SQL that it sends.

    `durable`: whether the end of a unit is on disk before its worker goes on. `fenced`: what becomes of the end that
    somebody reports whose unit was given to another meanwhile. `history`: what is left of a unit. `freed`: when the
    unit of a lost worker goes to another, by default.
    """

    durable: str
    fenced: str
    history: str
    freed: str


@dataclass(frozen=True)
class Entry:
    """One line of the comparison: an adapter in one of its settings.

    `runs_on`: whose interpreter the adapter needs, the peers' or bmdb's own. `tool`: a program without which it is left
    out, and `built`, what is made with it, in this folder.
    """

    name: str
    module: str
    variant: str = ""
    runs_on: str = "peers"
    tool: str | None = None
    built: str = ""
    roles: frozenset[str] = frozenset({"throughput"})

    @property
    def ours(self) -> bool:
        """Whether it is bmdb that is measured."""
        return self.module == "ours"


ALL_ROLES = frozenset({"throughput", "latency", "takeover"})
STALE = frozenset({"zombies"})
APART = frozenset({"latency"})
ENDS = frozenset({"latency", "takeover"})

ENTRIES = (
    Entry("bmdb work_many", "ours", "batch", "bmdb"),
    Entry("bmdb 256 tasks", "ours", "tasks", "bmdb"),
    Entry("bmdb 64 threads", "ours", "threads", "bmdb"),
    Entry("bmdb 4 processes", "ours", "processes", "bmdb"),
    Entry("bmdb one caller", "ours", "single", "bmdb"),
    Entry("bmdb callback", "ours", "callback", "bmdb"),
    Entry("bmdb woken", "ours", "woken", "bmdb", roles=ENDS),
    Entry("bmdb polling", "ours", "polling", "bmdb", roles=APART),
    Entry("bmdb", "ours", "heedless", "bmdb", roles=STALE),
    Entry("pgbench", "pgbench", "", "bmdb"),
    Entry("psycopg", "hand_written", "1", roles=ALL_ROLES),
    Entry("psycopg 16 threads", "hand_written", "16"),
    Entry("pgqueuer", "pgqueuer_peer", roles=ALL_ROLES | STALE),
    Entry("awa-pg", "awa_peer", roles=ALL_ROLES | STALE),
    Entry("oban", "oban_peer", roles=ALL_ROLES | STALE),
    Entry("chancy", "chancy_peer", roles=ALL_ROLES),
    Entry("pgmq batch", "pgmq_peer", "batch", roles=ALL_ROLES),
    Entry("pgmq single", "pgmq_peer", "single"),
    Entry("dbos", "dbos_peer", roles=ALL_ROLES),
    Entry("absurd", "absurd_peer", roles=ALL_ROLES),
    Entry("saq", "saq_peer", roles=ALL_ROLES),
    Entry("procrastinate", "procrastinate_peer", roles=ALL_ROLES | STALE),
    Entry("river", "river_peer", tool="go", built="river/bin/worker", roles=ALL_ROLES),
    Entry("graphile-worker", "graphile_peer", tool="npm", built="graphile/node_modules/.made", roles=ALL_ROLES),
)


def entry(name: str) -> Entry:
    """The entry of that name. Raises KeyError."""
    return {entry.name: entry for entry in ENTRIES}[name]
