"""Leases work on machines, straight in the SQL database that describes them."""

from bmdb._async.connection import AsyncConnection
from bmdb._async.queries import AsyncQueries
from bmdb._async.session import AsyncSession
from bmdb._async.work import AsyncWork
from bmdb._core import Backoff, Row, __version__
from bmdb._sync.connection import Connection, connect
from bmdb._sync.queries import Queries
from bmdb._sync.session import Session
from bmdb._sync.work import Work
from bmdb.eligibility import Change, Eligibility, clear_tag, eligible, set_tag
from bmdb.errors import (
    AlreadyCommittedError,
    AmbiguousCommitError,
    Cancel,
    ConfigError,
    ConnectionFailedError,
    DatabaseError,
    Error,
    LeaseLostError,
    MigrationError,
    NothingToDo,
    RetriesExhaustedError,
    Retry,
    SessionExpiredError,
    TransactionRestartError,
    WorkConflictError,
    WorkStateError,
)
from bmdb.explanation import Clause, Explanation
from bmdb.loops.loop import Loop, loop
from bmdb.loops.runner import Runner, run
from bmdb.process import Process
from bmdb.statistics import Statistic, statistic

__all__ = [
    "AlreadyCommittedError",
    "AmbiguousCommitError",
    "AsyncConnection",
    "AsyncQueries",
    "AsyncSession",
    "AsyncWork",
    "Backoff",
    "Cancel",
    "Change",
    "Clause",
    "ConfigError",
    "Connection",
    "ConnectionFailedError",
    "DatabaseError",
    "Eligibility",
    "Error",
    "Explanation",
    "LeaseLostError",
    "Loop",
    "MigrationError",
    "NothingToDo",
    "Process",
    "Queries",
    "RetriesExhaustedError",
    "Retry",
    "Row",
    "Runner",
    "Session",
    "SessionExpiredError",
    "Statistic",
    "TransactionRestartError",
    "Work",
    "WorkConflictError",
    "WorkStateError",
    "__version__",
    "clear_tag",
    "connect",
    "eligible",
    "loop",
    "run",
    "set_tag",
    "statistic",
]
