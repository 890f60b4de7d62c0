"""Ends with declared changes of tags, and many ends at once: each has its own verdict and nobody waits for another."""

from __future__ import annotations

# async only
import asyncio
import random

# end async only
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.concurrency import together_async
from tests.conftest import MakeMachines
from tests.drivers import Driver

import bmdb
from bmdb import clear_tag, set_tag

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]
UNDONE = bmdb.eligible(lacking=("done",))


@pytest.fixture(autouse=True)
def done(sql: Sql) -> None:
    """A tag with all that a column can be: nullable, with a default, unique, of a bounded length, checked."""
    sql.execute("CREATE TYPE mood AS ENUM ('glad', 'so so')")
    sql.execute("CREATE DOMAIN year AS int2 CHECK (VALUE > 1900)")
    sql.execute(
        """
        CREATE TABLE machine_done (
            machine_id uuid PRIMARY KEY REFERENCES machines ON DELETE CASCADE,
            how text, short varchar(3), number int UNIQUE, amount int NOT NULL DEFAULT 7 CHECK (amount >= 0)
        )
        """
    )


async def lease(session: bmdb.AsyncSession, count: int = 1) -> list[bmdb.AsyncWork]:
    """So many works, which must be there."""
    works = await session.work_many(PROCESS, count, UNDONE)
    assert len(works) == count
    return works


def tagged(sql: Sql) -> dict[UUID, tuple[Any, ...]]:
    return {machine: row for machine, *row in sql.execute("SELECT * FROM machine_done")}  # type: ignore[misc]


def history(sql: Sql, event: str) -> list[UUID]:
    return [machine for (machine,) in sql.execute("SELECT machine_id FROM work_history WHERE event = %s", [event])]


class TestChanges:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("bool", True),
            ("int2", -5),
            ("int4", 2**31 - 1),
            ("int8", -(2**63)),
            ("float4", 1.5),
            ("float8", 0.1),
            ("numeric(10, 2)", Decimal("12.30")),
            ("text", "naïve 'quoted' \\ {text}"),
            ("varchar(4)", "abcd"),
            ("char(3)", "abc"),
            ("bytea", b"\x00\xff"),
            ("uuid", UUID(int=5)),
            ("date", date(2024, 2, 29)),
            ("time", time(1, 2, 3, 4)),
            ("timestamp", datetime(2024, 1, 2, 3, 4, 5, 6)),
            ("timestamptz", datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
            ("interval", timedelta(days=1, seconds=3)),
            ("json", {"a": [1, None, "x"]}),
            ("jsonb", {"a": {"b": [1.5, "ü"]}}),
            ("jsonb", [1, 2]),
            ("inet", IPv4Address("192.0.2.1")),
            ("mood", "so so"),
            ("year", 2024),
            ("text[]", ["a", None, "{b}"]),
            ("int4[]", [1, 2, 3]),
            ("int4[]", []),
            ("bytea[]", [b"\x00", b""]),
            ("jsonb[]", [{"a": 1}, None]),
            ("uuid[]", [UUID(int=1)]),
        ],
        ids=str,
    )
    async def test_each_type_of_column(
        self, kind: str, value: Any, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(4)
        sql.execute(f"CREATE TABLE machine_typed (machine_id uuid PRIMARY KEY REFERENCES machines, x {kind}, y int)")  # type: ignore[arg-type]
        works = await lease(session, 3)
        verdicts = await session.finish_many(
            [
                (works[0], set_tag("typed", x=value, y=1)),
                (works[1], set_tag("typed", x=None, y=2)),
                (works[2], set_tag("typed", x=value, y=3)),
            ]
        )
        assert verdicts == [None, None, None]
        rows = await session.transact(lambda q: q.fetch("SELECT x FROM machine_typed ORDER BY y"))
        assert [row.x for row in rows] == [value, None, value]

    async def test_columns_not_named_get_their_defaults_and_keep_their_values(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        await (await lease(session))[0].finish(set_tag("done", how="well"))
        assert tagged(sql) == {machine: ["well", None, None, 7]}
        work = await session.work(PROCESS, bmdb.eligible(having=("done",)))
        await work.finish(set_tag("done", short="abc", amount=0))
        assert tagged(sql) == {machine: ["well", "abc", None, 0]}
        work = await session.work(PROCESS, bmdb.eligible(having=("done",)))
        await work.finish(set_tag("done", how=None))
        assert tagged(sql) == {machine: [None, "abc", None, 0]}

    async def test_one_column_of_several_that_must_have_values(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        """A tag that is there already needs no values for the others; one that is not, does."""
        there, _ = machines(2)
        sql.execute(
            "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, 'Equinix', 'old')", [there]
        )
        work = await session.work(PROCESS, bmdb.eligible(having=("provided",)))
        await work.finish(bmdb.set_tag("provided", provider_id="new"))
        assert sql.execute("SELECT provider, provider_id FROM machine_provided").fetchall() == [("Equinix", "new")]
        bare = await session.work(PROCESS, bmdb.eligible(lacking=("provided",)))
        with pytest.raises(bmdb.DatabaseError, match="null value"):
            await bare.finish(bmdb.set_tag("provided", provider_id="new"))
        assert bare.state == "active"

    async def test_an_altered_column_is_noticed(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(1)
        sql.execute("CREATE TABLE machine_altered (machine_id uuid PRIMARY KEY REFERENCES machines, a int)")
        eligibility = bmdb.eligible(lacking=("hardware_report",))
        await (await session.work(PROCESS, eligibility)).finish(bmdb.set_tag("altered", a=1))
        sql.execute("ALTER TABLE machine_altered ALTER COLUMN a TYPE text")
        work = await session.work(PROCESS, eligibility)
        with pytest.raises(TypeError):  # by what was known of it until now
            await work.finish(bmdb.set_tag("altered", a="text"))
        await work.finish(bmdb.set_tag("altered", a="text"))
        assert sql.execute("SELECT a FROM machine_altered").fetchall() == [("text",)]

    async def test_a_tag_without_columns_is_set_and_cleared(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(1)
        sql.execute("CREATE TABLE machine_bare (machine_id uuid PRIMARY KEY REFERENCES machines)")
        count = "SELECT count(*) FROM machine_bare"
        for change, there in (
            (set_tag("bare"), 1),
            (set_tag("bare"), 1),
            (clear_tag("bare"), 0),
            (clear_tag("bare"), 0),
        ):
            await (await lease(session))[0].finish(change)
            assert sql.execute(count).fetchone() == (there,)

    async def test_several_at_once_and_none_for_its_neighbours(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(3)
        sql.execute("CREATE TABLE machine_aaa (machine_id uuid PRIMARY KEY REFERENCES machines, n int)")
        sql.execute("CREATE TABLE machine_zzz (machine_id uuid PRIMARY KEY REFERENCES machines, n int)")
        sql.execute("INSERT INTO machine_aaa SELECT machine_id, 5 FROM machines")
        first, second, third = await lease(session, 3)
        assert await session.finish_many(
            [(first, set_tag("zzz", n=1), clear_tag("aaa"), set_tag("done", number=1)), second, (third,)]
        ) == [None, None, None]
        assert sql.execute("SELECT machine_id, n FROM machine_zzz").fetchall() == [(first.machine, 1)]
        left = {machine for (machine,) in sql.execute("SELECT machine_id FROM machine_aaa")}
        assert left == {second.machine, third.machine}
        assert tagged(sql) == {first.machine: [None, None, 1, 7]}

    @pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
    async def test_with_every_end_alone(
        self, end: str, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        (work,) = await lease(session)
        change = set_tag("done", how=end)
        if end == "finish":
            await work.finish(change)
        elif end == "fail":
            await work.fail("no answer", bmdb.Backoff(60), change)
        else:
            await work.cancel(change)
        assert tagged(sql) == {machine: [end, None, None, 7]}
        assert work.state == {"finish": "finished", "fail": "failed", "cancel": "canceled"}[end]

    async def test_callback_and_changes_land_together(
        self, driver: Driver, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        (work,) = await lease(session)

        async def commit(q: Any) -> None:
            await q.machine_set_hardware_report(machine, b"seen")

        await work.finish(set_tag("done", how="well"), commit, **driver)
        assert tagged(sql) == {machine: ["well", None, None, 7]}
        assert sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone() == (1,)

    async def test_or_not_at_all_when_the_callback_raises(
        self, driver: Driver, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(1)
        (work,) = await lease(session)

        async def commit(q: Any) -> None:
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await work.finish(commit, set_tag("done"), **driver)
        assert (tagged(sql), work.state) == ({}, "active")
        await work.finish(set_tag("done"), **driver)
        assert len(tagged(sql)) == 1 and work.state == "finished"

    async def test_or_not_at_all_when_the_change_fails(
        self, driver: Driver, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        (work,) = await lease(session)

        async def commit(q: Any) -> None:
            await q.machine_set_hardware_report(machine, b"seen")

        with pytest.raises(Exception, match="amount"):
            await work.finish(commit, set_tag("done", amount=-1), **driver)
        assert tagged(sql) == {}
        assert sql.execute("SELECT count(*) FROM machine_hardware_report").fetchone() == (0,)
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (1,)
        assert work.state == "active"


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (set_tag("dnoe"), ValueError, r"dnoe.*done"),
            (clear_tag("dnoe"), ValueError, r"dnoe.*done"),
            (set_tag("done", hwo=1), ValueError, r"hwo.*how, short, number, amount"),
            (set_tag("done", machine_id=UUID(int=1)), ValueError, "machine_id"),
            (set_tag("done", how=1), TypeError, "text"),
            (set_tag("done", number="1"), TypeError, r"\S"),
            (set_tag("done", number=2**31), ValueError, r"\S"),
            (set_tag("done", short="four"), bmdb.DatabaseError, "too long"),
            (set_tag("done", amount=None), bmdb.DatabaseError, "amount"),
            (set_tag("done", amount=-1), bmdb.DatabaseError, "amount"),
        ],
    )
    async def test_a_change_that_cannot_be_made(
        self,
        change: bmdb.Change,
        error: type[Exception],
        words: str,
        session: bmdb.AsyncSession,
        machines: MakeMachines,
        sql: Sql,
    ) -> None:
        machines(1)
        (work,) = await lease(session)
        with pytest.raises(error, match=words):
            await work.finish(change)
        assert (work.state, tagged(sql)) == ("active", {})
        (verdict,) = await session.finish_many([(work, change)])
        assert isinstance(verdict, error)
        assert work.state == "active"
        await work.finish(set_tag("done", how="well"))
        assert len(tagged(sql)) == 1

    async def test_the_same_tag_twice(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(1)
        (work,) = await lease(session)
        with pytest.raises(ValueError, match="twice"):
            await work.finish(set_tag("done"), clear_tag("done"))
        assert work.state == "active"

    @pytest.mark.parametrize("part", ["done", 7, {"done": 1}, None])
    async def test_what_is_no_change(self, part: Any, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(1)
        (work,) = await lease(session)
        with pytest.raises(TypeError):
            await work.finish(set_tag("done"), part)
        with pytest.raises(TypeError):
            await session.finish_many([(work, part)])
        with pytest.raises(TypeError):
            await session.finish_many([part])
        with pytest.raises(TypeError):
            await work.finish(lambda q: None, lambda q: None)
        assert work.state == "active"


class TestVerdicts:
    async def test_one_bad_end_among_fifty_is_told_alone(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        rack = machines(54)
        works = await lease(session, 54)
        sql.execute("DELETE FROM work WHERE machine_id = %s", [works[7].machine])
        await works[8].finish(set_tag("done", number=1000))
        changes: list[bmdb.Change] = [set_tag("done", number=number, how="x") for number in range(54)]
        changes[20] = set_tag("done", number=1000, how="x")
        changes[30] = set_tag("done", number=30, how=5)
        changes[40] = set_tag("done", number=-1, how="x\0")
        verdicts = await session.finish_many(list(zip(works, changes, strict=True)))
        assert len(verdicts) == 54
        wrong = {number: verdict for number, verdict in enumerate(verdicts) if verdict is not None}
        assert {number: type(verdict).__name__ for number, verdict in wrong.items()} == {
            7: "LeaseLostError",
            8: "WorkStateError",
            20: "DatabaseError",
            30: "TypeError",
            40: "ValueError",
        }
        assert isinstance(wrong[20], bmdb.DatabaseError) and wrong[20].constraint == "machine_done_number_key"
        states = [work.state for work in works]
        assert states[7] == "lost"
        assert [states[number] for number in (20, 30, 40)] == ["active"] * 3
        assert states.count("finished") == 50
        assert len(tagged(sql)) == 50 == len(history(sql, "Finished"))
        # Nothing is wrong with them otherwise.
        assert await session.finish_many([works[number] for number in (20, 30, 40)]) == [None] * 3
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
        assert len(rack) == 54

    async def test_none_and_one_given_twice(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(1)
        assert await session.finish_many([]) == []
        (work,) = await lease(session)
        first, second = await session.finish_many([work, (work, set_tag("done"))])
        assert first is None and isinstance(second, bmdb.WorkStateError)
        assert work.state == "finished"

    async def test_works_of_another_connection_are_refused(
        self, session: bmdb.AsyncSession, machines: MakeMachines, database: str
    ) -> None:
        machines(1)
        (work,) = await lease(session)
        async with (
            await bmdb.AsyncConnection.connect(database, component="other") as other,
            await other.start_session() as stranger,
        ):
            with pytest.raises(bmdb.WorkStateError, match="own connection"):
                await stranger.finish_many([work])
        assert work.state == "active"

    async def test_works_of_several_sessions_one_of_which_is_lost(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(4)
        other = await connection.start_session(interval=60)
        mine, theirs = await lease(session, 2), await lease(other, 2)
        sql.execute("DELETE FROM work WHERE session_id = %s", [other.uuid])
        sql.execute("DELETE FROM sessions WHERE session_id = %s", [other.uuid])
        verdicts = await session.finish_many([theirs[0], mine[0], theirs[1], mine[1]])
        assert [verdict is None for verdict in verdicts] == [False, True, False, True]
        assert all(isinstance(verdicts[at], bmdb.LeaseLostError | bmdb.SessionExpiredError) for at in (0, 2))
        assert [work.state for work in theirs] == ["lost", "lost"]

    async def test_a_row_that_somebody_locks_delays_only_its_own_end(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql, database: str
    ) -> None:
        rack = machines(12)
        sql.execute("INSERT INTO machine_done (machine_id) VALUES (%s)", [rack[0]])
        works = await session.work_many(PROCESS, 12, bmdb.eligible(where="true"))
        ended: list[UUID] = []
        holder = psycopg.connect(database)
        holder.execute("SELECT 1 FROM machine_done FOR UPDATE")

        async def finish(work: bmdb.AsyncWork) -> None:
            await work.finish(set_tag("done", how="well"))
            ended.append(work.machine)
            if len(ended) == 11:
                # All of its neighbours' have ended; only now may this one.
                holder.rollback()

        try:
            await together_async(*[lambda work=work: finish(work) for work in works])
        finally:
            holder.close()
        assert ended[-1] == rack[0] and sorted(ended) == sorted(rack)

    async def test_failures_and_cancels_in_groups(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(30)
        works = await lease(session, 30)
        sql.execute("DELETE FROM work WHERE machine_id = %s", [works[0].machine])
        sql.execute("DELETE FROM work WHERE machine_id = %s", [works[1].machine])
        lost: list[UUID] = []

        async def end(number: int) -> None:
            work = works[number]
            if number % 2:
                await work.cancel()
                return
            try:
                await work.fail(f"cause {number}", bmdb.Backoff(60 + number))
            except bmdb.LeaseLostError:
                lost.append(work.machine)

        await together_async(*[lambda number=number: end(number) for number in range(30)])
        assert lost == [works[0].machine]
        assert len(history(sql, "Failed")) == 14 == len(history(sql, "Canceled"))
        rows = sql.execute("SELECT machine_id, cause, last_interval_seconds FROM work_backoff").fetchall()
        expected = [(works[n].machine, f"cause {n}", 60 + n) for n in range(2, 30, 2)]
        assert sorted(rows) == sorted(expected)
        assert [works[n].state for n in (0, 1, 2, 3)] == ["lost", "lost", "failed", "canceled"]

    # async only
    async def test_a_finish_that_is_cancelled_tells_what_became_of_it(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(100)
        works = await lease(session, 100)
        chance = random.Random(5)
        told: dict[UUID, bool | None] = {}

        async def finish(work: bmdb.AsyncWork) -> None:
            change = chance.choice([(), (set_tag("done"),)])
            call = asyncio.ensure_future(work.finish(*change))
            await asyncio.sleep(chance.choice([0.0, chance.uniform(0, 0.003)]))
            call.cancel()
            try:
                await call
                told[work.machine] = True
            except asyncio.CancelledError as cancelled:
                told[work.machine] = getattr(cancelled, "committed", False)

        for number in range(0, 100, 5):
            await asyncio.gather(*map(finish, works[number : number + 5]))
        finished = set(history(sql, "Finished"))
        assert {machine for machine, committed in told.items() if committed} == finished
        assert None not in told.values()
        assert {work.machine for work in works if work.state == "finished"} == finished
        assert {work.machine for work in works if work.state == "active"} == set(told) - finished
        assert finished, "none was too late to be cancelled"

    # end async only
