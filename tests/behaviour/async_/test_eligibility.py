"""Which machines the agent-start and agent-recovery workflows offer: one condition changed at a time."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

import bmdb

PROVIDER = "Equinix"
SHEPHERDS = ["ShepherdAccess", "ShepherdAgentStart", "ShepherdRecovery"]

Change = Callable[[Any, UUID, Any], Awaitable[object]]  # (queries, machine, the state below)


class Rack:
    """A session, the database beside it, and one machine after another."""

    def __init__(self, session: Any, sql: Any) -> None:
        self.session = session
        self.sql = sql

    def ago(self, **period: float) -> datetime:
        """A moment in the past by the database's clock."""
        unit, number = next(iter(period.items()))
        row = self.sql.execute("SELECT clock_timestamp() - %s * %s::interval", (number, f"1 {unit}")).fetchone()
        return row[0]

    async def machine(self, *changes: Change) -> UUID:
        """A new machine at the provider, changed step by step."""

        async def build(q: Any) -> UUID:
            machine = (await q.new_machine()).machine_id
            await q.machine_add_provided(machine, PROVIDER, f"id-{machine}")
            for change in changes:
                await change(q, machine, self)
            return machine

        return await self.session.transact(build)

    async def change(self, machine: UUID, change: Change) -> None:
        await self.session.transact(lambda q: change(q, machine, self))

    async def for_start(self, limit: int = 10, provider: str = PROVIDER) -> list[UUID]:
        rows = await self.session.transact(lambda q: q.machines_for_agent_start(limit, provider))
        return [row.machine_id for row in rows]

    async def for_recovery(self, limit: int = 10, provider: str = PROVIDER) -> list[UUID]:
        rows = await self.session.transact(lambda q: q.machines_for_agent_recovery(limit, provider))
        return [row.machine_id for row in rows]

    async def counts(self) -> tuple[int, int]:
        async def count(q: Any) -> tuple[int, int]:
            return await q.count_pending_agent_start(), await q.count_pending_agent_recovery()

        return await self.session.transact(count)


@pytest.fixture
def rack(session: Any, sql: Any) -> Rack:
    return Rack(session, sql)


async def unprovided(q: Any, machine: UUID, _: Rack) -> None:
    await q.machine_delete_provided(machine)


def provided_by(provider: str) -> Change:
    return lambda q, machine, _: q.machine_add_provided(machine, provider, f"id-{machine}")


def started(**ago: float) -> Change:
    return lambda q, machine, rack: q.machine_set_agent_started(machine, rack.ago(**ago), b"key")


def heard(**ago: float) -> Change:
    return lambda q, machine, rack: q.machine_set_agent_heartbeat(machine, rack.ago(**ago))


def requested(generation: int) -> Change:
    return lambda q, machine, _: q.machine_set_os_installation_request(machine, generation, b"wish")


def reported(generation: int, result: str) -> Change:
    return lambda q, machine, _: q.machine_set_os_installation_report(machine, generation, result, b"report")


def working(process: str) -> Change:
    return lambda q, machine, rack: q.start_work(machine, rack.session.uuid, process)


def backing_off(process: str, seconds: int) -> Change:
    return lambda q, machine, _: q.insert_work_backoff(machine, process, "refused", seconds)


def backed_off(process: str) -> Change:
    """A backoff whose time has passed."""

    async def change(q: Any, machine: UUID, rack: Rack) -> None:
        await q.insert_work_backoff(machine, process, "refused", 60)
        await q.execute(
            "UPDATE work_backoff SET until = clock_timestamp() - interval '1 second' WHERE machine_id = $1", machine
        )

    return change


# Conditions that the two workflows share: (changes, still eligible).
INSTALLATION = {
    "installation fulfilled": ([requested(2), reported(2, "Success")], False),
    "installation failed": ([requested(2), reported(2, "Error")], True),
    "installation requested": ([requested(1)], True),
    "installation of an older generation": ([requested(2), reported(1, "Success")], True),
    "installation of a newer generation": ([requested(1), reported(2, "Success")], True),
    "installation never requested": ([reported(1, "Success")], True),
}
WORK = {f"active work {process}": ([working(process)], False) for process in SHEPHERDS} | {
    "active work of another process": ([working("UnitTest1")], True),
}


def backoffs(own: str, other: str) -> dict[str, tuple[list[Change], bool]]:
    return {
        "in backoff": ([backing_off(own, 60)], False),
        "backoff has passed": ([backed_off(own)], True),
        "in backoff for the other workflow": ([backing_off(other, 60)], True),
        "in backoff for an unrelated process": ([backing_off("UnitTest1", 60)], True),
        "own backoff has passed, another has not": ([backed_off(own), backing_off("UnitTest1", 60)], True),
    }


PROVISION = {
    "provided": ([], True),
    "not provided": ([unprovided], False),
    "provided by another": ([provided_by("Lumen")], False),
}
START = {
    **PROVISION,
    **INSTALLATION,
    **WORK,
    **backoffs("ShepherdAgentStart", "ShepherdRecovery"),
    "agent started": ([started(minute=1)], False),
    "agent started long ago": ([started(hour=1)], False),
    "heartbeat without a start": ([heard(minute=1)], True),
}
RECOVERY = {
    **PROVISION,
    **INSTALLATION,
    **WORK,
    **backoffs("ShepherdRecovery", "ShepherdAgentStart"),
}
SILENCE = {
    "never heard, started 31 minutes ago": ([started(minute=31)], True),
    "never heard, started 29 minutes ago": ([started(minute=29)], False),
    "heard 11 minutes ago": ([started(hour=2), heard(minute=11)], True),
    "heard 9 minutes ago": ([started(hour=2), heard(minute=9)], False),
    "heard 11 minutes ago, started since": ([started(minute=5), heard(minute=11)], True),
    "heard 9 minutes ago, started 31 minutes ago": ([started(minute=31), heard(minute=9)], False),
    "never started": ([], False),
    "heard 11 minutes ago, never started": ([heard(minute=11)], False),
}


@pytest.mark.parametrize(("changes", "eligible"), START.values(), ids=START.keys())
async def test_agent_start(rack: Rack, changes: list[Change], eligible: bool) -> None:
    machine = await rack.machine(*changes)
    assert await rack.for_start() == ([machine] if eligible else [])


@pytest.mark.parametrize(("changes", "eligible"), RECOVERY.values(), ids=RECOVERY.keys())
async def test_agent_recovery(rack: Rack, changes: list[Change], eligible: bool) -> None:
    machine = await rack.machine(started(hour=1), *changes)
    assert await rack.for_recovery() == ([machine] if eligible else [])


@pytest.mark.parametrize(("changes", "eligible"), SILENCE.values(), ids=SILENCE.keys())
async def test_silence_that_calls_for_recovery(rack: Rack, changes: list[Change], eligible: bool) -> None:
    machine = await rack.machine(*changes)
    assert await rack.for_recovery() == ([machine] if eligible else [])


async def test_statistics_count_what_the_workflows_offer(rack: Rack) -> None:
    for changes, _ in [*START.values(), *SILENCE.values()]:
        await rack.machine(*changes)
    for changes, _ in RECOVERY.values():
        await rack.machine(started(hour=1), *changes)
    start = [await rack.for_start(100, provider) for provider in (PROVIDER, "Lumen")]
    recovery = [await rack.for_recovery(100, provider) for provider in (PROVIDER, "Lumen")]
    assert all(start), "each provider has machines to offer"
    assert all(recovery)
    assert await rack.counts() == (sum(map(len, start)), sum(map(len, recovery)))


async def test_rows_carry_what_the_provider_said(rack: Rack) -> None:
    async def build(q: Any) -> UUID:
        machine = (await q.new_machine()).machine_id
        await q.machine_add_provided(
            machine, PROVIDER, "eq-1", reservation_id="r", ip_address="192.0.2.1", location="AM", status="Running"
        )
        return machine

    machine = await rack.session.transact(build)
    (row,) = await rack.session.transact(lambda q: q.machines_for_agent_start(1, PROVIDER))
    assert (row.machine_id, row.provider, row.provider_id, row.provider_reservation_id) == (
        machine,
        PROVIDER,
        "eq-1",
        "r",
    )
    assert (row.provider_ip_address, row.provider_location, row.provider_status) == ("192.0.2.1", "AM", "Running")


async def test_limit_takes_the_first_machines_by_id(rack: Rack) -> None:
    fresh = sorted([await rack.machine() for _ in range(3)])
    silent = sorted([await rack.machine(started(hour=1)) for _ in range(3)])
    for limit in range(5):
        assert await rack.for_start(limit) == fresh[:limit]
        assert await rack.for_recovery(limit) == silent[:limit]


@pytest.mark.parametrize("workflow", ["machines_for_agent_start", "machines_for_agent_recovery"])
async def test_a_negative_limit_is_refused(rack: Rack, workflow: str) -> None:
    with pytest.raises(bmdb.DatabaseError) as caught:
        await rack.session.transact(lambda q: getattr(q, workflow)(-1, PROVIDER))
    assert caught.value.sqlstate == "2201W"


async def test_a_machine_comes_back_when_its_work_ends(rack: Rack) -> None:
    machine = await rack.machine(working("ShepherdRecovery"))
    assert await rack.for_start() == []
    await rack.change(machine, lambda q, machine, rack: q.finish_work(machine, rack.session.uuid, "ShepherdRecovery"))
    assert await rack.for_start() == [machine]


@pytest.mark.parametrize(
    ("workflow", "changes"),
    [
        ("machines_for_agent_start", [backing_off("ShepherdAgentStart", 2)]),
        ("machines_for_agent_recovery", [started(hour=1), backing_off("ShepherdRecovery", 2)]),
    ],
)
async def test_a_backoff_passes_while_a_transaction_is_open(rack: Rack, workflow: str, changes: list[Change]) -> None:
    """BEGIN does not stop the clock that judges a backoff."""
    machine = await rack.machine(*changes)

    async def wait(q: Any) -> tuple[list[Any], list[Any]]:
        before = await getattr(q, workflow)(10, PROVIDER)
        await asyncio.sleep(2.2)
        return before, await getattr(q, workflow)(10, PROVIDER)

    before, after = await rack.session.transact(wait)
    assert before == []
    assert [row.machine_id for row in after] == [machine]


async def test_an_unknown_provider_has_no_machines(rack: Rack) -> None:
    await rack.machine()
    await rack.machine(started(hour=1))
    assert await rack.for_start(provider=str(uuid.uuid4())) == await rack.for_recovery(provider="equinix") == []
