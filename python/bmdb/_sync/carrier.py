# Generated from python/bmdb/_async/carrier.py by tools/generate_sync.py: do not edit.
"""Transactions on a psycopg connection that somebody else owns."""

from __future__ import annotations

import select
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from bmdb import logs
from bmdb._core import queries
from bmdb.errors import ConnectionFailedError
from bmdb.foreign import (
    ADAPTERS,
    FOUND,
    Identity,
    adapted,
    check_names_nothing,
    check_usable,
    identity_of,
    is_doubt,
    level_of,
    timeline_of,
)

T = TypeVar("T")

_LOGGER = logs.logger("bmdb.foreign")
_QUERIES = dict(queries())

_IDENTITIES: WeakKeyDictionary[psycopg.Connection[Any], Identity] = WeakKeyDictionary()


class Statement(psycopg.RawCursor[tuple[Any, ...]]):
    """A statement with $1 parameters, read alike whatever is registered or set on the connection."""

    @property
    def adapters(self) -> Any:
        return ADAPTERS

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:
        # In the simple protocol a text without parameters may hold several statements, a COMMIT among them.
        super()._execute_send(query, force_extended=True, binary=binary)


class Carrier:
    """Opens, commits and rolls back through psycopg's own transaction block.

    So `with connection.transaction()` in the callback makes a savepoint, and `connection.commit()` there is refused.
    What it sets on the connection is as it was found once `release` returns.
    """

    # Whether begin takes another connection when the last one broke.
    replaceable = False

    def __init__(self, connection: Any) -> None:
        self.connection: Any = connection
        self.noted: psycopg.Error | None = None
        self._block: Any = None
        self._open = False
        self._found: FOUND | None = None
        self._listening = False
        self._wait: Any = None

    @property
    def gone(self) -> bool:
        """True once nothing can be sent on the connection any more."""
        return self.connection is None or bool(self.connection.closed)

    @property
    def status(self) -> TransactionStatus:
        """What the server said last."""
        return TransactionStatus(self.connection.info.transaction_status)

    def acquire(self) -> None:
        """Before anything is sent: takes the connection, where one has to be taken."""

    def begin(self, isolation: str) -> None:
        """Opens a transaction for reading and writing.

        Raises psycopg.Error, WorkStateError when one is open already, ConfigError for a closed connection.
        """
        connection = self.connection
        check_usable(connection)
        if self._found is None:
            self._found = connection.isolation_level, connection.read_only
        connection.set_isolation_level(level_of(isolation))
        connection.set_read_only(False)
        self._open = True
        block = connection.transaction()
        block.__enter__()
        self._block = block

    def identity(self) -> Identity:
        """Which server and database the connection leads to; asked once, in a transaction of its own."""
        known = _IDENTITIES.get(self.connection)
        if known is None:
            check_usable(self.connection)
            with self.connection.transaction(force_rollback=True):  # nothing that a COMMIT could lose
                (database,) = self.fetch(_QUERIES["server_database"])
                (server,) = self.fetch(_QUERIES["server_identity"])
            known = identity_of(database, server, self.connection.info.backend_pid)
            if known.behind:
                check_names_nothing(self.connection)
            _IDENTITIES[self.connection] = known
        return known

    def lineage(self, identity: Identity) -> tuple[int | None, int | None]:
        """Timeline and incarnation of the server that runs the open transaction: a pooler may have chosen another."""
        if not identity.behind:
            return identity.timeline, identity.incarnation
        ((incarnation, timeline),) = self.fetch(_QUERIES["server_lineage"])
        return timeline_of(timeline), incarnation

    def run(self, sql: str, params: tuple[object, ...] = ()) -> Statement:
        """Runs one statement. Raises psycopg.Error."""
        cursor = Statement(self.connection, row_factory=tuple_row)
        cursor.execute(sql, adapted(params))
        return cursor

    def fetch(self, sql: str, params: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement and returns its rows."""
        return self.run(sql, params).fetchall()

    def listen(self) -> None:
        """From here on notes the errors of every statement on the connection, also those that the callback swallows."""
        self.noted = None
        wait, self._wait, self._listening = self.connection.wait, vars(self.connection).get("wait"), True

        def noting(*args: Any, **keywords: Any) -> Any:
            try:
                return wait(*args, **keywords)
            except psycopg.Error as error:
                # What aborted the transaction says more than that it is aborted.
                if self.noted is None or not isinstance(error, psycopg.errors.InFailedSqlTransaction):
                    self.noted = error
                raise

        self.connection.wait = noting

    def look(self) -> None:
        """Takes note of what the server may have said since the last answer, a goodbye most of all."""
        poll = select.poll()
        poll.register(self.connection.pgconn.socket, select.POLLIN)
        try:
            # The goodbye is a message and the end of the stream.
            for _ in range(3):
                if not self.gone and poll.poll(0):
                    self.connection.pgconn.consume_input()
        except psycopg.OperationalError as error:
            self.noted = self.noted or error

    def flush(self) -> None:
        """The callback has returned: sends what was kept back."""

    def stop_listening(self) -> None:
        """The callback has ended."""
        if self._listening:
            self._listening = False
            del self.connection.wait
            if self._wait is not None:
                self.connection.wait = self._wait

    def commit(self) -> bool:
        """Commits. True when the commit is durable on this server only, as the wait for its standby was cancelled."""
        block, self._block = self._block, None
        doubts: list[bool] = []

        def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
            doubts.append(is_doubt(diagnostic))

        self.connection.add_notice_handler(notice)
        try:
            if block is not None:
                block.__exit__(None, None, None)
            self._open = False
        finally:
            self.connection.remove_notice_handler(notice)
        return any(doubts)

    def roll_back(self) -> None:
        """Rolls back what begin opened. A connection on which that fails is closed, which rolls back too."""
        if not self._open:
            return
        block, self._block = self._block, None
        try:
            if block is not None and self.status is not TransactionStatus.ACTIVE:
                block.__exit__(psycopg.Rollback, psycopg.Rollback(), None)
        except (psycopg.Error, ConnectionFailedError) as error:
            _LOGGER.warning("could not roll back on %r: %s", self.connection, error)
        finally:
            self.close_unless_idle()

    def close_unless_idle(self) -> None:
        """Closes a connection that is left in the middle of what begin opened."""
        opened, self._open = self._open, False
        if opened and not self.gone and self.status is not TransactionStatus.IDLE:
            _LOGGER.warning("closed %r, which was left in the middle of a transaction", self.connection)
            self.connection.close()

    def release(self) -> None:
        """Hands the connection back as it was found."""
        self.stop_listening()
        self.noted = None
        found, self._found = self._found, None
        if found is not None and not self.gone and self.status is TransactionStatus.IDLE:
            self.connection.set_isolation_level(found[0])
            self.connection.set_read_only(found[1])
