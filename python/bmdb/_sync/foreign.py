# Generated from python/bmdb/_async/foreign.py by tools/generate_sync.py: do not edit.
"""The driver of a transaction on another library's connection: what the core decides, done through psycopg."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import psycopg
from psycopg.crdb import CrdbConnection
from psycopg.pq import TransactionStatus

from bmdb import _core, tracing
from bmdb._sync.carrier import Carrier, Statement
from bmdb._sync.queries import Queries
from bmdb._sync.transaction import run
from bmdb.callbacks import check_callback
from bmdb.errors import ConnectionFailedError, RetriesExhaustedError, TransactionRestartError, WorkStateError
from bmdb.foreign import aborted, check_kind, check_same, check_usable, exhausted, failure_of, outcome, told, translated

T = TypeVar("T")

_QUERIES = dict(_core.queries())
_SAVEPOINT, _RELEASE, _RESTART = _core.restart_savepoint()


class PsycopgQueries(Queries):
    """The queries of a transaction on a psycopg connection of yours.

    Parameters of `execute` and `fetch` go through psycopg's adaptation (a dict is JSON); rows come as from any other
    connection. DatabaseError has psycopg's error as its `__cause__`.
    """

    __slots__ = ()
    _core: ForeignTransaction

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The psycopg connection, for what you do yourself in the same transaction.

        Its errors surface unchanged. `connection.transaction()` makes a savepoint; to commit or roll back is not the
        callback's to do.
        """
        connection: psycopg.Connection[Any] = self._core.carrier.connection
        return connection


class ForeignTransaction:
    """One transaction over all its attempts, for `run` as `_core.Transaction` is.

    While a statement waits for its answer a loss of the session does not interrupt it, as it does on a connection of
    bmdb's own; COMMIT is refused all the same, before it is sent, and the fence's lock keeps everybody else out until
    the transaction is over.
    """

    def __init__(
        self,
        core: _core.ForeignTransaction,
        carrier: Carrier,
        owner: _core.Connection | None = None,
        *,
        savepoint: bool = False,
    ) -> None:
        self.carrier = carrier
        self._core = core
        self._owner = owner
        self._savepoint = savepoint
        self._error: BaseException | None = None
        self._busy = False
        self._thread = 0
        self._xid: int | None = None
        self._broken_off = False

    @property
    def running(self) -> bool:
        """True between begin and conclude."""
        return self._core.running

    @property
    def attempts(self) -> int:
        """How often the callback has been let run."""
        return self._core.attempts

    @property
    def isolation(self) -> str:
        """The level that it runs at."""
        return self._core.isolation

    @property
    def last_sqlstate(self) -> str | None:
        """The SQLSTATE of what went wrong last in the attempt that has just ended, if the server said one."""
        return getattr(self._error, "sqlstate", None) or None

    def queries(self, _: object = None) -> PsycopgQueries:
        """What the callback is given."""
        return PsycopgQueries(self)

    def begin(self) -> None:
        """Opens the transaction, or opens it again, so that the callback may run."""
        try:
            action = self._core.action
            while action[0] != "run":
                if action[0] == "sleep":
                    time.sleep(action[1])
                    action = self._core.step("slept")
                elif action[0] == "begin":
                    action = self._open()
                elif action[0] == "finish":
                    raise self._verdict(action[1], action[2])
                else:
                    raise WorkStateError("this transaction has ended")
        except BaseException as error:
            self._over(error)
            raise
        self._error = None
        self._thread = threading.get_ident()
        self.carrier.listen()

    def _open(self) -> Any:
        self._core.begin()
        carrier = self.carrier
        rows: list[tuple[Any, ...]] = []
        identity = None
        lineage: tuple[int | None, int | None] = (None, None)
        opening = self._core.opening()
        try:
            carrier.acquire()
            if self._owner is not None:
                # First, since CockroachDB has no such thing, and this says so.
                ours = self._owner.known_database or self._owner.database()
                identity = carrier.identity()
                check_same(ours, identity.database)
            carrier.begin(self._core.isolation)
            if self._savepoint:
                carrier.run(_SAVEPOINT)
            if opening is not None:
                rows = carrier.fetch(*opening)
                if identity is not None:
                    lineage = carrier.lineage(identity)
            if rows:
                xid = self._xid = rows[0][0]
                fresh = not self._core.keyed or rows[0][1]
                self._core.opened(xid, *lineage, fresh=fresh)
        except psycopg.Error as error:
            gone = carrier.gone
            failure = failure_of(error, gone)
            self._error = self._caused(error, own=True)
            carrier.roll_back()
            if gone and not carrier.replaceable:
                raise self._error from error
            return self._core.step("begin_failed", failure)
        except ConnectionFailedError as error:
            carrier.roll_back()
            if not carrier.replaceable:
                raise
            self._error = error
            return self._core.step("begin_failed", "disconnected")
        if opening is not None and not rows:
            self._core.missing()
        return self._core.step("begun")

    def conclude(self, exception: BaseException | None = None) -> Literal["committed", "again", "raise"]:
        """Tells how the callback ended, and commits, rolls back, or gets ready for another attempt.

        To be awaited to its end, as `run` does even when it is cancelled.
        """
        if not self._core.running:
            refused = WorkStateError("this transaction has ended")
            # Given up between two attempts: lets go of the work and the connection.
            self._over(refused)
            raise refused
        flushing: Exception | None = None
        try:
            try:
                if exception is None:
                    self.carrier.flush()
            except Exception as error:
                # As if the callback had raised it.
                exception = flushing = error
            self.carrier.stop_listening()
            conclusion = self._conclude(exception)
            if flushing is not None and conclusion == "raise":
                raise flushing
        except BaseException as error:
            self._over(error)
            raise
        if conclusion != "again":
            self.carrier.release()
            self._core.over("committed" if conclusion == "committed" else "failed")
        return conclusion

    def _conclude(self, raised: BaseException | None) -> Literal["committed", "again", "raise"]:
        event: tuple[str, str | None] = self._returned() if raised is None else self._raised(raised)
        while True:
            action = self._core.step(*event)
            if action[0] == "commit":
                event = self._commit()
            elif action[0] == "rollback":
                self.carrier.roll_back()
                event = "rolled_back", None
            elif action[0] == "restart":
                event = self._restart()
            elif action[0] == "settle":
                # A name promises that it is there for good, fence and all.
                broken_off = self._broken_off and self._core.keyed
                committed = None if broken_off else self._core.settle()
                event = {True: "settled_committed", False: "settled_aborted", None: "unsettled"}[committed], None
            elif action[0] == "finish":
                if action[1] == "committed":
                    return "committed"
                self.carrier.roll_back()
                if action[1] == "raise":
                    return "raise"
                raise self._verdict(action[1], action[2])
            else:
                # The rest is begin's.
                return "again"

    def _returned(self) -> tuple[str, str | None]:
        """What the callback's return means. Raises when the connection cannot go on."""
        carrier = self.carrier
        if not carrier.gone:
            # Known before COMMIT is sent, a connection that broke leaves no doubt about the outcome.
            carrier.look()
        noted = carrier.noted
        if carrier.gone:
            self._error = (
                ConnectionFailedError("the psycopg connection was closed before COMMIT, so nothing is committed")
                if noted is None
                else self._caused(noted)
            )
            if not carrier.replaceable:
                raise self._error
            return "returned_after", "disconnected"
        status = carrier.status
        if status is TransactionStatus.ACTIVE:
            carrier.roll_back()
            raise WorkStateError(
                "the callback returned while a statement on its connection was still running (a stream or a COPY that"
                " was not read to its end?): nothing is committed, and the connection is closed"
            )
        if status is TransactionStatus.INERROR:
            self._error = aborted() if noted is None else self._caused(noted)
            return "returned_after", "permanent" if noted is None else failure_of(noted, False)
        return "returned", None

    def _raised(self, raised: BaseException) -> tuple[str, str | None]:
        """What the callback's exception means: the failure of the database error in its chain, if there is one."""
        carrier, noted = self.carrier, self.carrier.noted
        gone = carrier.gone
        failure, only_aborted = self._core.failure_of(raised)
        if failure is not None and noted is not None:
            first = failure_of(noted, gone)
            # What the connection met says more than what the exception says of it.
            if first == "retryable" or only_aborted:
                failure = first  # type: ignore[assignment]
        if gone:
            # A connection that broke ends an attempt, whatever the callback made of it.
            failure = "disconnected" if failure in ("retryable", "disconnected") and carrier.replaceable else None
        elif failure == "disconnected":
            # It was another connection that broke: an exception like any other.
            failure = None
        if failure is not None:
            self._error = raised
        return "raised", failure

    def _commit(self) -> tuple[str, str | None]:
        carrier = self.carrier
        # Trust that has ended forbids even to try. The row lock would refuse too, but only once asked.
        try:
            self._core.check()
        except BaseException:
            carrier.roll_back()
            raise
        if carrier.status is not TransactionStatus.INTRANS:
            return self._doubtful("the callback ended the transaction itself")
        try:
            if self._xid is not None and not self._is_the_same():
                carrier.roll_back()
                return self._doubtful("the callback ended the transaction itself and began another")
            if self._savepoint:
                carrier.run(_RELEASE)
                with contextlib.suppress(psycopg.Error):  # the release was the commit; what follows changes nothing
                    carrier.commit()
                carrier.close_unless_idle()
            elif carrier.commit():
                return self._doubtful("the wait for a synchronous standby was cancelled: it is durable here only")
        except psycopg.Error as error:
            return self._commit_failed(error)
        except BaseException as interrupt:
            if not isinstance(interrupt, Exception):
                committed = self._core.glance()
                interrupt.committed = committed  # type: ignore[attr-defined]
                interrupt.add_note(told(committed))
            carrier.close_unless_idle()
            raise
        return "committed", None

    def _is_the_same(self) -> bool:
        """Whether what is open is still the transaction that was opened, with its fence."""
        ((xid,),) = self.carrier.fetch(_QUERIES["server_current_transaction"])
        return bool(xid == self._xid)

    def _commit_failed(self, error: psycopg.Error) -> tuple[str, str | None]:
        carrier = self.carrier
        gone = carrier.gone
        if error.sqlstate is None and not gone:
            # Refused by psycopg before it was sent: the callback has left one of its own blocks open.
            carrier.close_unless_idle()
            raise error
        failure = failure_of(error, gone)
        if failure in ("disconnected", "ambiguous") or (self._savepoint and failure != "retryable"):
            self._doubtful(str(error), cause=error)
        else:
            self._error = self._caused(error)
        return "commit_failed", failure

    def _doubtful(self, why: str, cause: BaseException | None = None) -> tuple[str, str | None]:
        self._broken_off = cause is None
        self._error = self._core.ambiguous(why)
        self._error.__cause__ = cause
        return "commit_failed", "ambiguous"

    def _restart(self) -> tuple[str, str | None]:
        try:
            self.carrier.run(_RESTART)
        except psycopg.Error as error:
            restart = TransactionRestartError(
                f"could not restart the transaction: {error} (restarting because of: {self._error})"
            )
            restart.__cause__ = self._error
            self._error = restart
            return "restart_failed", None
        return "restarted", None

    def _verdict(self, verdict: str, attempts: int) -> BaseException:
        """The exception that a verdict comes to."""
        error = self._error
        if verdict == "exhausted":
            gave_up = RetriesExhaustedError(exhausted(attempts, error), attempts)
            gave_up.__cause__ = error
            return gave_up
        return error if error is not None else ConnectionFailedError("the transaction failed")

    def _over(self, error: BaseException) -> None:
        ended, lost = outcome(error)
        try:
            self.carrier.roll_back()
            self.carrier.release()
        finally:
            self._core.over(ended, lost=lost)

    def _caused(self, error: psycopg.Error, *, own: bool = False) -> Exception:
        translation = translated(error, self.carrier.gone, own=own)
        translation.__cause__ = error
        return translation

    def call(self, name: str, params: tuple[object, ...]) -> list[_core.Row]:
        """One of bmdb's own statements; returns its rows."""
        return self._rows(self._statement(_QUERIES[name], params, own=True))

    def call_count(self, name: str, params: tuple[object, ...]) -> int:
        """One of bmdb's own statements; returns how many rows it affected."""
        return max(0, self._statement(_QUERIES[name], params, own=True).rowcount)

    def fetch(self, sql: str, params: tuple[object, ...]) -> list[_core.Row]:
        """A statement of the callback's; returns its rows."""
        self._core.check_statement(sql)
        return self._rows(self._statement(sql, params))

    def execute(self, sql: str, params: tuple[object, ...]) -> int:
        """A statement of the callback's; returns how many rows it affected."""
        self._core.check_statement(sql)
        return max(0, self._statement(sql, params).rowcount)

    def _rows(self, cursor: Statement) -> list[_core.Row]:
        if cursor.description is None:
            return []
        names = [column.name for column in cursor.description]
        try:
            return _core.rows(names, cursor.fetchall())
        except psycopg.DataError as error:
            raise self._caused(error) from error

    def _statement(self, sql: str, params: tuple[object, ...], *, own: bool = False) -> Statement:
        self._core.check()
        if not self._core.running:
            raise WorkStateError("this transaction has ended: use q only inside its callback")
        if self._thread != threading.get_ident():
            raise WorkStateError("q belongs to the thread that its callback runs on")
        if self._busy:
            raise WorkStateError("this transaction is in use elsewhere: run its statements one after the other")
        if self.carrier.connection.pgconn.pipeline_status:
            raise WorkStateError("q answers at once, so it cannot be used inside a pipeline: use q.connection there")
        self._busy = True
        try:
            return self.carrier.run(sql, params)
        except psycopg.Error as error:
            raise self._caused(error, own=own) from error
        finally:
            self._busy = False


def foreign(
    core: _core.ForeignTransaction, owner: _core.Connection, connection: Any, engine: Any
) -> ForeignTransaction:
    """The driver for what the user brought. Raises TypeError for what is neither connection nor engine, or both."""
    if engine is not None:
        if connection is not None:
            raise TypeError("give a connection or an engine, not both")
        # SQLAlchemy is an extra.
        from bmdb._sync.engine import EngineCarrier, EngineTransaction, check_engine

        return EngineTransaction(core, EngineCarrier(check_engine(engine)), owner)
    check_kind(connection, asynchronous=False)
    return ForeignTransaction(core, Carrier(connection), owner)


def alone(
    connection: psycopg.Connection[Any],
    fn: Callable[[Any], T],
    isolation: str,
    max_retries: int,
) -> T:
    """The retry executor without a session: see `bmdb.psycopg.run_transaction`."""
    check_kind(connection, asynchronous=False)
    check_callback(fn, asynchronous=False)
    check_usable(connection)
    savepoint = CrdbConnection.is_crdb(connection)
    core = _core.ForeignTransaction.alone("savepoint" if savepoint else "rollback", isolation, max_retries)
    tx = ForeignTransaction(core, Carrier(connection), savepoint=savepoint)
    step = None if tracing.observer is None else tracing.observer.step("transact", None)
    return run(None, tx, fn, lambda _: connection, step)
