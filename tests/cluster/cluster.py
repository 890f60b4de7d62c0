"""A primary and its standby by streaming replication."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo

import bmdb
from tests.cluster.node import Node, wait


class Cluster:
    """`first` begins as the primary, `second` as its standby; bmdb's schema is in the database "fleet".

    `synchronous`: a commit is answered when it is on both.
    """

    database = "fleet"

    def __init__(self, *, synchronous: bool = False) -> None:
        self.first = Node()
        try:
            self.second = Node(self.first)
        except BaseException:
            self.first.close()
            raise
        try:
            dsn = self.first.create_database(self.database)
            with bmdb.connect(dsn, component="tests", migrate=True):
                pass
            if synchronous:
                self.first.set(synchronous_standby_names="*")
            self.catch_up()
        except BaseException:
            self.close()
            raise

    @property
    def conninfo(self) -> str:
        """Names both servers; whichever is the primary is wanted."""
        ports = f"{self.first.port},{self.second.port}"
        return make_conninfo(host="127.0.0.1,127.0.0.1", port=ports, user="postgres", dbname=self.database,
                             connect_timeout=2)  # fmt: skip

    def catch_up(self, primary: Node | None = None, standby: Node | None = None) -> None:
        """Wait until the standby, by default the second, has replayed all that the primary has written."""
        with (primary or self.first).sql() as ahead, (standby or self.second).sql() as behind:
            row = ahead.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert row is not None
            replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait(lambda: behind.execute(replayed, [row[0]]).fetchone() == (True,))

    def switch_over(self) -> None:
        """As planned: the first is shut down, which waits for its standby to have all, and the second is promoted."""
        self.first.stop("fast")
        self.second.promote()

    def close(self) -> None:
        """Stop both and remove them."""
        self.second.close()
        self.first.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
