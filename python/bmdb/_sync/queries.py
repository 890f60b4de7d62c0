# Generated from python/bmdb/_async/queries.py by tools/generate_sync.py: do not edit.
"""Every query of the library as a typed method, and raw SQL beside them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from bmdb._core import Row
from bmdb._sync.stepped import Statements
from bmdb.errors import DatabaseError
from bmdb.identity import Unique
from bmdb.model import (
    ActiveWork,
    AgentStarted,
    HardwareReport,
    HistoryEvent,
    Hold,
    Machine,
    OsInstallationRequest,
    ProcessCount,
    ProvidedMachine,
    RegisteredEligibility,
    RegisteredProcess,
    SessionInfo,
    SessionUse,
    WorkBackoff,
    WorkLoss,
)
from bmdb.process import Process, name_of

__all__ = ["Queries"]

RowT = TypeVar("RowT")


def _first(rows: Sequence[Row], make: Callable[..., RowT]) -> RowT | None:
    return make(*rows[0]) if rows else None


def _each(rows: Sequence[Row], make: Callable[..., RowT]) -> list[RowT]:
    return [make(*row) for row in rows]


class Queries(Unique):
    """What a callback can ask and tell the database, inside the one transaction that it was called for.

    Given to callbacks and valid until they return; used later, or from another thread, it raises WorkStateError.
    Nothing that it writes lands unless the transaction commits, and the callback may run again after
    a conflict with others.

    Every method raises DatabaseError when the server refuses the statement (the SQLSTATE, constraint and table are on
    it), ConnectionFailedError when the connection breaks, TypeError for a value of a type that does not fit and
    ValueError for one out of range. A statement that failed leaves the transaction unusable, so let the error
    surface. Ids are UUIDs, times are aware datetimes, "the clock" is the database's.
    """

    __slots__ = ("_core",)

    def __init__(self, core: Statements) -> None:
        self._core = core

    # Machines and sessions.

    def new_machine(self) -> Machine:
        """Create a machine without tags and return it; its id is `.machine_id`."""
        rows = self._core.call("machine_new", ())
        return Machine(*rows[0])

    def machine(self, machine: UUID) -> Machine | None:
        """The machine; None when there is none of that id."""
        return _first(self._core.call("machine_by_id", (machine,)), Machine)

    def machines(self, after: UUID | None, limit: int) -> list[Machine]:
        """One page of machines by machine id, at most `limit`, which must not be negative.

        Begins after the machine given: None for the first page, then the last machine of the page before. An empty page
        is the end.
        """
        return _each(self._core.call("machine_list", (after, limit)), Machine)

    def session(self, session_id: UUID) -> SessionInfo | None:
        """The session, live or expired; None once it is closed or collected."""
        return _first(self._core.call("session_by_id", (session_id,)), SessionInfo)

    def sessions(self, after: UUID | None, limit: int) -> list[SessionUse]:
        """One page of sessions by session id, live and expired, with how much they hold; pages as `machines` does."""
        return _each(self._core.call("session_list", (after, limit)), SessionUse)

    def session_check(self, session_id: UUID) -> SessionInfo | None:
        """The session if it is live, else None. The transaction's own session has been checked already."""
        return _first(self._core.call("session_check", (session_id,)), SessionInfo)

    def session_poke(self, session_id: UUID) -> bool:
        """Set the deadline of a live session to one interval from now; False, changing nothing, when it is not live.

        The heartbeat does this by itself, outside any transaction. A poke inside a SERIALIZABLE one that overlaps with
        a heartbeat is a conflict, and makes the callback run again.
        """
        return self._core.call_count("session_poke", (session_id,)) > 0

    # Work, one table row at a time. Session.work and Work do these together, and fence them.

    def start_work(self, machine: UUID, session_id: UUID, process: str) -> int:
        """Lease the machine to a session and return the fencing token, which rises with each lease of the pair.

        Raises DatabaseError with constraint `work_pkey` when the pair is leased, `work_machine_fkey` for an unknown
        machine and `work_session_fkey` for an unknown session. Writes no history.
        """
        rows = self._core.call("work_start", (machine, session_id, process))
        if not rows:
            # CockroachDB, where no trigger says so.
            raise DatabaseError(
                f'machine {machine} is being worked on under a process that excludes "{process}"',
                "23P01",
                constraint="work_exclusion",
            )
        token: int = rows[0][0]
        return token

    def finish_work(self, machine: UUID, session_id: UUID, process: str) -> bool:
        """Delete the session's lease of the machine; False when it held none.

        Neither history nor backoff is touched. False means that somebody else may hold the machine: do not commit then.
        """
        return self._core.call_count("work_release", (machine, session_id, process)) > 0

    def notify(self, process: str | Process) -> None:
        """Wake the loops that wait for work of the process, once this transaction is committed.

        A hint that spares them the rest of their pause: say it where a machine becomes eligible. Nothing depends on it,
        and it needs PostgreSQL. Transactions with a hint are committed one after the other, server-wide.
        """
        self._core.call_count("work_notify", (name_of(process),))

    def insert_work_history(
        self,
        machine: UUID,
        process: str,
        event: str,
        failed_cause: str | None = None,
        *,
        session_id: UUID | None = None,
        component: str | None = None,
        token: int | None = None,
    ) -> None:
        """Add an event, stamped with the clock, to the machine's history; the machine need not exist."""
        params = (machine, process, event, failed_cause, session_id, component, token)
        self._core.call_count("work_insert_history", params)

    def history_of(self, machine: UUID) -> list[HistoryEvent]:
        """Everything that happened to the machine, oldest first."""
        return _each(self._core.call("work_history_of", (machine,)), HistoryEvent)

    def latest_history_of(self, machine: UUID, limit: int) -> list[HistoryEvent]:
        """The machine's latest events, newest first, at most `limit`, which must not be negative."""
        return _each(self._core.call("work_history_latest", (machine, limit)), HistoryEvent)

    def work_on(self, machines: Sequence[UUID]) -> list[ActiveWork]:
        """The leases on these machines, by machine and process; an expired session's until it is collected."""
        return _each(self._core.call("work_list", (list(machines),)), ActiveWork)

    def backoffs_of(self, machines: Sequence[UUID]) -> list[WorkBackoff]:
        """The backoffs that keep processes off these machines now, by machine and process."""
        return _each(self._core.call("work_backoff_list", (list(machines),)), WorkBackoff)

    def work_backoff_of(self, machine: UUID, process: str) -> WorkBackoff | None:
        """The backoff of the pair, also when its time has passed; None when there is none."""
        return _first(self._core.call("work_backoff_of", (machine, process)), WorkBackoff)

    def insert_work_backoff(self, machine: UUID, process: str, cause: str, seconds: int) -> None:
        """Keep the process off the machine for so many seconds from now, replacing the pair's earlier backoff."""
        self._core.call_count("work_insert_backoff", (machine, process, cause, seconds))

    def delete_work_backoff(self, machine: UUID, process: str) -> bool:
        """Forget the backoff of the pair; False when there was none."""
        return self._core.call_count("work_delete_backoff", (machine, process)) > 0

    def work_loss_of(self, machine: UUID, process: str) -> WorkLoss | None:
        """How many holders of the pair were lost in a row, and whether it is in quarantine; None when none was."""
        return _first(self._core.call("work_loss_of", (machine, process)), WorkLoss)

    def quarantines(self) -> list[WorkLoss]:
        """Everything in quarantine, by machine and process."""
        return _each(self._core.call("work_quarantines", ()), WorkLoss)

    def release_quarantine(
        self, machine: UUID, process: str, component: str | None = None, cause: str | None = None
    ) -> bool:
        """Let the process have the machine again, at once; False when that was not in quarantine.

        Its losses and the quarantine's backoff are forgotten, so that the next backoff is a first one. `component` is
        recorded in history as who did it.
        """
        return self._core.call_count("work_release_quarantine", (machine, process, component, cause)) > 0

    def force_release(
        self, machine: UUID, process: str, reason: str, component: str | None = None
    ) -> ActiveWork | None:
        """End the lease of the machine, whoever holds it; what it was, or None when there was none.

        History says `Released`, with `reason` as the cause and the lease's session and token.
        """
        params = (machine, process, reason, component)
        return _first(self._core.call("work_force_release", params), ActiveWork)

    def clear_backoff(
        self, machine: UUID, process: str, reason: str, component: str | None = None
    ) -> WorkBackoff | None:
        """End the backoff that keeps the process off the machine; what it was, or None when there was none.

        The next backoff is a first one. That of a quarantine stays. History says `BackoffCleared`, with `reason` as the
        cause.
        """
        params = (machine, process, reason, component)
        return _first(self._core.call("work_clear_backoff", params), WorkBackoff)

    def hold(
        self,
        machine: UUID,
        process: str,
        owner: str,
        reason: str,
        until: datetime | None = None,
        component: str | None = None,
    ) -> None:
        """Keep workers of the process ('': of every process) away from the machine, in place of the hold that is there.

        Raises DatabaseError with constraint `work_hold_machine_fkey` for an unknown machine, ValueError for an `until`
        that has passed, by the clock.
        """
        held = self._core.call_count("work_hold", (machine, process, owner, reason, until, component))
        if held == 0:
            raise ValueError(f"a hold until {until} would be over already: the hold that is there is left alone")

    def release_hold(self, machine: UUID, process: str, component: str | None = None, cause: str | None = None) -> bool:
        """End the hold of the machine for the process ('': the one for every process); False when there was none."""
        return self._core.call_count("work_release_hold", (machine, process, component, cause)) > 0

    def processes(self) -> list[RegisteredProcess]:
        """The processes that workers have registered, by name."""
        return _each(self._core.call("process_list", ()), RegisteredProcess)

    def eligibilities(self, process: str | None) -> list[RegisteredEligibility]:
        """What workers of this process, or of all if it is None, ask of machines, as they have registered it."""
        return _each(self._core.call("process_declared", (process,)), RegisteredEligibility)

    def holds(self, machine: UUID | None = None) -> list[Hold]:
        """The holds in force, of this machine or of all, by machine and process."""
        return _each(self._core.call("work_holds", (machine,)), Hold)

    # Tags. To set one replaces the machine's earlier row whole; to delete one says whether it was there.

    def machine_add_provided(
        self,
        machine: UUID,
        provider: str,
        provider_id: str,
        *,
        reservation_id: str | None = None,
        ip_address: str | None = None,
        location: str | None = None,
        status: str | None = None,
    ) -> None:
        """Say that a provider has the machine, under an id of at most 128 characters.

        Raises DatabaseError with constraint `machine_provided_provider_id_key` when another machine has that id.
        """
        params = (machine, provider, provider_id, reservation_id, ip_address, location, status)
        self._core.call_count("machine_add_provided", params)

    def machine_update_provider_status(
        self,
        provider: str,
        provider_id: str,
        *,
        reservation_id: str | None = None,
        ip_address: str | None = None,
        location: str | None = None,
        status: str | None = None,
    ) -> bool:
        """Update what the provider says about one of its machines; None keeps the stored value.

        False when the provider has no machine of that id.
        """
        params = (provider, provider_id, reservation_id, ip_address, location, status)
        return self._core.call_count("machine_update_provider_status", params) > 0

    def machine_set_agent_started(self, machine: UUID, at: datetime, public_key: bytes) -> None:
        """Say that an agent was started at that time and authenticates with this key."""
        self._core.call_count("machine_set_agent_started", (machine, at, public_key))

    def machine_set_agent_heartbeat(self, machine: UUID, at: datetime) -> None:
        """Say when the agent was last heard from."""
        self._core.call_count("machine_set_agent_heartbeat", (machine, at))

    def machine_set_hardware_report(self, machine: UUID, raw: bytes) -> None:
        """Store what the agent found in the machine."""
        self._core.call_count("machine_set_hardware_report", (machine, raw))

    def machine_set_os_installation_request(self, machine: UUID, generation: int, raw: bytes) -> None:
        """Ask for an installation; it is pending until a report of the same generation comes."""
        self._core.call_count("machine_set_os_installation_request", (machine, generation, raw))

    def machine_set_os_installation_report(self, machine: UUID, generation: int, result: str, raw: bytes) -> None:
        """Report how the installation of that generation ended: `Success` fulfils it, anything else does not."""
        self._core.call_count("machine_set_os_installation_report", (machine, generation, result, raw))

    def machine_delete_provided(self, machine: UUID) -> bool:
        """Say that no provider has the machine any more."""
        return self._core.call_count("machine_delete_provided", (machine,)) > 0

    def machine_delete_agent_started(self, machine: UUID) -> bool:
        """Say that no agent was started, which makes the machine eligible for agent start again."""
        return self._core.call_count("machine_delete_agent_started", (machine,)) > 0

    def machine_delete_agent_heartbeat(self, machine: UUID) -> bool:
        """Forget when the agent was last heard from."""
        return self._core.call_count("machine_delete_agent_heartbeat", (machine,)) > 0

    def machine_delete_hardware_report(self, machine: UUID) -> bool:
        """Forget what the agent found."""
        return self._core.call_count("machine_delete_hardware_report", (machine,)) > 0

    def machine_delete_os_installation_request(self, machine: UUID) -> bool:
        """Withdraw the request for an installation."""
        return self._core.call_count("machine_delete_os_installation_request", (machine,)) > 0

    def machine_delete_os_installation_report(self, machine: UUID) -> bool:
        """Forget how the last installation ended, which makes a requested one pending again."""
        return self._core.call_count("machine_delete_os_installation_report", (machine,)) > 0

    # Workflows.

    def provided_machines(self, provider: str) -> list[ProvidedMachine]:
        """All machines of one provider, by machine id."""
        return _each(self._core.call("machine_provided", (provider,)), ProvidedMachine)

    def machines_for_agent_start(self, limit: int, provider: str) -> list[ProvidedMachine]:
        """Machines of the provider that need an agent, by machine id; at most `limit`, which must not be negative.

        Left out: machines with an agent started, with a fulfilled installation (a successful report of the request's
        generation), with active work of any of the three Shepherd processes, or in backoff for ShepherdAgentStart.
        """
        return _each(self._core.call("workflow_agent_start", (limit, provider)), ProvidedMachine)

    def machines_for_agent_recovery(self, limit: int, provider: str) -> list[ProvidedMachine]:
        """Machines of the provider whose agent fell silent, by machine id; at most `limit`, which must not be negative.

        Silent: last heard from over 10 minutes ago, or started over 30 minutes ago and never heard from. Left out:
        machines with a fulfilled installation, with active work of any of the three Shepherd processes, or in backoff
        for ShepherdRecovery.
        """
        return _each(self._core.call("workflow_agent_recovery", (limit, provider)), ProvidedMachine)

    # Agents.

    def authenticate_agent(self, machine: UUID, public_key: bytes) -> AgentStarted | None:
        """The machine's agent if this is its key, else None: refuse the connection then."""
        return _first(self._core.call("agent_authenticate", (machine, public_key)), AgentStarted)

    def os_installation_of(self, machine: UUID) -> OsInstallationRequest | None:
        """The machine's installation request while it is pending, else None.

        Pending: not reported on, or the last report is of another generation. A report of the same generation ends it,
        whatever its result.
        """
        return _first(self._core.call("agent_os_installation_of", (machine,)), OsInstallationRequest)

    # Statistics.

    def count_machines(self) -> int:
        """How many machines there are."""
        return self._count("statistics_count_machines")

    def count_provided(self) -> int:
        """How many machines some provider has."""
        return self._count("statistics_count_provided")

    def count_heartbeating(self) -> int:
        """How many machines had their agent heard from within the last 10 minutes."""
        return self._count("statistics_count_heartbeating")

    def count_pending_installation(self) -> int:
        """How many machines have an installation requested and not reported on."""
        return self._count("statistics_count_pending_installation")

    def count_installed(self) -> int:
        """How many machines had their requested installation succeed."""
        return self._count("statistics_count_installed")

    def count_pending_agent_start(self) -> int:
        """How many machines of all providers are eligible for agent start."""
        return self._count("statistics_count_pending_agent_start")

    def count_pending_agent_recovery(self) -> int:
        """How many machines of all providers are eligible for agent recovery."""
        return self._count("statistics_count_pending_agent_recovery")

    def count_active_work(self) -> list[ProcessCount]:
        """How many leases each process has; an expired session's count until it is collected."""
        return _each(self._core.call("statistics_count_active_work", ()), ProcessCount)

    def count_active_backoffs(self) -> list[ProcessCount]:
        """How many machines each process keeps off, leaving out backoffs that have passed."""
        return _each(self._core.call("statistics_count_active_backoffs", ()), ProcessCount)

    def machine_hardware(self, after: UUID | None, limit: int) -> list[HardwareReport]:
        """One page of hardware reports by machine id, at most `limit`, which must not be negative.

        Begins after the machine given: None for the first page, then the last machine of the page before. An empty page
        is the end.
        """
        return _each(self._core.call("statistics_machine_hardware", (after, limit)), HardwareReport)

    def _count(self, name: str) -> int:
        rows = self._core.call(name, ())
        count: int = rows[0][0]
        return count

    # Raw SQL. Parameters are $1, $2 and so on, and never part of the text.

    def execute(self, sql: str, *params: object) -> int:
        """Run one statement and return how many rows it affected.

        A setting for this transaction is `SET LOCAL`; after a plain `SET` (or LISTEN, PREPARE, a temporary table) the
        connection is closed with the transaction, so that no other inherits it.
        """
        return self._core.execute(sql, params)

    def fetch(self, sql: str, *params: object) -> list[Row]:
        """Run one statement and return all its rows, with the columns as attributes."""
        return self._core.fetch(sql, params)

    def fetch_one(self, sql: str, *params: object) -> Row | None:
        """Run one statement and return its first row, or None; further rows are dropped."""
        rows = self._core.fetch(sql, params)
        return rows[0] if rows else None

    def fetch_value(self, sql: str, *params: object) -> Any:
        """Run one statement and return the first column of its first row; None also when there is no row."""
        row = self.fetch_one(sql, *params)
        return None if row is None else row[0]
