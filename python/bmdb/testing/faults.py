"""What networks and servers do to a worker, as context managers.

All of it happens between the worker and the server, in a proxy that understands the protocol: the worker under test
needs no change but the connection string, and the server is a real one.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict

from bmdb.errors import ConfigError
from bmdb.testing.proxy import CutRule, ErrorRule, Proxy

__all__ = ["Faults", "hold_gil"]

_BEAT = r"^UPDATE sessions"


class Faults:
    """Faults for whoever connects to `conninfo` of this; `Faults(conninfo)` leads to that database. A context manager.

    Each fault lasts as long as its `with` block and has taken effect when the block begins. They may be nested, and
    combined with those of `proxy`, which has more of them. Its methods do not block, so that async tests may use them
    as they are.

    Raises ConfigError for a connection string that names several hosts.
    """

    def __init__(self, conninfo: str) -> None:
        parts = conninfo_to_dict(conninfo)
        host, port = str(parts.get("hostaddr") or parts.get("host") or "127.0.0.1"), str(parts.get("port") or 5432)
        if "," in host or "," in port:
            raise ConfigError("faults are played in front of one server: this connection string names several")
        self.proxy = Proxy(host, int(port))
        self.conninfo = self.proxy.conninfo(conninfo, sslmode="disable")

    def __repr__(self) -> str:
        return f"<Faults on port {self.proxy.port}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Break all connections and end the proxy."""
        self.proxy.close()

    @contextlib.contextmanager
    def freeze_heartbeats(self) -> Iterator[None]:
        """No beat reaches the server; everything else does.

        So sessions lose their trust after four fifths of their interval, by their own clock, and their deadlines pass
        a fifth later, while their workers run. Afterwards what comes next arrives; what was expired by then stays
        expired.
        """
        with self.proxy.cutting_before(_BEAT, how="silence", times=None):
            yield

    def cut_at_commit(
        self, when: Literal["before", "after"] = "after", *, times: int | None = 1, skip: int = 0
    ) -> AbstractContextManager[CutRule]:
        """Break the connection at COMMIT: "before" the server gets it, or "after" it took effect with its answer lost.

        The first `skip` commits pass, then it happens to the next `times` (None: to each). `as cut` has `cut.hits`,
        how often it has, and `cut.wait()`, which waits until it has (a worker may know a little earlier).

        A worker finds: `work()` and ends return the truth; a plain `transact` raises AmbiguousCommitError, whose
        `resolve()` answers False for "before" and True for "after".
        """
        if when not in ("before", "after"):
            raise ValueError(f'when must be "before" or "after", not {when!r}')
        cutting = self.proxy.cutting_before_commit if when == "before" else self.proxy.cutting_after_commit
        return cutting(times=times, skip=skip)

    def conflicts(
        self, times: int | None = 1, *, at: str | None = None, sqlstate: str = "40001", skip: int = 0
    ) -> AbstractContextManager[ErrorRule]:
        """Let the next `times` transactions (None: all) fail with a serialization failure at COMMIT.

        `at` is a pattern for the statement that fails instead (SQL on one line, without comments), `sqlstate` another
        error, such as "40P01" (deadlock) or "53300" (too many connections). The server's transaction is rolled back
        for real. `as conflict` has `conflict.hits`.
        """
        return self.proxy.injecting(sqlstate, at, message="raised by bmdb.testing", times=times, skip=skip)

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Nothing gets through in either direction, and nobody is told: a dead cable. New connections get no answer.

        A connection that lost something stays dead afterwards; one that was idle all the time goes on.
        """
        with self.proxy.swallowing():
            yield

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """The server is gone, and says so: open connections are reset, new ones refused."""
        with self.proxy.refusing():
            self.proxy.reset()
            yield

    def latency(self, seconds: float) -> AbstractContextManager[None]:
        """Everything that is sent arrives so much later, in both directions."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds}")
        return self.proxy.delaying(seconds)


def hold_gil(seconds: float) -> None:
    """Hold the GIL, as a C extension does that forgets to release it: no Python code of this process runs meanwhile.

    Blocks for so many seconds. Sessions live on, since beats need no Python (unless they have a `max_stall`). Raises
    ValueError for less than 0 s or more than a day.
    """
    if not 0 <= seconds <= 86400:
        raise ValueError(f"seconds must be from 0 to 86400, not {seconds}")
    # Functions of a PyDLL are called without releasing it.
    ctypes.PyDLL(None).poll(None, 0, round(seconds * 1000))
