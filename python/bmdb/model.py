"""The rows that the library's own queries answer with, and the words that the original's tables use.

Every class here is one row: frozen, with the columns of its table as attributes, in the order of the query that fills
it. Timestamps are aware datetimes. The enumerations are plain text in the database, and no column is limited to them:
processes, providers and statuses of your own are as good.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

__all__ = [
    "ActiveWork",
    "AgentStarted",
    "Event",
    "HardwareReport",
    "HistoryEvent",
    "Hold",
    "InstallationResult",
    "Machine",
    "OsInstallationRequest",
    "ProcessCount",
    "ProcessName",
    "ProvidedMachine",
    "Provider",
    "ProviderStatus",
    "SessionInfo",
    "SessionUse",
    "WorkBackoff",
    "WorkLoss",
]


class ProcessName(StrEnum):
    """Kinds of work in the original. The three of the Shepherd exclude one another in its eligibility queries."""

    SHEPHERD_ACCESS = "ShepherdAccess"
    SHEPHERD_AGENT_START = "ShepherdAgentStart"
    SHEPHERD_RECOVERY = "ShepherdRecovery"
    UNIT_TEST_1 = "UnitTest1"
    UNIT_TEST_2 = "UnitTest2"


class Event(StrEnum):
    """What can happen to work.

    `LOST` and `QUARANTINED` are written by collection, in the name of a session that expired; `QUARANTINE_RELEASED` by
    whoever released it. `HELD` and `RELEASED` are a person's hold of the machine and its end; the process is '' when
    the hold is for all of them. `RELEASED` with a session and a token is a lease that a person ended, in its holder's
    place, and `BACKOFF_CLEARED` a backoff.
    """

    STARTED = "Started"
    FINISHED = "Finished"
    FAILED = "Failed"
    CANCELED = "Canceled"
    LOST = "Lost"
    QUARANTINED = "Quarantined"
    QUARANTINE_RELEASED = "QuarantineReleased"
    HELD = "Held"
    RELEASED = "Released"
    BACKOFF_CLEARED = "BackoffCleared"


class Provider(StrEnum):
    """Where the original gets machines from."""

    EQUINIX = "Equinix"
    LUMEN = "Lumen"
    NONE = "None"


class ProviderStatus(StrEnum):
    """What a provider says about a machine."""

    MISSING = "Missing"
    PROVISIONING = "Provisioning"
    PROVISIONING_FAILED_PERMANENT = "ProvisioningFailedPermanent"
    RUNNING = "Running"
    STOPPED = "Stopped"
    UNKNOWN = "Unknown"


class InstallationResult(StrEnum):
    """How the installation of an operating system ended. Only `SUCCESS` makes it fulfilled."""

    SUCCESS = "Success"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine; everything else about it is a tag."""

    machine_id: UUID
    machine_created_at: datetime


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session. Component and runtime info are for people; the interval is in whole seconds.

    `session_live` is the database's own answer, by its clock, at the moment of reading.
    """

    session_id: UUID
    session_component_name: str
    session_runtime_info: str
    session_created_at: datetime
    session_interval_seconds: int
    session_deadline: datetime
    session_live: bool


@dataclass(frozen=True, slots=True)
class SessionUse:
    """A session as :class:`SessionInfo` shows it, with how many leases it holds."""

    session_id: UUID
    session_component_name: str
    session_runtime_info: str
    session_created_at: datetime
    session_interval_seconds: int
    session_deadline: datetime
    session_live: bool
    session_leases: int


@dataclass(frozen=True, slots=True)
class ActiveWork:
    """A lease on a machine, with the session that holds it. One that is not live is about to be collected."""

    machine_id: UUID
    process: str
    session_id: UUID
    token: int
    work_started_at: datetime
    session_component_name: str
    session_runtime_info: str
    session_live: bool


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One entry of a machine's audit trail; outlives machine and session.

    `event` is text, usually one of :class:`Event`. `failed_cause` is set for failures, quarantines and
    what an operator does ("owner: reason") only. Session, component and token are None where whoever wrote the entry
    named none.
    """

    machine_id: UUID
    process: str
    event: str
    timestamp: datetime
    failed_cause: str | None
    session_id: UUID | None
    component: str | None
    token: int | None


@dataclass(frozen=True, slots=True)
class WorkBackoff:
    """A process keeps off a machine until `until`.

    A row whose `until` has passed excludes nothing, but its interval (whole seconds; None in rows of older schemas)
    still feeds the next period.
    """

    machine_id: UUID
    process: str
    until: datetime
    cause: str
    last_interval_seconds: int | None


@dataclass(frozen=True, slots=True)
class WorkLoss:
    """How many holders of a machine's leases for a process were lost in a row.

    Any end of work that its holder told resets it to none, which has no row. While `quarantined_at` is set the machine
    is in quarantine: it is not leased for the process until somebody releases it.
    """

    machine_id: UUID
    process: str
    losses: int
    last_lost_at: datetime
    quarantined_at: datetime | None


@dataclass(frozen=True, slots=True)
class RegisteredEligibility:
    """Which machines need a process, as a worker has registered it; its parameters are written into the SQL.

    `version` is that of the worker's bmdb, `seen` when one of its workers last said that it is there.
    """

    process: str
    fingerprint: str
    having: list[str]
    lacking: list[str]
    condition: str | None
    order_by: str | None
    sql: str | None
    version: str
    seen: datetime


@dataclass(frozen=True, slots=True)
class RegisteredProcess:
    """What the database keeps of a process, in seconds; None where there is none, or no worker has said.

    `backoff_…` and `max_hold` are as the worker declared them that came last; the crash backoff and `quarantine_after`
    hold for all. `excludes` goes both ways: processes that it excludes and that exclude it. `version` is that of the
    last worker's bmdb; `seen` is when one of its workers last asked for work, give or take a minute.
    """

    process: str
    backoff_initial: float | None
    backoff_maximum: float | None
    backoff_exponent: float | None
    backoff_jitter: float | None
    max_hold: float | None
    crash_backoff_initial: float | None
    crash_backoff_maximum: float | None
    crash_backoff_exponent: float | None
    crash_backoff_jitter: float | None
    quarantine_after: int | None
    excludes: list[str]
    registered_at: datetime
    version: str | None
    seen: datetime | None


class Pruned(NamedTuple):
    """What was removed of history: how many events, and which monthly partitions went as a whole, by name."""

    rows: int
    partitions: list[str]


@dataclass(frozen=True, slots=True)
class Hold:
    """A person keeps workers away from a machine: those of `process`, or all of them if that is None.

    Without `until` it lasts until it is released. Leases that were held when it began are left alone.
    """

    machine_id: UUID
    process: str | None
    owner: str
    reason: str
    held_at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ProvidedMachine:
    """A machine that a provider has. The id is unique for each provider."""

    machine_id: UUID
    provider: str
    provider_id: str
    provider_reservation_id: str | None
    provider_ip_address: str | None
    provider_location: str | None
    provider_status: str | None


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """An agent was started on the machine and authenticates with this key."""

    machine_id: UUID
    agent_started_at: datetime
    agent_public_key: bytes


@dataclass(frozen=True, slots=True)
class HardwareReport:
    """What the agent found in the machine, as the agent encoded it."""

    machine_id: UUID
    hardware_report_raw: bytes


@dataclass(frozen=True, slots=True)
class OsInstallationRequest:
    """An operating system is wanted on the machine; a new wish has a new generation."""

    machine_id: UUID
    generation: int
    os_installation_request_raw: bytes


@dataclass(frozen=True, slots=True)
class ProcessCount:
    """How many leases, or how many backoffs, a process has. A process that has none has no row."""

    process: str
    count: int
