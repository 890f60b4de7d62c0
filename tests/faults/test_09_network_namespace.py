"""Row 9: a worker's network drops all packets, as a route into nowhere does.

Promised: a beat that is not answered is given up within a quarter of the interval; a link that comes back in time costs
nothing; one that does not, ends the session before the database lets anybody else in.

The worker is in a network namespace of its own, and its packets get no answers: the kernel is told to throw those away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.database import Server
from tests.faults.conftest import Connect
from tests.faults.figures import Figure
from tests.processes import Spawn

INTERVAL = 3

WORKER = """
    import ctypes
    import logging
    import os
    import sys
    import threading
    import time

    # Before any thread is there: the others are born where this one is.
    namespace = os.open("/run/netns/" + sys.argv[2], os.O_RDONLY)
    assert ctypes.CDLL(None, use_errno=True).setns(namespace, 0x40000000) == 0, os.strerror(ctypes.get_errno())

    import bmdb

    class Told(logging.Handler):
        def emit(self, record):
            print(record.name, time.monotonic(), record.getMessage(), flush=True)

    logging.getLogger("bmdb").addHandler(Told())
    with bmdb.connect(sys.argv[1], component="remote") as connection:
        session = connection.start_session(interval=float(sys.argv[3]))
        print("holding", session.uuid, flush=True)
        session.on_expired(lambda lost: print("lost", time.monotonic(), flush=True))
        for line in sys.stdin:
            print("alive", not session.expired, session.transact(lambda q: q.fetch_value("SELECT 1")), flush=True)
"""


def ip(*words: str) -> None:
    """Run `ip`. Raises subprocess.CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Island:
    """A network namespace that reaches the server by one cable: `host` is our end of it, `guest` its own."""

    name: str
    host: str
    guest: str
    port: int

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """What is sent to it gets lost in the block."""
        ip("route", "add", "blackhole", f"{self.guest}/32")
        try:
            yield
        finally:
            ip("route", "del", "blackhole", f"{self.guest}/32")


def carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes one way, until there are no more."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarding(host: str, address: tuple[str, int]) -> Iterator[int]:
    """The port at which `host` leads to the server, which listens on the loopback interface only."""
    with socket.create_server((host, 0)) as listening, contextlib.ExitStack() as opened:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = socket.create_connection(address)
                    opened.callback(near.close)
                    opened.callback(far.close)
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=carry, args=ends, daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(5)


@pytest.fixture
def island(server: Server) -> Iterator[Island]:
    """An island; skips where there cannot be one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root, and the program ip")
    name = f"bmdb{uuid.uuid4().hex[:8]}"
    third, fourth = uuid.uuid4().bytes[0], uuid.uuid4().bytes[0] // 4 * 4
    host, guest = f"10.203.{third}.{fourth + 1}", f"10.203.{third}.{fourth + 2}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}g", "netns", name)
        ip("addr", "add", f"{host}/30", "dev", f"{name}h")
        ip("link", "set", f"{name}h", "up")
        ip("-n", name, "addr", "add", f"{guest}/30", "dev", f"{name}g")
        ip("-n", name, "link", "set", f"{name}g", "up")
        with forwarding(host, server.address) as port:
            yield Island(name, host, guest, port)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no cable between network namespaces here: {error.stderr.strip()}")
    finally:
        ip("netns", "del", name)


def test_a_route_into_nowhere(
    connect: Connect, island: Island, database: str, sql: psycopg.Connection[Any], spawn: Spawn, figure: Figure
) -> None:
    # Not on loopback, where certificates are asked for unless one says otherwise.
    dsn = make_conninfo(database, host=island.host, hostaddr=island.host, port=island.port, sslmode="disable")
    worker = spawn(WORKER, dsn, island.name, str(INTERVAL))
    identity = worker.expect("holding").split()[1]
    time.sleep(INTERVAL / 2 + 0.2)  # one beat is through
    with island.cut_off():
        began = time.monotonic()
        noticed = float(worker.expect("bmdb.heartbeat").split()[1]) - began
        figure(f"noticed, at an interval of {INTERVAL} s, within", noticed, "s")
        # The beat that is lost goes out within half an interval.
        assert noticed < INTERVAL / 2 + INTERVAL / 4 + 0.5
    worker.send()
    assert worker.expect("alive") == "alive True 1"
    with island.cut_off():
        began = time.monotonic()
        lost = float(worker.expect("lost", 2 * INTERVAL).split()[1]) - began
        (live,) = sql.execute(
            "SELECT session_deadline > clock_timestamp() FROM sessions WHERE session_id = %s", [identity]
        ).fetchone() or (None,)
        assert live is True, "told only when the database had already let others in"
        assert lost < INTERVAL * 4 / 5 + 0.5
        figure("told of the loss within", lost, "s")
