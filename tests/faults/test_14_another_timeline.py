"""Rows 14, 15, 27: the answer to COMMIT was lost, and who answers next is on another timeline, as after a failover.

Promised: what leases or ends a machine, and what has an idempotency key, is resolved there too: what that server has.
Of any other transaction nobody can tell, and nobody pretends to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from tests.database import EmbeddedServer
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.proxy import Proxy

PROCESS = "Elsewhere"
WRITE = "INSERT INTO writes VALUES ('written')"


@pytest.fixture
def recovering() -> Iterator[EmbeddedServer]:
    """One that goes on on a new timeline when it is told to recover; there is nothing to restore."""
    with EmbeddedServer({"restore_command": "false"}) as running:
        yield running


def move_on(server: EmbeddedServer) -> None:
    """Stops it hard, and lets it go on on a new timeline."""
    server.stop("immediate")
    signal = server.data_directory / "recovery.signal"
    signal.touch()
    owner = server.data_directory.stat()
    os.chown(signal, owner.st_uid, owner.st_gid)
    server.start()
    server.wait_ready()


def transact(session: bmdb.Session, work: bmdb.Work) -> Any:
    return session.transact(lambda q: q.execute(WRITE))


def keyed(session: bmdb.Session, work: bmdb.Work) -> Any:
    return session.transact(lambda q: q.execute(WRITE), idempotency_key="once")


def finish(session: bmdb.Session, work: bmdb.Work) -> Any:
    work.finish(lambda q: q.execute(WRITE))


@pytest.mark.parametrize("arrives", [True, False], ids=["committed", "lost"])
@pytest.mark.parametrize("act", [transact, keyed, finish])
def test_it_is_resolved_on_the_new_timeline(
    recovering: EmbeddedServer,
    connect: Connect,
    figure: Figure,
    act: Callable[[bmdb.Session, bmdb.Work], Any],
    arrives: bool,
) -> None:
    with Proxy("127.0.0.1", recovering.port) as proxy, psycopg.connect(recovering.dsn(), autocommit=True) as sql:
        with connect(recovering.dsn(), component="migrates", migrate=True):
            sql.execute("CREATE TABLE writes (what text); INSERT INTO machines DEFAULT VALUES")
        with connect(proxy.conninfo(recovering.dsn()), component="proxied") as connection:
            session = connection.start_session(interval=2)
            work = session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines"))
            cut = proxy.cutting_after_commit() if arrives else proxy.cutting_before_commit()
            with proxy.refusing(), cut, pytest.raises(bmdb.AmbiguousCommitError) as caught:
                act(session, work)
            move_on(recovering)
            error = caught.value
            if act is transact:
                with pytest.raises(TimeoutError):
                    error.resolve(timeout=5)
            else:
                assert error.resolve(timeout=10) is arrives
            with psycopg.connect(recovering.dsn()) as there:
                timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
                assert there.execute(timeline).fetchone() == (2,)
                assert there.execute("SELECT count(*) FROM writes").fetchone() == (int(arrives),)
            figure("wrong answers", 0, of=1)
            with contextlib.suppress(bmdb.Error):
                session.close()
