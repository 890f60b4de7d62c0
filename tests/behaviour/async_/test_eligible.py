"""`eligible`: every clause made true and false, one at a time, and what every claim sees to besides."""

from __future__ import annotations

# async only
import asyncio

# end async only
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import MakeMachines

# async only
from tests.processes import eventually_async

# end async only
import bmdb

PROCESS = "UnitTest1"
Sql = psycopg.Connection[Any]
# What most tests ask for: machines that have not reported yet.
UNREPORTED = bmdb.eligible(lacking=("hardware_report",))


async def drained(
    session: bmdb.AsyncSession,
    eligibility: bmdb.Eligibility = UNREPORTED,
    process: str | bmdb.Process = PROCESS,
    limit: int = 500,
) -> set[UUID]:
    """All machines that are eligible now, each leased once; they stay leased."""
    found: list[UUID] = []
    while True:
        try:
            found += [work.machine for work in await session.work_many(process, limit, eligibility)]
        except bmdb.NothingToDo:
            assert len(set(found)) == len(found)
            return set(found)


def provide(sql: Sql, machine: UUID, provider: str = "Equinix") -> None:
    sql.execute(
        "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, %s, %s)",
        [machine, provider, f"id {machine}"],
    )


def report(sql: Sql, machine: UUID) -> None:
    sql.execute("INSERT INTO machine_hardware_report (machine_id, hardware_report_raw) VALUES (%s, '')", [machine])


class TestDeclaration:
    async def test_having(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        yes, _ = machines(2)
        provide(sql, yes)
        assert await drained(session, bmdb.eligible(having=("provided",))) == {yes}

    async def test_having_two(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        both, first, second, _ = machines(4)
        for machine in (both, first):
            provide(sql, machine)
        for machine in (both, second):
            report(sql, machine)
        for having in (("provided", "hardware_report"), ("hardware_report", "provided")):
            work = await session.work(PROCESS, bmdb.eligible(having=having))
            assert work.machine == both
            with pytest.raises(bmdb.NothingToDo):
                await session.work(PROCESS, bmdb.eligible(having=having))
            await work.cancel()

    async def test_lacking(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        yes, no = machines(2)
        report(sql, no)
        assert await drained(session) == {yes}

    async def test_where_with_its_parameters(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        yes, elsewhere, other, _ = machines(4)
        provide(sql, yes)
        provide(sql, elsewhere, "it's elsewhere")
        provide(sql, other)
        where = "machine_provided.provider = $1 AND machine_provided.machine_id <> $2"
        asked = bmdb.eligible(having=("provided",), where=where, params=("Equinix", other))
        assert await drained(session, asked) == {yes}
        asked = bmdb.eligible(having=("provided",), where="provider = $1", params=("it's elsewhere",))
        assert await drained(session, asked) == {elsewhere}

    async def test_where_over_the_machines_themselves(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        old, new = machines(2)
        provide(sql, old)
        provide(sql, new)
        sql.execute("UPDATE machines SET machine_created_at = '2020-01-01' WHERE machine_id = %s", [old])
        moment = datetime(2021, 1, 1, tzinfo=UTC)
        for having in ((), ("provided",)):
            for where, yes in (
                ("machine_created_at < $1", old),
                ("machines.machine_created_at > $1", new),
                ("$1::timestamptz IS NOT NULL AND machines.machine_id = '" + str(old) + "'", old),
            ):
                work = await session.work(PROCESS, bmdb.eligible(having=having, where=where, params=(moment,)))
                assert work.machine == yes, (having, where)
                await work.cancel()

    async def test_a_comment_or_a_literal_in_where_ends_where_it_ends(
        self, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        (machine,) = machines(1)
        report_less = "true -- no ' and no ("
        assert await drained(session, bmdb.eligible(lacking=("hardware_report",), where=report_less)) == {machine}
        assert await drained(session, bmdb.eligible(where="'--(' <> ';)' OR false /* ( */"), "other") == {machine}

    async def test_a_condition_that_is_null_is_not_true(
        self, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        machines(1)
        assert await drained(session, bmdb.eligible(where="NULL::bool")) == set()

    async def test_order_by(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        rack = machines(6)
        for number, machine in enumerate(rack):
            provide(sql, machine, f"p{number % 3}")
        asked = bmdb.eligible(
            having=("provided",), order_by="provider DESC, machine_provided.machine_id = $1 DESC", params=(rack[5],)
        )
        got = [(await session.work(PROCESS, asked)).machine for _ in rack]
        assert got[:2] == [rack[5], rack[2]]
        assert set(got[2:4]) == {rack[1], rack[4]} and set(got[4:]) == {rack[0], rack[3]}

    async def test_sql(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        first, second, third, fourth = machines(4)
        for position, machine in enumerate((third, first, second)):
            provide(sql, machine, f"p{position}")
        report(sql, second)
        asked = bmdb.eligible(
            sql="""
            WITH wanted AS (SELECT machine_id, provider FROM machine_provided WHERE provider <> $1)
            SELECT w.provider, w.machine_id FROM wanted AS w LEFT JOIN machine_hardware_report AS r USING (machine_id)
            WHERE r.machine_id IS NULL ORDER BY w.provider -- (the first one first)
            """,
            params=("p9",),
        )
        assert (await session.work(PROCESS, asked)).machine == third
        assert (await session.work(PROCESS, asked)).machine == first
        with pytest.raises(bmdb.NothingToDo):
            await session.work(PROCESS, asked)
        assert fourth != second

    async def test_odd_names_are_quoted(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        yes, no, neither = machines(3)
        for name in ('machine_Two "words"; --', "machine_select", "machine_ümlaut's"):
            quoted = psycopg.sql.Identifier(name)
            sql.execute(
                psycopg.sql.SQL(
                    'CREATE TABLE {} (machine_id uuid PRIMARY KEY REFERENCES machines, "or\'der" int, "A ""b""" text)'
                ).format(quoted)
            )
            for machine in (yes, no):
                sql.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (%s, 1, 'x')").format(quoted), [machine])
        sql.execute('DELETE FROM "machine_select" WHERE machine_id = %s', [yes])
        asked = bmdb.eligible(having=('Two "words"; --', "ümlaut's"), lacking=("select",))
        work = await session.work(PROCESS, asked)
        assert work.machine == yes
        await work.finish(bmdb.set_tag("select", **{"or'der": 7, 'A "b"': "y"}), bmdb.clear_tag('Two "words"; --'))
        assert sql.execute("SELECT * FROM machine_select WHERE machine_id = %s", [yes]).fetchone() == (yes, 7, "y")
        assert await drained(session, asked) == set()
        assert neither != no


class TestWhatEveryClaimSeesTo:
    async def test_leased_for_the_process(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        taken, free = machines(2)
        work = await session.work(PROCESS, lambda q: [taken])
        async with await connection.start_session() as rival:
            assert await drained(rival) == {free}
            await session.work("another", lambda q: [free])
            await work.cancel()
            assert await drained(rival) == {taken}

    @pytest.mark.parametrize("declared_by", ["the claimed one", "its rival"])
    async def test_leased_for_one_that_excludes_it(
        self, declared_by: str, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        taken, free = machines(2)
        claimed = bmdb.Process("Claimed", excludes=("Rival",) if declared_by == "the claimed one" else ())
        rival = bmdb.Process("Rival", excludes=("Claimed",) if declared_by == "its rival" else ())
        work = await session.work(rival, lambda q: [taken])
        assert await drained(session, process=claimed) == {free}
        await work.cancel()
        assert await drained(session, process=claimed) == {taken}

    async def test_in_backoff(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        waits, free = machines(2)
        work = await session.work(PROCESS, lambda q: [waits])
        await work.fail("no answer", bmdb.Backoff(60))
        assert await drained(session) == {free}
        assert await drained(session, process="another") == {waits, free}
        sql.execute("UPDATE work_backoff SET until = clock_timestamp() - interval '1 second'")
        again = await session.work(PROCESS, UNREPORTED)
        assert (again.machine, again.previous_backoff) == (waits, 60)

    async def test_in_quarantine(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        sick, well = machines(2)
        sql.execute(
            "INSERT INTO work_loss (machine_id, process, losses, last_lost_at, quarantined_at)"
            " VALUES (%s, %s, 3, now(), now())",
            [sick, PROCESS],
        )
        assert await drained(session) == {well}
        assert await drained(session, process="another") == {sick, well}
        assert await connection.release_quarantine(sick, PROCESS)
        assert await drained(session) == {sick}

    @pytest.mark.parametrize("of", [None, PROCESS])
    async def test_held(
        self,
        of: str | None,
        connection: bmdb.AsyncConnection,
        session: bmdb.AsyncSession,
        machines: MakeMachines,
        sql: Sql,
    ) -> None:
        held, free = machines(2)
        await connection.hold(held, of, owner="ada", reason="disk")
        assert await drained(session) == {free}
        assert await drained(session, process="another") == ({free} if of is None else {held, free})
        await connection.hold(held, of, owner="ada", reason="disk", until=datetime.now(UTC) + timedelta(hours=1))
        sql.execute("UPDATE work_hold SET until = clock_timestamp() - interval '1 second'")
        assert await drained(session) == {held}

    async def test_a_machine_whose_row_is_locked_is_passed_over(
        self, session: bmdb.AsyncSession, machines: MakeMachines, database: str
    ) -> None:
        locked, free = machines(2)
        with psycopg.connect(database) as holder:
            holder.execute("SELECT 1 FROM machines WHERE machine_id = %s FOR UPDATE", [locked])
            assert await drained(session) == {free}
        assert await drained(session) == {locked}


class TestErrors:
    @pytest.mark.parametrize(
        "asked", [{"having": ("provded",)}, {"lacking": ("provded",)}, {"having": ("provided", "provded")}]
    )
    async def test_an_unknown_tag_names_those_that_there_are(
        self, asked: dict[str, Any], session: bmdb.AsyncSession
    ) -> None:
        with pytest.raises(ValueError, match=r"provded.*agent_heartbeat.*provided"):
            await session.work(PROCESS, bmdb.eligible(**asked))

    @pytest.mark.parametrize(
        ("asked", "sqlstate"),
        [
            ({"where": "provider = = 'x'"}, "42601"),
            ({"where": "no_such_column > 1"}, "42703"),
            ({"where": "machine_created_at"}, "42804"),
            ({"order_by": "no_such_column"}, "42703"),
            ({"sql": "SELECT machine_id FROM no_such_table"}, "42P01"),
            ({"sql": "SELECT 1 AS one"}, "42703"),
            ({"sql": "SELECT machine_id FROM machines; SELECT 1"}, None),
            ({"where": "1 / 0 > 1"}, "22012"),
        ],
    )
    async def test_sql_that_does_not_work_is_told_and_the_next_claim_works(
        self, asked: dict[str, Any], sqlstate: str | None, session: bmdb.AsyncSession, machines: MakeMachines
    ) -> None:
        machines(1)
        if sqlstate is None:
            with pytest.raises(ValueError, match="semicolon"):
                bmdb.eligible(**asked)
            return
        for _ in range(2):
            with pytest.raises(bmdb.DatabaseError) as caught:
                await session.work(PROCESS, bmdb.eligible(**asked))
            assert caught.value.sqlstate == sqlstate
        assert len(await drained(session)) == 1

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"having": ("a",), "lacking": ("a",)},
            {"having": ("a", "a")},
            {"sql": "SELECT machine_id FROM machines", "where": "true"},
            {"sql": "SELECT machine_id FROM machines", "lacking": ("a",)},
            {"where": "true) OR (true"},
            {"where": "(true"},
            {"where": " "},
            {"order_by": ""},
            {"where": "true; DROP TABLE machines"},
            {"where": "'\0' = ''"},
        ],
    )
    def test_what_makes_no_sense_is_refused_at_once(self, asked: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\S"):
            bmdb.eligible(**asked)

    @pytest.mark.parametrize(
        "asked",
        [
            {"having": "provided"},
            {"having": (1,)},
            {"lacking": None},
            {"where": b"true"},
            {"where": "true", "params": "text"},
            {"where": "true", "params": 7},
            {"sql": object()},
            {"where": "x = $1", "params": (object(),)},
        ],
    )
    def test_wrong_types_are_refused_at_once(self, asked: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            bmdb.eligible(**asked)

    @pytest.mark.parametrize(
        ("where", "params"), [("machine_id = $1", ()), ("machine_id = $2", (UUID(int=1),)), ("true", (1,))]
    )
    def test_parameters_that_do_not_match_the_text_are_refused(self, where: str, params: tuple[Any, ...]) -> None:
        """The text must not reach the parameters that the claim adds."""
        with pytest.raises(ValueError, match="param"):
            bmdb.eligible(where=where, params=params)

    async def test_a_value_that_does_not_fit_is_told(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(1)
        with pytest.raises(TypeError):
            await session.work(PROCESS, bmdb.eligible(where="machine_created_at > $1", params=(7,)))
        assert len(await drained(session)) == 1

    async def test_work_many_needs_one(self, session: bmdb.AsyncSession) -> None:
        with pytest.raises(TypeError, match="eligib"):
            await session.work_many(PROCESS, 5)
        with pytest.raises(TypeError, match="eligib"):
            await session.work_many(bmdb.Process("bare"), 5)

    @pytest.mark.parametrize("limit", [0, -1, 501, 2**70])
    async def test_limits_out_of_bounds(self, limit: int, session: bmdb.AsyncSession) -> None:
        with pytest.raises(ValueError, match="1 to 500"):
            await session.work_many(PROCESS, limit, UNREPORTED)

    @pytest.mark.parametrize("limit", [True, 1.0, "1", None])
    async def test_limits_that_are_none(self, limit: Any, session: bmdb.AsyncSession) -> None:
        with pytest.raises(TypeError):
            await session.work_many(PROCESS, limit, UNREPORTED)


class TestClaims:
    async def test_as_many_as_there_are(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        rack = set(machines(7))
        first = await session.work_many(PROCESS, 5, UNREPORTED)
        rest = await session.work_many(PROCESS, 5, UNREPORTED)
        assert (len(first), len(rest)) == (5, 2)
        assert {work.machine for work in first + rest} == rack
        with pytest.raises(bmdb.NothingToDo):
            await session.work_many(PROCESS, 1, UNREPORTED)
        with pytest.raises(bmdb.NothingToDo):
            await session.work(PROCESS, UNREPORTED)
        assert sql.execute("SELECT event, count(*), max(token) FROM work_history GROUP BY event").fetchall() == [
            ("Started", 7, 1)
        ]
        assert [work.state for work in rest] == ["active", "active"]

    async def test_all_five_hundred(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(501)
        assert len(await session.work_many(PROCESS, 500, UNREPORTED)) == 500
        assert len(await session.work_many(PROCESS, 500, UNREPORTED)) == 1

    async def test_the_processs_own(self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql) -> None:
        process = bmdb.Process("Own", eligible=UNREPORTED, backoff=bmdb.Backoff(7), max_hold=99)
        rack = machines(2)
        work = await session.work(process)
        assert (work.process, work.backoff) == ("Own", bmdb.Backoff(7))
        (other,) = await session.work_many(process, 2)
        assert {work.machine, other.machine} == set(rack)
        assert other.backoff == bmdb.Backoff(7)

    async def test_expired_sessions_are_collected_and_their_machines_found(
        self, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        (machine,) = machines(1)
        lost = UUID(int=7)
        sql.execute(
            "INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES (%s, 'gone', '', 1, clock_timestamp() - interval '1 minute')",
            [lost],
        )
        sql.execute("INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, %s, %s, 1)",
                    [machine, PROCESS, lost])  # fmt: skip
        sql.execute("INSERT INTO work_token (machine_id, process, token) VALUES (%s, %s, 1)", [machine, PROCESS])
        work = await session.work(PROCESS, UNREPORTED)
        assert (work.machine, work.token) == (machine, 2)
        assert [event.event for event in await connection.history_of(machine)] == ["Lost", "Started"]

    async def test_a_closed_session(self, connection: bmdb.AsyncConnection, machines: MakeMachines) -> None:
        machines(1)
        session = await connection.start_session()
        await session.close()
        with pytest.raises(bmdb.SessionExpiredError):
            await session.work(PROCESS, UNREPORTED)

    @pytest.mark.parametrize("asked_before", [False, True])
    async def test_a_session_whose_row_is_gone(
        self, asked_before: bool, connection: bmdb.AsyncConnection, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(2)
        session = await connection.start_session(interval=60)
        if asked_before:
            await (await session.work(PROCESS, UNREPORTED)).cancel()
        sql.execute("DELETE FROM sessions")
        with pytest.raises(bmdb.SessionExpiredError):
            await session.work(PROCESS, UNREPORTED)
        assert session.expired
        assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)

    async def test_inside_a_callback_it_is_refused(self, session: bmdb.AsyncSession, machines: MakeMachines) -> None:
        machines(1)

        async def nested(q: bmdb.AsyncQueries) -> None:
            await session.work(PROCESS, UNREPORTED)

        with pytest.raises(bmdb.WorkStateError, match="inside another"):
            await session.transact(nested)

    # async only
    async def test_calls_that_come_together_are_served_each_once(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        rack = machines(50)
        works = await asyncio.gather(*(session.work(PROCESS, UNREPORTED) for _ in range(60)), return_exceptions=True)
        leased = [work.machine for work in works if isinstance(work, bmdb.AsyncWork)]
        assert sorted(leased) == sorted(rack)
        assert sum(isinstance(work, bmdb.NothingToDo) for work in works) == 10
        claims = sql.execute("SELECT count(DISTINCT left(lease_id::text, 32)) FROM work").fetchone()
        assert claims is not None and claims[0] < 50, "they must not each have made a claim of their own"

    async def test_a_call_that_is_cancelled_as_its_answer_comes_gives_its_lease_back(
        self,
        session: bmdb.AsyncSession,
        machines: MakeMachines,
        sql: Sql,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its future has been told by then, and only the call itself can know of the lease."""
        machines(1)
        batches = session.connection._batches

        class Cancelling:
            def claim_async(self, *given: Any) -> asyncio.Future[Any]:
                future = batches.claim_async(*given)
                future.add_done_callback(lambda _: call.cancel())
                return future

            def __getattr__(self, name: str) -> Any:
                return getattr(batches, name)

        monkeypatch.setattr(session.connection, "_batches", Cancelling())
        call = asyncio.ensure_future(session.work(PROCESS, UNREPORTED))
        with pytest.raises(asyncio.CancelledError):
            await call
        events = "SELECT event FROM work_history ORDER BY timestamp"
        await eventually_async(lambda: sql.execute(events).fetchall() == [("Started",), ("Canceled",)])
        assert sql.execute("SELECT FROM work").fetchall() == []

    async def test_a_call_that_is_cancelled_gives_its_lease_back(
        self, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        machines(8)
        chance = random.Random(11)
        for _ in range(60):
            calls = [asyncio.ensure_future(session.work(PROCESS, UNREPORTED)) for _ in range(6)]
            await asyncio.sleep(chance.uniform(0, 0.004))
            dropped = chance.sample(calls, 4)
            for call in dropped:
                call.cancel()
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(answer, bmdb.AsyncWork):
                    await answer.cancel()
                else:
                    # What is on its way back is not there for others yet.
                    assert isinstance(answer, asyncio.CancelledError | bmdb.NothingToDo), answer
        for _ in range(100):
            if sql.execute("SELECT count(*) FROM work").fetchone() == (0,):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("a lease is left that nobody holds")
        events = dict(sql.execute("SELECT event, count(*) FROM work_history GROUP BY event").fetchall())
        assert events["Started"] == events["Canceled"]
        assert len(await session.work_many(PROCESS, 500, UNREPORTED)) == 8

    # end async only


# What the model below is told of a machine: its provider or None, whether it has reported, the process that holds it or
# None, whether it is in backoff, in quarantine, held by a person.
Facts = tuple[str | None, bool, str | None, bool, bool, bool]


class TestLikeACallback:
    """The same fleets, judged by `eligible`, by a callback with the same meaning, and by a model in Python."""

    @pytest.mark.parametrize("seed", range(6))
    async def test_on_random_fleets(
        self, seed: int, connection: bmdb.AsyncConnection, session: bmdb.AsyncSession, machines: MakeMachines, sql: Sql
    ) -> None:
        chance = random.Random(seed)
        process = bmdb.Process("Subject", excludes=("Rival",))
        fleet: dict[UUID, Facts] = {}
        for machine in machines(60):
            facts: Facts = (
                chance.choice([None, "a", "b"]),
                chance.random() < 0.3,
                chance.choice([None] * 6 + ["Subject", "Rival", "Bystander"]),
                chance.random() < 0.15,
                chance.random() < 0.15,
                chance.random() < 0.15,
            )
            fleet[machine] = facts
            await build(connection, session, sql, machine, process, facts)

        def offered(having: bool, lacking: bool, provider: str | None) -> set[UUID]:
            return {
                machine
                for machine, (at, reported, holder, waits, sick, held) in fleet.items()
                if (at is not None or not having)
                and (not reported or not lacking)
                and (provider is None or at == provider)
                and holder not in ("Subject", "Rival")
                and not (waits or sick or held)
            }

        cases: list[tuple[dict[str, Any], set[UUID]]] = [
            ({"having": ("provided",)}, offered(True, False, None)),
            ({"lacking": ("hardware_report",)}, offered(False, True, None)),
            ({"having": ("provided",), "lacking": ("hardware_report",)}, offered(True, True, None)),
            (
                {"having": ("provided",), "lacking": ("hardware_report",), "where": "provider = $1", "params": ("b",)},
                offered(True, True, "b"),
            ),
            (
                {"having": ("provided",), "where": "provider = $1", "params": ("a",), "order_by": "provider_id"},
                offered(True, False, "a"),
            ),
            ({"sql": "SELECT machine_id FROM machine_provided"}, offered(True, False, None)),
        ]
        for asked, expected in cases:
            eligibility = bmdb.eligible(**asked)
            works: list[bmdb.AsyncWork] = []
            while len(works) < len(fleet):
                try:
                    works += await session.work_many(process, chance.choice([1, 3, 10, 500]), eligibility)
                except bmdb.NothingToDo:
                    break
            assert sorted(work.machine for work in works) == sorted(expected), asked
            for work in works:
                await work.cancel()


async def build(
    connection: bmdb.AsyncConnection,
    session: bmdb.AsyncSession,
    sql: Sql,
    machine: UUID,
    process: bmdb.Process,
    facts: Facts,
) -> None:
    provider, reported, holder, waits, sick, held = facts
    if provider is not None:
        provide(sql, machine, provider)
    if reported:
        report(sql, machine)
    if holder is not None:
        await session.work(process if holder == process.name else holder, lambda q: [machine])
    if waits:
        sql.execute(
            "INSERT INTO work_backoff (machine_id, process, until, cause, last_interval_seconds)"
            " VALUES (%s, %s, now() + interval '1 hour', '', 1)",
            [machine, process.name],
        )
    if sick:
        sql.execute(
            "INSERT INTO work_loss (machine_id, process, losses, last_lost_at, quarantined_at)"
            " VALUES (%s, %s, 3, now(), now())",
            [machine, process.name],
        )
    if held:
        await connection.hold(machine, process, owner="ada", reason="disk")
