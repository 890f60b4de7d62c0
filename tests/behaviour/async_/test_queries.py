"""What each query of the library does, on a real database. Eligibility has a file of its own."""

import asyncio
import dataclasses
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.drivers import Driver

import bmdb
from bmdb import model

AT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
PROCESS = "UnitTest1"


async def create(session: Any, change: Callable[[Any, UUID], Awaitable[object]] | None = None) -> UUID:
    """A new machine, to which the change was made in the same transaction."""

    async def build(q: Any) -> UUID:
        machine = (await q.new_machine()).machine_id
        if change is not None:
            await change(q, machine)
        return machine

    return await session.transact(build)


async def expired_session(q: Any) -> UUID:
    """A session past its deadline; asked about in the same transaction, so that collection does not see it."""
    return await q.fetch_value(
        "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
        " session_deadline) VALUES ('gone', '', 5, clock_timestamp() - interval '1 second') RETURNING session_id"
    )


class TestMachines:
    async def test_new(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await session.transact(lambda q: q.new_machine(), **driver)
        assert sql.execute("SELECT * FROM machines").fetchall() == [(machine.machine_id, machine.machine_created_at)]

    async def test_rows_are_frozen(self, session: Any, driver: Driver) -> None:
        machine = await session.transact(lambda q: q.new_machine(), **driver)
        with pytest.raises(dataclasses.FrozenInstanceError):
            machine.machine_id = uuid.uuid4()


class TestSessions:
    async def test_own_session_is_live(self, session: Any, driver: Driver) -> None:
        async def ask(q: Any) -> tuple[Any, Any]:
            return await q.session(session.uuid), await q.session_check(session.uuid)

        by_id, checked = await session.transact(ask, **driver)
        for info in (by_id, checked):
            assert info.session_id == session.uuid
            assert info.session_live
            assert info.session_interval_seconds == session.interval
            assert info.session_deadline > info.session_created_at

    async def test_expired_session_is_shown_but_not_live(self, session: Any, driver: Driver) -> None:
        async def ask(q: Any) -> tuple[Any, Any]:
            gone = await expired_session(q)
            return await q.session(gone), await q.session_check(gone)

        by_id, checked = await session.transact(ask, **driver)
        assert by_id.session_component_name == "gone"
        assert not by_id.session_live
        assert checked is None

    async def test_unknown_session(self, session: Any, driver: Driver) -> None:
        unknown = uuid.uuid4()

        async def ask(q: Any) -> tuple[Any, Any, bool]:
            return await q.session(unknown), await q.session_check(unknown), await q.session_poke(unknown)

        assert await session.transact(ask, **driver) == (None, None, False)

    async def test_poke_moves_the_deadline_of_a_live_session(self, session: Any, driver: Driver) -> None:
        async def poke(q: Any) -> tuple[Any, bool, Any]:
            other = await q.fetch_value(
                "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
                " session_deadline) VALUES ('other', '', 60, clock_timestamp() + interval '5 seconds')"
                " RETURNING session_id"
            )
            return await q.session(other), await q.session_poke(other), await q.session(other)

        before, poked, after = await session.transact(poke, **driver)
        assert poked
        assert after.session_deadline - before.session_deadline > timedelta(seconds=54)

    async def test_poke_does_not_revive(self, session: Any, driver: Driver) -> None:
        async def poke(q: Any) -> tuple[bool, Any]:
            gone = await expired_session(q)
            return await q.session_poke(gone), await q.session_check(gone)

        assert await session.transact(poke, **driver) == (False, None)


class TestWork:
    async def test_token_rises_with_each_lease_of_the_pair(self, session: Any, driver: Driver) -> None:
        machine = await create(session)

        async def lease(process: str) -> int:
            return await session.transact(lambda q: q.start_work(machine, session.uuid, process), **driver)

        assert await lease(PROCESS) == 1
        assert await session.transact(lambda q: q.finish_work(machine, session.uuid, PROCESS), **driver)
        assert await lease("UnitTest2") == 1
        assert await lease(PROCESS) == 2

    async def test_second_lease_of_the_pair_is_refused(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, machine: q.start_work(machine, session.uuid, PROCESS))
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.start_work(machine, session.uuid, PROCESS), **driver)
        assert (caught.value.sqlstate, caught.value.constraint) == ("23505", "work_pkey")
        assert sql.execute("SELECT token FROM work_token").fetchall() == [(1,)]

    async def test_unknown_machine_and_session(self, session: Any, driver: Driver) -> None:
        machine = await create(session)
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.start_work(uuid.uuid4(), session.uuid, PROCESS), **driver)
        assert caught.value.constraint == "work_machine_fkey"
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.start_work(machine, uuid.uuid4(), PROCESS), **driver)
        assert caught.value.constraint == "work_session_fkey"

    async def test_finish_needs_machine_session_and_process(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, machine: q.start_work(machine, session.uuid, PROCESS))
        for wrong in (
            (await create(session), session.uuid, PROCESS),
            (machine, uuid.uuid4(), PROCESS),
            (machine, session.uuid, "UnitTest2"),
        ):
            assert await session.transact(lambda q, wrong=wrong: q.finish_work(*wrong), **driver) is False
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (1,)
        assert await session.transact(lambda q: q.finish_work(machine, session.uuid, PROCESS), **driver) is True
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)

    async def test_history_is_of_one_machine_oldest_first(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await create(session)

        async def write(q: Any) -> None:
            await q.insert_work_history(machine, PROCESS, "Started", session_id=session.uuid, component="test", token=7)
            await q.insert_work_history(machine, PROCESS, "Failed", "refused")
            await q.insert_work_history(uuid.uuid4(), PROCESS, "Started")

        await session.transact(write, **driver)
        sql.execute(
            'INSERT INTO work_history (machine_id, process, event, "timestamp") VALUES (%s, %s, %s, %s)',
            (machine, PROCESS, "Canceled", AT),
        )
        oldest, begun, failed = await session.transact(lambda q: q.history_of(machine), **driver)
        assert oldest == model.HistoryEvent(machine, PROCESS, "Canceled", AT, None, None, None, None)
        assert (begun.event, begun.failed_cause) == ("Started", None)
        assert (begun.session_id, begun.component, begun.token) == (session.uuid, "test", 7)
        assert (failed.event, failed.failed_cause, failed.session_id) == ("Failed", "refused", None)
        assert begun.timestamp < failed.timestamp

    async def test_history_outlives_the_machine(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, machine: q.insert_work_history(machine, PROCESS, "Started"))
        sql.execute("DELETE FROM machines WHERE machine_id = %s", (machine,))
        assert [event.event for event in await session.transact(lambda q: q.history_of(machine), **driver)] == [
            "Started"
        ]


class TestBackoffs:
    async def test_none_at_first(self, session: Any, driver: Driver) -> None:
        machine = await create(session)
        assert await session.transact(lambda q: q.work_backoff_of(machine, PROCESS), **driver) is None
        assert await session.transact(lambda q: q.delete_work_backoff(machine, PROCESS), **driver) is False

    async def test_the_period_starts_when_the_row_is_written(self, session: Any, driver: Driver) -> None:
        machine = await create(session)

        async def fail(q: Any) -> tuple[Any, datetime]:
            await asyncio.sleep(0.5)
            await q.insert_work_backoff(machine, PROCESS, "refused", 60)
            return await q.work_backoff_of(machine, PROCESS), await q.fetch_value("SELECT now()")

        backoff, begun = await session.transact(fail, **driver)
        assert (backoff.machine_id, backoff.process, backoff.cause) == (machine, PROCESS, "refused")
        assert backoff.last_interval_seconds == 60
        assert timedelta(seconds=60.5) <= backoff.until - begun < timedelta(seconds=70)

    async def test_another_failure_replaces_the_row_of_its_pair_alone(self, session: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, machine: q.insert_work_backoff(machine, "UnitTest2", "other", 5))
        for cause, seconds in (("first", 600), ("second", 1)):
            await session.transact(
                lambda q, c=cause, s=seconds: q.insert_work_backoff(machine, PROCESS, c, s), **driver
            )

        async def ask(q: Any) -> tuple[Any, Any, datetime]:
            own, other = await q.work_backoff_of(machine, PROCESS), await q.work_backoff_of(machine, "UnitTest2")
            return own, other, await q.fetch_value("SELECT clock_timestamp()")

        own, other, now = await session.transact(ask, **driver)
        assert (own.cause, own.last_interval_seconds) == ("second", 1)
        assert own.until < now + timedelta(seconds=2)
        assert (other.cause, other.last_interval_seconds) == ("other", 5)

    async def test_an_older_schema_left_no_interval(self, session: Any, sql: Any, driver: Driver) -> None:
        machine = await create(session)
        sql.execute(
            "INSERT INTO work_backoff (machine_id, process, until, cause) VALUES (%s, %s, %s, 'old')",
            (machine, PROCESS, AT),
        )
        backoff = await session.transact(lambda q: q.work_backoff_of(machine, PROCESS), **driver)
        assert backoff == model.WorkBackoff(machine, PROCESS, AT, "old", None)

    async def test_delete(self, session: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, machine: q.insert_work_backoff(machine, PROCESS, "refused", 60))
        assert await session.transact(lambda q: q.delete_work_backoff(machine, "UnitTest2"), **driver) is False
        assert await session.transact(lambda q: q.delete_work_backoff(machine, PROCESS), **driver) is True
        assert await session.transact(lambda q: q.work_backoff_of(machine, PROCESS), **driver) is None

    async def test_a_period_beyond_all_time_is_refused(self, session: Any, driver: Driver) -> None:
        machine = await create(session)
        with pytest.raises(bmdb.DatabaseError):
            await session.transact(lambda q: q.insert_work_backoff(machine, PROCESS, "refused", 2**62), **driver)
        assert await session.transact(lambda q: q.work_backoff_of(machine, PROCESS), **driver) is None


# Each tag: (table, two ways to set it with the columns that they leave behind).
TAGS: dict[str, list[tuple[Callable[[Any, UUID], Awaitable[object]], tuple[object, ...]]]] = {
    "provided": [
        (
            lambda q, m: q.machine_add_provided(
                m, "Equinix", "a", reservation_id="r", ip_address="192.0.2.1", location="AM", status="Running"
            ),
            ("Equinix", "a", "r", "192.0.2.1", "AM", "Running"),
        ),
        (lambda q, m: q.machine_add_provided(m, "Lumen", "b"), ("Lumen", "b", None, None, None, None)),
    ],
    "agent_started": [
        (lambda q, m: q.machine_set_agent_started(m, AT, b"\x00key"), (AT, b"\x00key")),
        (lambda q, m: q.machine_set_agent_started(m, AT + timedelta(1), b""), (AT + timedelta(1), b"")),
    ],
    "agent_heartbeat": [
        (lambda q, m: q.machine_set_agent_heartbeat(m, AT), (AT,)),
        (lambda q, m: q.machine_set_agent_heartbeat(m, AT - timedelta(1)), (AT - timedelta(1),)),
    ],
    "hardware_report": [
        (lambda q, m: q.machine_set_hardware_report(m, b"one"), (b"one",)),
        (lambda q, m: q.machine_set_hardware_report(m, b"two"), (b"two",)),
    ],
    "os_installation_request": [
        (lambda q, m: q.machine_set_os_installation_request(m, 1, b"one"), (1, b"one")),
        (lambda q, m: q.machine_set_os_installation_request(m, 2, b"two"), (2, b"two")),
    ],
    "os_installation_report": [
        (lambda q, m: q.machine_set_os_installation_report(m, 1, "Error", b"one"), (1, "Error", b"one")),
        (lambda q, m: q.machine_set_os_installation_report(m, 2, "Success", b"two"), (2, "Success", b"two")),
    ],
}


class TestTags:
    @pytest.mark.parametrize("tag", TAGS)
    async def test_set_replace_delete(self, session: Any, sql: Any, tag: str, driver: Driver) -> None:
        machine, bystander = await create(session), await create(session)

        def rows() -> list[Any]:
            return sql.execute(f"SELECT * FROM machine_{tag} WHERE machine_id = %s", (machine,)).fetchall()

        for change, columns in TAGS[tag]:
            assert await session.transact(lambda q, change=change: change(q, machine), **driver) is None
            assert rows() == [(machine, *columns)]
        await session.transact(lambda q: TAGS[tag][0][0](q, bystander), **driver)
        delete = f"machine_delete_{tag}"
        assert await session.transact(lambda q: getattr(q, delete)(machine), **driver) is True
        assert rows() == []
        assert await session.transact(lambda q: getattr(q, delete)(machine), **driver) is False
        assert sql.execute(f"SELECT count(*) FROM machine_{tag}").fetchone() == (1,)

    @pytest.mark.parametrize("tag", TAGS)
    async def test_a_tag_needs_its_machine(self, session: Any, tag: str, driver: Driver) -> None:
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: TAGS[tag][0][0](q, uuid.uuid4()), **driver)
        assert caught.value.constraint == f"machine_{tag}_machine_fkey"

    async def test_a_provider_id_belongs_to_one_machine(self, session: Any) -> None:
        await create(session, lambda q, machine: q.machine_add_provided(machine, "Equinix", "same"))
        await create(session, lambda q, machine: q.machine_add_provided(machine, "Lumen", "same"))
        with pytest.raises(bmdb.DatabaseError) as caught:
            await create(session, lambda q, machine: q.machine_add_provided(machine, "Equinix", "same"))
        assert caught.value.constraint == "machine_provided_provider_id_key"

    async def test_a_provider_id_has_at_most_128_characters(self, session: Any) -> None:
        await create(session, lambda q, machine: q.machine_add_provided(machine, "Equinix", "é" * 128))
        with pytest.raises(bmdb.DatabaseError) as caught:
            await create(session, lambda q, machine: q.machine_add_provided(machine, "Equinix", "x" * 129))
        assert caught.value.sqlstate == "22001"

    async def test_update_of_the_provider_status_keeps_what_it_is_not_told(self, session: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, m: q.machine_add_provided(m, "Equinix", "a", location="AM"))
        await create(session, lambda q, m: q.machine_add_provided(m, "Lumen", "a", status="Stopped"))

        async def update(**known: str) -> tuple[object, ...]:
            assert (
                await session.transact(lambda q: q.machine_update_provider_status("Equinix", "a", **known), **driver)
                is True
            )
            (row,) = await session.transact(lambda q: q.provided_machines("Equinix"), **driver)
            assert (row.machine_id, row.provider, row.provider_id) == (machine, "Equinix", "a")
            return (row.provider_reservation_id, row.provider_ip_address, row.provider_location, row.provider_status)

        assert await update() == (None, None, "AM", None)
        assert await update(status="Provisioning") == (None, None, "AM", "Provisioning")
        assert await update(ip_address="192.0.2.1", reservation_id="r") == ("r", "192.0.2.1", "AM", "Provisioning")
        assert await update(status="Running", location="FR") == ("r", "192.0.2.1", "FR", "Running")
        (other,) = await session.transact(lambda q: q.provided_machines("Lumen"), **driver)
        assert (other.provider_location, other.provider_status) == (None, "Stopped")

    async def test_update_of_an_unknown_provider_id(self, session: Any, driver: Driver) -> None:
        await create(session, lambda q, machine: q.machine_add_provided(machine, "Equinix", "a"))
        for provider, provider_id in (("Equinix", "b"), ("Lumen", "a")):
            known = await session.transact(
                lambda q, p=provider, i=provider_id: q.machine_update_provider_status(p, i, status="Running"), **driver
            )
            assert known is False

    async def test_provided_machines_are_those_of_the_provider_by_id(self, session: Any, driver: Driver) -> None:
        machines = [await create(session, lambda q, m: q.machine_add_provided(m, "Equinix", str(m))) for _ in range(4)]
        await create(session, lambda q, machine: q.machine_add_provided(machine, "Lumen", "a"))
        rows = await session.transact(lambda q: q.provided_machines("Equinix"), **driver)
        assert [row.machine_id for row in rows] == sorted(machines)
        assert await session.transact(lambda q: q.provided_machines("None"), **driver) == []


class TestAgents:
    async def test_authentication_needs_machine_and_key(self, session: Any, driver: Driver) -> None:
        machine = await create(session, lambda q, m: q.machine_set_agent_started(m, AT, b"key"))
        other = await create(session, lambda q, m: q.machine_set_agent_started(m, AT, b"other"))

        async def ask(machine: UUID, key: bytes) -> Any:
            return await session.transact(lambda q: q.authenticate_agent(machine, key), **driver)

        assert await ask(machine, b"key") == model.AgentStarted(machine, AT, b"key")
        assert await ask(other, b"key") is None
        assert await ask(machine, b"other") is None
        assert await ask(machine, b"") is None
        assert await ask(uuid.uuid4(), b"key") is None

    async def test_installation_is_pending_while_the_generations_differ(self, session: Any, driver: Driver) -> None:
        machine = await create(session)

        async def after(change: Callable[[Any], object]) -> Any:
            await session.transact(change, **driver)
            return await session.transact(lambda q: q.os_installation_of(machine), **driver)

        assert await after(lambda q: None) is None
        pending = model.OsInstallationRequest(machine, 3, b"wish")
        assert await after(lambda q: q.machine_set_os_installation_request(machine, 3, b"wish")) == pending
        assert await after(lambda q: q.machine_set_os_installation_report(machine, 2, "Success", b"")) == pending
        assert await after(lambda q: q.machine_set_os_installation_report(machine, 3, "Error", b"")) is None
        assert await after(lambda q: q.machine_set_os_installation_report(machine, 3, "Success", b"")) is None
        again = dataclasses.replace(pending, generation=4)
        assert await after(lambda q: q.machine_set_os_installation_request(machine, 4, b"wish")) == again
        assert await after(lambda q: q.machine_delete_os_installation_request(machine)) is None


class TestStatistics:
    async def test_an_empty_database_counts_nothing(self, session: Any, driver: Driver) -> None:
        async def ask(q: Any) -> list[object]:
            return [
                await q.count_machines(),
                await q.count_provided(),
                await q.count_heartbeating(),
                await q.count_pending_installation(),
                await q.count_installed(),
                await q.count_pending_agent_start(),
                await q.count_pending_agent_recovery(),
                await q.count_active_work(),
                await q.count_active_backoffs(),
                await q.machine_hardware(None, 10),
            ]

        assert await session.transact(ask, **driver) == [0] * 7 + [[]] * 3

    async def test_machines_and_provided(self, session: Any, driver: Driver) -> None:
        for n in range(3):
            await create(session)
            await create(session, lambda q, m, n=n: q.machine_add_provided(m, ["Equinix", "Lumen", "Own"][n], "a"))

        async def ask(q: Any) -> tuple[int, int]:
            return await q.count_machines(), await q.count_provided()

        assert await session.transact(ask, **driver) == (6, 3)

    async def test_heartbeating_is_within_ten_minutes(self, session: Any, sql: Any, driver: Driver) -> None:
        await create(session)
        for minutes in (0, 9, 11, 600):
            (at,) = sql.execute("SELECT clock_timestamp() - %s * interval '1 minute'", (minutes,)).fetchone()
            await create(session, lambda q, machine, at=at: q.machine_set_agent_heartbeat(machine, at))
        assert await session.transact(lambda q: q.count_heartbeating(), **driver) == 2

    async def test_installations(self, session: Any, driver: Driver) -> None:
        cases = [  # generation requested, generation reported, result
            (1, None, None),  # pending
            (2, 1, "Success"),  # pending
            (2, 1, "Error"),  # pending
            (1, 1, "Success"),  # installed
            (1, 1, "Error"),  # neither
            (None, 1, "Success"),  # neither
            (None, None, None),
        ]
        for wanted, reported, result in cases:
            machine = await create(session)
            if wanted is not None:
                await session.transact(
                    lambda q, m=machine, g=wanted: q.machine_set_os_installation_request(m, g, b""), **driver
                )
            if reported is not None:
                await session.transact(
                    lambda q, m=machine, g=reported, r=result: q.machine_set_os_installation_report(m, g, r, b""),
                    **driver,
                )

        async def ask(q: Any) -> tuple[int, int]:
            return await q.count_pending_installation(), await q.count_installed()

        assert await session.transact(ask, **driver) == (3, 1)

    async def test_active_work_by_process(self, session: Any, driver: Driver) -> None:
        for _ in range(2):
            await create(session, lambda q, machine: q.start_work(machine, session.uuid, "B"))
        await create(session, lambda q, machine: q.start_work(machine, session.uuid, "A"))
        counts = await session.transact(lambda q: q.count_active_work(), **driver)
        assert counts == [model.ProcessCount("A", 1), model.ProcessCount("B", 2)]

    async def test_active_backoffs_by_process_leave_out_what_has_passed(
        self, session: Any, sql: Any, driver: Driver
    ) -> None:
        passed = await create(session, lambda q, machine: q.insert_work_backoff(machine, "A", "refused", 60))
        sql.execute("UPDATE work_backoff SET until = clock_timestamp() WHERE machine_id = %s", (passed,))
        await create(session, lambda q, machine: q.insert_work_backoff(machine, "A", "refused", 60))
        for _ in range(2):
            await create(session, lambda q, machine: q.insert_work_backoff(machine, "B", "refused", 60))
        counts = await session.transact(lambda q: q.count_active_backoffs(), **driver)
        assert counts == [model.ProcessCount("A", 1), model.ProcessCount("B", 2)]

    async def test_hardware_pages_reach_every_report_once(self, session: Any, sql: Any, driver: Driver) -> None:
        await create(session)
        sql.execute("INSERT INTO machines (machine_id) VALUES (%s)", (UUID(int=0),))
        machines = [UUID(int=0), *[await create(session) for _ in range(6)]]
        for machine in machines:
            await session.transact(lambda q, m=machine: q.machine_set_hardware_report(m, m.bytes), **driver)
        pages: list[Any] = []
        last = None
        while page := await session.transact(lambda q, last=last: q.machine_hardware(last, 3), **driver):
            pages.append(page)
            last = page[-1].machine_id
        assert [len(page) for page in pages] == [3, 3, 1]
        rows = [row for page in pages for row in page]
        assert rows == [model.HardwareReport(machine, machine.bytes) for machine in sorted(machines)]
        assert await session.transact(lambda q: q.machine_hardware(None, 0), **driver) == []

    async def test_a_negative_page_is_refused(self, session: Any, driver: Driver) -> None:
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.machine_hardware(None, -1), **driver)
        assert caught.value.sqlstate == "2201W"


class TestRawSql:
    async def test_execute_counts_the_rows_affected(self, session: Any, driver: Driver) -> None:
        machine = await create(session)
        await create(session)

        async def act(q: Any) -> list[int]:
            return [
                await q.execute("UPDATE machines SET machine_created_at = $1", AT),
                await q.execute("DELETE FROM machines WHERE machine_id = $1", machine),
                await q.execute("DELETE FROM machines WHERE machine_id = $1", machine),
            ]

        assert await session.transact(act, **driver) == [2, 1, 0]

    async def test_fetch(self, session: Any, driver: Driver) -> None:
        rows = await session.transact(
            lambda q: q.fetch("SELECT n, n * $1::int AS product FROM generate_series(1, 3) AS n", 10), **driver
        )
        assert [(row.n, row.product) for row in rows] == [(1, 10), (2, 20), (3, 30)]
        assert [tuple(row) for row in rows] == [(1, 10), (2, 20), (3, 30)]

    async def test_fetch_one_is_the_first_row_or_none(self, session: Any, driver: Driver) -> None:
        text = "SELECT n FROM generate_series(1, $1::int) AS n"

        async def ask(q: Any) -> tuple[Any, Any]:
            return await q.fetch_one(text, 3), await q.fetch_one(text, 0)

        first, none = await session.transact(ask, **driver)
        assert first.n == 1
        assert none is None

    async def test_fetch_value_is_the_first_column_or_none(self, session: Any, driver: Driver) -> None:
        async def ask(q: Any) -> list[object]:
            return [
                await q.fetch_value("SELECT $1::text, 2", "first"),
                await q.fetch_value("SELECT NULL::text"),
                await q.fetch_value("SELECT 1 WHERE false"),
            ]

        assert await session.transact(ask, **driver) == ["first", None, None]

    async def test_an_error_of_the_server_surfaces(self, session: Any, driver: Driver) -> None:
        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(lambda q: q.fetch("SELECT * FROM nowhere"), **driver)
        assert caught.value.sqlstate == "42P01"
