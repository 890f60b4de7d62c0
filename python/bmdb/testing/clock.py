"""Time, as far as leases know it: sessions that expire now, backoffs that are over, a machine that was suspended."""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

import bmdb
from bmdb.process import Process, name_of
from bmdb.testing.hand import Hand

__all__ = ["Clock"]

AnySession: TypeAlias = "bmdb.Session | bmdb.AsyncSession"
AnyConnection: TypeAlias = "bmdb.Connection | bmdb.AsyncConnection"


class Clock(Hand):
    """Lets time pass for the sessions and backoffs of one database, `Clock(conninfo)`; a context manager.

    Its methods are short and may be called from async tests as they are.
    """

    def expire(self, session: AnySession | UUID, *, collect: bool = True) -> bool:
        """End a session as if no beat had reached the database for a whole interval; False if it had ended before.

        The session's own process is not told, and is the zombie that tests are about: it learns of the loss at its
        next beat (half an interval at most), or when it next writes, which is refused. With `collect` what the
        session held is taken from it now (history `Lost`, crash backoffs and quarantine as the process says), so that
        the next one can have it; without, the next collection of any connection does that.

        Raises ConnectionFailedError when the server is out of reach, TimeoutError if a transaction of the holder keeps
        its leases for longer than 10 s, as collection takes nothing from the middle of one.
        """
        identity = session if isinstance(session, UUID) else session.uuid
        expired = self._count("expire_session", identity) == 1
        if collect:
            self._collect(identity)
        return expired

    def _collect(self, identity: UUID) -> None:
        from bmdb.testing.waiting import eventually

        def gone() -> bool:
            self._connection.collect()
            return self._connection.session_info(identity) is None

        eventually(gone, 10.0, f"session {identity} could not be collected")

    def pass_backoffs(self, machine: UUID | None = None, process: str | Process | None = None) -> int:
        """Let the backoffs of this machine and process (None: of all) be over now; returns how many were not yet.

        Their lengths are kept, so the next one grows as it would have. Does not lift quarantines or holds.

        Raises ConnectionFailedError when the server is out of reach.
        """
        rows = self._rows("end_backoffs", machine, None if process is None else name_of(process))
        passed: int = rows[0][0]
        return passed

    @staticmethod
    def suspend(connection: AnyConnection, seconds: float) -> None:
        """Let this connection's clock jump ahead, as it does on a machine that was suspended for so many seconds.

        Its sessions whose trust ends meanwhile are expired before this returns, and are told so; the database has
        noticed nothing. Raises ValueError for less than 0 s.
        """
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds}")
        connection._core.skip_clock(seconds)
