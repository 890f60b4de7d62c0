"""Watches: changes of tags leave a note for the processes that may have work now, and so do ends of work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import MakeMachines
from tests.processes import eventually

import bmdb
from bmdb import _core

Sql = psycopg.Connection[Any]
Watch = tuple[tuple[str, str], ...]
WATCHED, ATTEND = (dict(_core.queries())[name] for name in ("process_watched", "claim_attend"))


@dataclass(frozen=True, init=False)
class Watching(bmdb.Process):
    """A process as registration sees it with watches as the test wants them."""

    changes: Watch
    number: int

    def __init__(self, name: str, *changes: tuple[str, str], number: int = 0, **settings: Any) -> None:
        super().__init__(name, **settings)
        object.__setattr__(self, "changes", changes)
        object.__setattr__(self, "number", number)

    @property
    def watches(self) -> list[tuple[str, str]]:
        return list(self.changes)

    @property
    def watcher(self) -> str:
        return f"{self.changes} {self.number}"


START = Watching("Start", ("machine_provided", "INSERT"), ("machine_agent_started", "DELETE"))
PROVIDE = "INSERT INTO machine_provided SELECT m, 'Equinix', m::text FROM unnest(%s::uuid[]) AS m"


def attention(sql: Sql) -> list[tuple[str, UUID]]:
    return sql.execute("SELECT process, machine_id FROM work_attention ORDER BY process, machine_id").fetchall()


def watched(sql: Sql, *names: str) -> dict[str, bool]:
    text = WATCHED.replace("$1", "%s")
    return {name: good for name, _, good, _ in sql.execute(text, [list(names)])}  # type: ignore[arg-type]


def triggers(sql: Sql) -> set[tuple[str, str]]:
    rows = sql.execute("SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE 'bmdb_attend%'")
    return {(table, name) for table, name in rows}


class TestTriggers:
    def test_ten_thousand_tags_in_one_statement_are_one_call_and_one_hint(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql, database: str
    ) -> None:
        connection.register(START, Watching("Other", ("machine_provided", "INSERT")), Watching("Unrelated"))
        rack = machines(10_000)
        with psycopg.connect(database, autocommit=True) as listener:
            listener.execute("LISTEN bmdb_work")
            sql.execute("SET track_functions = 'all'")
            sql.execute(PROVIDE, [rack])
            sql.execute("SELECT pg_stat_force_next_flush()")
            calls = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'work_attend'"
            assert sql.execute(calls).fetchone() == (1,)
            told = [hint.payload for hint in listener.notifies(timeout=2, stop_after=2)]
            assert sorted(told) == ["Other", "Start"]
        expected = [(name, machine) for name in ("Other", "Start") for machine in sorted(rack)]
        assert attention(sql) == expected
        assert sql.execute("SELECT count(*) FROM work_attention WHERE due > clock_timestamp()").fetchone() == (0,)

    def test_only_what_is_watched_is_noted(self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql) -> None:
        connection.register(START, Watching("Change", ("machine_provided", "UPDATE")))
        first, second = machines(2)
        sql.execute(PROVIDE, [[first, second]])
        sql.execute("INSERT INTO machine_agent_started VALUES (%s, now(), '')", [first])
        assert attention(sql) == [("Start", machine) for machine in sorted([first, second])]
        sql.execute("DELETE FROM work_attention")
        sql.execute("UPDATE machine_provided SET provider_status = 'Running' WHERE machine_id = %s", [second])
        assert attention(sql) == [("Change", second)]
        sql.execute("DELETE FROM work_attention")
        sql.execute("DELETE FROM machine_agent_started")
        sql.execute("DELETE FROM machine_provided")
        assert attention(sql) == [("Start", first)]

    def test_a_change_that_is_rolled_back_leaves_no_note(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
    ) -> None:
        connection.register(START)
        with sql.transaction(force_rollback=True):
            sql.execute(PROVIDE, [machines(1)])
        assert attention(sql) == []

    def test_a_tag_of_the_users_with_a_name_that_needs_quotes(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql
    ) -> None:
        name = "machine_\"; DROP TABLE work; --'"
        quoted = '"' + name.replace('"', '""') + '"'
        sql.execute(f"CREATE TABLE {quoted} (machine_id uuid PRIMARY KEY REFERENCES machines)")  # type: ignore[arg-type]
        connection.register(Watching("Odd", (name, "INSERT")))
        assert watched(sql, "Odd") == {"Odd": True}
        (machine,) = machines(1)
        sql.execute(f"INSERT INTO {quoted} VALUES (%s)", [machine])  # type: ignore[arg-type]
        assert attention(sql) == [("Odd", machine)]

    def test_who_changes_tags_needs_no_right_to_anything_else(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql, role: str
    ) -> None:
        connection.register(START)
        (machine,) = machines(1)
        sql.execute(f"GRANT INSERT, SELECT ON machine_provided TO {role}")  # type: ignore[arg-type]
        sql.execute(f"SET ROLE {role}")  # type: ignore[arg-type]
        sql.execute(PROVIDE, [[machine]])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql.execute("SELECT 1 FROM work_attention")
        sql.execute("RESET ROLE")
        assert attention(sql) == [("Start", machine)]


class TestRegistration:
    def test_triggers_are_made_once(self, connection: bmdb.Connection, database: str, sql: Sql) -> None:
        connection.register(START)
        made = {
            ("machine_provided", "bmdb_attend_insert"),
            ("machine_agent_started", "bmdb_attend_delete"),
        }
        assert triggers(sql) == made
        assert watched(sql, "Start", "Unknown") == {"Start": True}
        with bmdb.connect(database, component="again") as again:
            written = "SELECT xmin FROM process_watch ORDER BY tag"
            before = sql.execute(written).fetchall()
            again.register(START)
            assert sql.execute(written).fetchall() == before
        assert triggers(sql) == made

    def test_it_only_adds_unless_told_otherwise(self, connection: bmdb.Connection, database: str, sql: Sql) -> None:
        def stored() -> list[tuple[str, str]]:
            return sql.execute("SELECT tag, event FROM process_watch ORDER BY tag, event").fetchall()

        connection.register(START)
        other = Watching("Start", ("machine_provided", "DELETE"))
        everything = [
            ("machine_agent_started", "DELETE"),
            ("machine_provided", "DELETE"),
            ("machine_provided", "INSERT"),
        ]
        connection.register(other)
        assert stored() == everything
        connection.register(bmdb.Process("Start"))
        assert stored() == everything
        connection.register(other, replace=True)
        assert stored() == [("machine_provided", "DELETE")]
        connection.register(bmdb.Process("Start"), replace=True)
        assert stored() == []
        assert watched(sql, "Start") == {}

    def test_a_process_that_opted_out_gets_no_notes(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        connection.register(START)
        connection.register(bmdb.Process("Start"), replace=True)
        (machine,) = machines(1)
        sql.execute(PROVIDE, [[machine]])
        session.work("Start", lambda q: [machine]).cancel()
        session.work("Start", lambda q: [machine]).fail("no", bmdb.Backoff(1))
        assert attention(sql) == []

    def test_a_disabled_trigger_is_recognised(
        self, connection: bmdb.Connection, database: str, sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection.register(START)
        sql.execute("ALTER TABLE machine_provided DISABLE TRIGGER USER")
        assert watched(sql, "Start") == {"Start": False}
        with caplog.at_level(logging.WARNING), bmdb.connect(database, component="again") as again:
            again.register(START)
            eventually(lambda: "hears of no INSERT on machine_provided" in caplog.text)
        sql.execute("ALTER TABLE machine_provided ENABLE REPLICA TRIGGER bmdb_attend_insert")
        assert watched(sql, "Start") == {"Start": False}
        sql.execute("ALTER TABLE machine_provided ENABLE TRIGGER USER")
        assert watched(sql, "Start") == {"Start": True}

    def test_a_dropped_trigger_is_made_anew(self, connection: bmdb.Connection, database: str, sql: Sql) -> None:
        connection.register(START)
        sql.execute("DROP TRIGGER bmdb_attend_insert ON machine_provided")
        assert watched(sql, "Start") == {"Start": False}
        with bmdb.connect(database, component="again") as again:
            again.register(START)
        assert watched(sql, "Start") == {"Start": True}

    def test_what_is_no_tag_is_told(
        self, connection: bmdb.Connection, sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        sql.execute("CREATE TABLE machine_model (machine_id uuid PRIMARY KEY)")
        with caplog.at_level(logging.WARNING):
            connection.register(
                Watching("A", ("work", "INSERT"), ("machine_model", "INSERT"), ("machine_provided", "INSERT"))
            )
            eventually(lambda: "hears of no INSERT on work" in caplog.text)
            eventually(lambda: "hears of no INSERT on machine_model" in caplog.text)
        assert triggers(sql) == {("machine_provided", "bmdb_attend_insert")}
        assert watched(sql, "A") == {"A": False}

    @pytest.mark.parametrize("change", [("machine_provided", "TRUNCATE"), ("", "INSERT"), ("a\0", "INSERT")])
    def test_what_cannot_be_a_watch_is_refused(self, change: tuple[str, str], connection: bmdb.Connection) -> None:
        with pytest.raises(bmdb.ConfigError):
            connection.register(Watching("A", change))

    def test_a_tag_that_somebody_has_locked_is_left_alone(
        self, connection: bmdb.Connection, database: str, sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        with psycopg.connect(database) as writer, caplog.at_level(logging.WARNING):
            writer.execute("LOCK TABLE machine_provided IN ROW EXCLUSIVE MODE")
            connection.register(START)
            eventually(lambda: "hears of no INSERT on machine_provided" in caplog.text)
        assert triggers(sql) == {("machine_agent_started", "bmdb_attend_delete")}
        with bmdb.connect(database, component="later") as later:
            later.register(START)
        assert watched(sql, "Start") == {"Start": True}

    def test_many_at_once_do_not_deadlock(self, database: str, sql: Sql) -> None:
        tags = [tag for (tag,) in sql.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'machine\\_%'")]
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        before = sql.execute(deadlocks).fetchone()
        start = threading.Barrier(8)
        failed: list[BaseException] = []

        def work(number: int) -> None:
            order = tags if number % 2 else tags[::-1]
            processes = [Watching(f"P{n}", *((tag, "INSERT") for tag in order)) for n in range(3)]
            try:
                with bmdb.connect(database, component=f"worker {number}") as connection:
                    start.wait()
                    connection.register(*(processes if number % 2 else processes[::-1]))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert watched(sql, "P0", "P1", "P2") == {"P0": True, "P1": True, "P2": True}
        sql.execute("SELECT pg_stat_clear_snapshot()")
        assert sql.execute(deadlocks).fetchone() == before


@pytest.fixture
def role(sql: Sql) -> Iterator[str]:
    """A role without any rights, dropped after the test."""
    name = f"bmdb_role_{uuid4().hex[:12]}"
    sql.execute(f"CREATE ROLE {name} LOGIN")  # type: ignore[arg-type]
    yield name
    sql.execute("RESET ROLE")
    sql.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = %s", [name])
    sql.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
    sql.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


class TestRights:
    def test_a_worker_that_owns_nothing_gets_its_triggers(
        self, database: str, machines: MakeMachines, sql: Sql, role: str
    ) -> None:
        sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")  # type: ignore[arg-type]
        with (
            bmdb.connect(make_conninfo(database, user=role), component="lowly") as lowly,
            lowly.start_session() as session,
        ):
            lowly.register(START)
            assert watched(sql, "Start") == {"Start": True}
            (machine,) = machines(1)
            sql.execute(PROVIDE, [[machine]])
            assert attention(sql) == [("Start", machine)]
            session.work(START, lambda q: [machine]).fail("no", bmdb.Backoff(1))
            lowly.collect()

    def test_a_tag_that_the_migrating_role_may_not_touch_is_told(
        self, connection: bmdb.Connection, sql: Sql, role: str
    ) -> None:
        """`work_watch` acts for its owner, who here is somebody with few rights."""
        sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")  # type: ignore[arg-type]
        sql.execute(f"GRANT CREATE ON SCHEMA public TO {role}")  # type: ignore[arg-type]
        sql.execute(f"ALTER FUNCTION work_watch OWNER TO {role}")  # type: ignore[arg-type]
        sql.execute(f"ALTER TABLE machine_agent_started OWNER TO {role}")  # type: ignore[arg-type]
        connection.register(START)
        sql.execute("ALTER FUNCTION work_watch OWNER TO CURRENT_USER")
        sql.execute("ALTER TABLE machine_agent_started OWNER TO CURRENT_USER")
        assert triggers(sql) == {("machine_agent_started", "bmdb_attend_delete")}
        assert watched(sql, "Start") == {"Start": False}

    def test_who_may_not_lease_may_not_watch(self, sql: Sql, role: str) -> None:
        for begin in ("SET ROLE", "SET SESSION AUTHORIZATION"):
            sql.execute(f"{begin} {role}")  # type: ignore[arg-type]
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not lease"):
                sql.execute("SELECT work_watch('{machine_provided}', '{INSERT}', 'A', '', false)")
            sql.execute("RESET SESSION AUTHORIZATION")
            sql.execute("RESET ROLE")
        assert triggers(sql) == set()


class TestEnds:
    @pytest.fixture
    def machine(self, connection: bmdb.Connection, machines: MakeMachines) -> UUID:
        connection.register(START)
        return machines(1)[0]

    def test_cancelled_work_is_noted_at_once(self, session: bmdb.Session, machine: UUID, sql: Sql) -> None:
        session.work("Start", lambda q: [machine]).cancel()
        session.work("Unwatched", lambda q: [machine]).cancel()
        assert attention(sql) == [("Start", machine)]

    def test_failed_work_is_noted_for_the_end_of_its_backoff(
        self, session: bmdb.Session, machine: UUID, sql: Sql
    ) -> None:
        session.work("Start", lambda q: [machine]).fail("no", bmdb.Backoff(100))
        session.work("Unwatched", lambda q: [machine]).fail("no", bmdb.Backoff(100))
        due = "SELECT process, due = until FROM work_attention JOIN work_backoff USING (machine_id, process)"
        assert sql.execute(due).fetchall() == [("Start", True)]

    def test_what_a_closed_session_held_is_noted(self, connection: bmdb.Connection, machine: UUID, sql: Sql) -> None:
        with connection.start_session() as other:
            other.work("Start", lambda q: [machine])
        assert attention(sql) == [("Start", machine)]

    def test_a_loss_is_noted_at_once_and_for_the_end_of_the_crash_backoff(
        self, connection: bmdb.Connection, session: bmdb.Session, machine: UUID, machines: MakeMachines, sql: Sql
    ) -> None:
        (other,) = machines(1)
        connection.register(Watching("Careful", *START.changes, crash_backoff=bmdb.Backoff(50)))
        session.work("Start", lambda q: [machine])
        session.work("Careful", lambda q: [other])
        sql.execute("UPDATE sessions SET session_deadline = now() - interval '1 minute'")
        eventually(lambda: connection.collect() is not None and attention(sql) != [])
        later = sql.execute("SELECT process, machine_id FROM work_attention WHERE due > now() + interval '45 s'")
        assert later.fetchall() == [("Careful", other)]
        assert ("Start", machine) in attention(sql)

    def test_the_end_of_a_quarantine_is_noted(self, connection: bmdb.Connection, machine: UUID, sql: Sql) -> None:
        sql.execute("INSERT INTO work_loss VALUES (%s, 'Start', 3, now(), now())", [machine])
        assert connection.release_quarantine(machine, "Start")
        assert attention(sql) == [("Start", machine)]

    def test_the_end_of_a_hold_is_noted(self, connection: bmdb.Connection, machine: UUID, sql: Sql) -> None:
        connection.register(Watching("Other", *START.changes))
        connection.hold(machine, owner="ada", reason="disk")
        assert attention(sql) == []
        connection.release(machine)
        assert attention(sql) == [("Other", machine), ("Start", machine)]
        sql.execute("DELETE FROM work_attention")
        until = sql.execute("SELECT now() + interval '1 hour'").fetchone()[0]  # type: ignore[index]
        connection.hold(machine, "Start", owner="ada", reason="disk", until=until)
        assert sql.execute("SELECT process, due FROM work_attention").fetchall() == [("Start", until)]


class TestAttention:
    """What a claim makes of the notes, told by its statement alone, with all machines eligible as far as tags go."""

    @staticmethod
    def attend(sql: Sql, session: bmdb.Session) -> list[UUID]:
        claim = uuid4()
        psycopg.RawCursor(sql).execute(ATTEND, [session.uuid, "Start", claim, UUID(int=0), 100, 10, START.watcher])
        found = sql.execute("SELECT machine_id FROM work WHERE lease_id::text ^@ %s", [str(claim)[:32]])
        return [row[0] for row in found]

    def test_a_machine_that_a_rival_holds_is_looked_at_again(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        connection.register(Watching("Start", *START.changes, excludes=("Recover",)))
        first, second = machines(2)
        rival = session.work("Recover", lambda q: [first])
        sql.execute(PROVIDE, [[first, second]])
        assert self.attend(sql, session) == [second]
        assert attention(sql) == [("Start", first)]
        assert self.attend(sql, session) == []
        rival.finish()
        later: list[UUID] = []
        eventually(lambda: later or later.extend(self.attend(sql, session)) or later, timeout=5)
        assert later == [first]
        assert attention(sql) == []

    @pytest.mark.parametrize(("held", "wait"), [("0 s", 1.0), ("20 s", 20.0), ("3 days", 60.0)])
    def test_a_machine_that_is_leased_for_long_is_looked_at_seldom(
        self,
        connection: bmdb.Connection,
        session: bmdb.Session,
        machines: MakeMachines,
        sql: Sql,
        held: str,
        wait: float,
    ) -> None:
        connection.register(START)
        (machine,) = machines(1)
        session.work("Start", lambda q: [machine])
        sql.execute("UPDATE work SET work_started_at = now() - %s::interval", [held])
        sql.execute(PROVIDE, [[machine]])
        assert self.attend(sql, session) == []
        left = "SELECT extract(epoch FROM due - clock_timestamp())::float FROM work_attention"
        row = sql.execute(left).fetchone()
        assert row is not None and wait - 1 < row[0] < wait + 1

    def test_what_is_held_back_is_forgotten_until_that_ends(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql
    ) -> None:
        connection.register(START)
        (machine,) = machines(1)
        connection.hold(machine, owner="ada", reason="disk")
        sql.execute(PROVIDE, [[machine]])
        assert self.attend(sql, session) == []
        assert attention(sql) == []
        connection.release(machine)
        assert self.attend(sql, session) == [machine]


class TestSparseFleet:
    """Claims as users make them, where next to nothing is eligible."""

    SPARSE = bmdb.Process("Sparse", eligible=bmdb.eligible(having=("provided",), lacking=("agent_started",)))

    @pytest.fixture
    def rack(self, session: bmdb.Session, machines: MakeMachines) -> list[UUID]:
        """More machines than one look takes in, each of which somebody has looked at in vain."""
        rack = machines(5_000)
        with pytest.raises(bmdb.NothingToDo):
            session.work(self.SPARSE)
        return rack

    def test_a_machine_that_becomes_eligible_is_found_by_its_note(
        self, session: bmdb.Session, rack: list[UUID], sql: Sql
    ) -> None:
        for machine in rack[::1700]:
            sql.execute(PROVIDE, [[machine]])
            assert attention(sql) == [("Sparse", machine)]
            work = session.work(self.SPARSE)
            assert work.machine == machine
            assert attention(sql) == []  # a sweep would have left it
            work.finish(bmdb.set_tag("agent_started", agent_started_at=datetime.now(UTC), agent_public_key=b""))

    def test_old_notes_do_not_hide_a_new_one(self, session: bmdb.Session, rack: list[UUID], sql: Sql) -> None:
        """Notes of what is not eligible pile up while nobody looks; one look takes a thousand."""
        sql.execute(
            "INSERT INTO work_attention (process, watcher, machine_id, due)"
            " SELECT 'Sparse', %s, gen_random_uuid(), clock_timestamp() - interval '1 minute'"
            " FROM generate_series(1, 4000)",
            [self.SPARSE.watcher],
        )
        machine = rack[2_500]
        sql.execute(PROVIDE, [[machine]])
        work = session.work(self.SPARSE)
        assert work.machine == machine
        assert attention(sql) == []

    def test_each_eligibility_has_its_own_notes(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql, connection: bmdb.Connection
    ) -> None:
        """Workers that share a process may ask for different machines: what one passes over is another's."""
        rack = machines(5_000)

        def of(provider: str) -> bmdb.Process:
            eligible = bmdb.eligible(
                having=("provided",),
                lacking=("agent_started",),
                where="machine_provided.provider = $1",
                params=(provider,),
            )
            return bmdb.Process("Shared", eligible=eligible)

        equinix, other = of("Equinix"), of("Other")
        for process in (equinix, other):
            with pytest.raises(bmdb.NothingToDo):
                session.work(process)
        sql.execute(PROVIDE, [[rack[2_500]]])
        assert attention(sql) == [("Shared", rack[2_500])] * 2
        with pytest.raises(bmdb.NothingToDo):
            session.work(other)
        assert attention(sql) == [("Shared", rack[2_500])]
        assert session.work(equinix).machine == rack[2_500]
        assert attention(sql) == []

    def test_no_more_than_32_eligibilities_of_a_process_are_watched(
        self, connection: bmdb.Connection, machines: MakeMachines, sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One that is made anew for each call would cost a note for each, for ever."""
        (machine,) = machines(1)
        for number in range(34):
            connection.register(Watching("Start", ("machine_provided", "INSERT"), number=number))
        sql.execute(PROVIDE, [[machine]])
        assert attention(sql) == [("Start", machine)] * 32
        connection.register(START, replace=True)
        assert sql.execute("SELECT DISTINCT watcher FROM process_watch").fetchall() == [(START.watcher,)]

    def test_an_eligibility_that_nobody_has_any_more_makes_room(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: MakeMachines, sql: Sql, database: str
    ) -> None:
        """Workers come with other parameters from release to release. Who still leases says so with his claims."""
        (machine,) = machines(1)
        first = bmdb.Process("Start", eligible=self.SPARSE.eligible)
        with pytest.raises(bmdb.NothingToDo):
            session.work(first)
        for number in range(31):
            connection.register(Watching("Start", ("machine_provided", "INSERT"), number=number))
        sql.execute(PROVIDE, [[machine]])
        sql.execute("UPDATE process_watch SET seen = now() - interval '25 h'")
        with bmdb.connect(database, component="again") as again, again.start_session() as other:
            assert other.work(first).machine == machine
        renewed = "SELECT DISTINCT watcher FROM process_watch WHERE seen > now() - interval '1 h'"
        assert sql.execute(renewed).fetchall() == [(first.watcher,)]
        connection.register(START)
        kept = {watcher for (watcher,) in sql.execute("SELECT watcher FROM process_watch")}
        assert kept == {first.watcher, START.watcher}
        assert {watcher for (watcher,) in sql.execute("SELECT watcher FROM work_attention")} == {first.watcher}

    def test_a_note_outlives_a_rivals_claim_amid_ours(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql, database: str
    ) -> None:
        """Judged on a snapshot without the rival's lease, the machine is not claimed: its note may still be needed."""
        having = ("provided",)
        slow = bmdb.Process("N", eligible=bmdb.eligible(having=having, where="machine_provided.provider <> 'q'"))
        rival = bmdb.Process("N", eligible=bmdb.eligible(having=having, lacking=("agent_started",)))
        (machine,) = machines(1)
        with bmdb.connect(database, component="rival") as other, other.start_session() as quick:
            for each, process in ((session, slow), (quick, rival)):
                with pytest.raises(bmdb.NothingToDo):
                    each.work(process)
            sql.execute(PROVIDE, [[machine]])
            answers: list[Any] = []

            def look() -> None:
                try:
                    answers.append(session.work(slow))
                except bmdb.NothingToDo as error:
                    answers.append(error)

            with psycopg.connect(database) as holding_up:
                holding_up.execute("SELECT 1 FROM sessions WHERE session_id = %s FOR UPDATE", [session.uuid])
                looking = threading.Thread(target=look)
                looking.start()
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                eventually(lambda: sql.execute(waits).fetchone() != (0,))
                assert quick.work(rival).machine == machine
            looking.join(20)
            assert isinstance(answers[0], bmdb.NothingToDo)
            # While the rival has its lease: the end of that would leave another note.
            assert attention(sql) == [("N", machine)]
            assert sql.execute("SELECT watcher FROM work_attention").fetchone() == (slow.watcher,)

    def test_a_claim_does_not_fail_for_its_housekeeping(
        self, session: bmdb.Session, machines: MakeMachines, sql: Sql, database: str
    ) -> None:
        (machine,) = machines(1)
        with pytest.raises(bmdb.NothingToDo):
            session.work(self.SPARSE)
        sql.execute(PROVIDE, [[machine]])
        sql.execute("UPDATE process_watch SET seen = now() - interval '2 h'")
        with (
            psycopg.connect(database) as other,
            bmdb.connect(database, component="again") as again,
            again.start_session() as late,
        ):
            other.execute("SELECT 1 FROM process_watch FOR UPDATE")
            assert late.work(self.SPARSE).machine == machine

    def test_without_triggers_a_sweep_finds_it(self, session: bmdb.Session, rack: list[UUID], sql: Sql) -> None:
        sql.execute("ALTER TABLE machine_provided DISABLE TRIGGER USER")
        sql.execute(PROVIDE, [[rack[2_500]]])
        assert attention(sql) == []
        assert session.work(self.SPARSE).machine == rack[2_500]


def test_collection_forgets_what_nobody_looked_at(
    connection: bmdb.Connection, machines: MakeMachines, sql: Sql, database: str
) -> None:
    connection.register(START)
    note = (
        "INSERT INTO work_attention"
        " SELECT 'Start', %s, gen_random_uuid(), now() + %s::interval FROM generate_series(1, %s)"
    )
    sql.execute(note, [START.watcher, "-4 minutes", 3])
    sql.execute(note, [START.watcher, "1 hour", 2])
    sql.execute(note, [START.watcher, "-6 minutes", 7500])
    with psycopg.connect(database) as other:
        other.execute("SELECT 1 FROM work_attention WHERE due < now() - interval '5 min' LIMIT 1 FOR UPDATE")
        connection.collect()
        assert len(attention(sql)) == 2505
        connection.collect()
        assert len(attention(sql)) == 6
    connection.collect()
    assert len(attention(sql)) == 5
