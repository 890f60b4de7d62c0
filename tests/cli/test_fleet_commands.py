"""The commands that show a database, on a real one."""

from __future__ import annotations

import json
import unicodedata
import uuid
from datetime import datetime
from typing import Any

import pytest
from tests.cli.conftest import PROCESS, Answer, Documents, fail
from tests.processes import eventually

import bmdb
from bmdb import _core, model

HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold]x[/] :smile: \u202egnp.exe\u2066 \x9b2J \u200b<script>\r\n"


class TestQuarantine:
    def test_shown_and_released(
        self,
        session: bmdb.Session,
        machines: Any,
        bmdb_command: Answer,
        document: Documents,
        sql: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (machine,) = machines(1)
        session.connection.register(bmdb.Process(PROCESS, quarantine_after=1))
        (gone,) = sql.execute(
            "WITH gone AS (INSERT INTO sessions (session_component_name, session_runtime_info,"
            " session_interval_seconds, session_deadline)"
            " VALUES ('gone', '', 5, clock_timestamp() - interval '1 second') RETURNING session_id)"
            " INSERT INTO work SELECT %s, %s, session_id, 1 FROM gone RETURNING session_id",
            [machine, PROCESS],
        ).fetchone()
        session.connection.collect()
        # Its warning comes on another thread, and is not the next command's.
        eventually(lambda: "in quarantine" in caplog.text)
        (event,) = (event for event in document("history", machine)["events"] if event["event"] == "Quarantined")
        assert (event["session_id"], event["component"]) == (str(gone), "gone")
        assert "  UnitTest1 in quarantine: quarantined after 1 lost holder" in bmdb_command("machines")[1]
        refused = f"machine {machine} is not in quarantine for process Unit\\nTest: `bmdb machines` lists what is\n"
        assert bmdb_command("release-quarantine", machine, "Unit\nTest") == (1, "", f"bmdb: {refused}")
        freed = f"process UnitTest1 may have machine {machine} again\n"
        assert bmdb_command("release-quarantine", machine, PROCESS) == (0, freed, "")
        assert session.work(PROCESS, lambda q: [machine]).machine == machine
        assert document("history", machine)["events"][-2]["component"] == "bmdb command line"

    def test_help(self, bmdb_command: Answer) -> None:
        status, output, errors = bmdb_command("release-quarantine", "--help")
        assert (status, errors) == (0, "")
        words = " ".join(output.split())
        assert all(text in words for text in ("{MACHINE} {PROCESS}", "--conninfo", "`bmdb machines`", "with status 1"))


class TestMachines:
    def test_tags_work_and_backoffs(self, session: bmdb.Session, machines: Any, document: Documents, sql: Any) -> None:
        busy, idle = sorted(machines(2))
        sql.execute('CREATE TABLE "machine_rack ""7""; --" (machine_id uuid PRIMARY KEY REFERENCES machines, unit int)')
        sql.execute('INSERT INTO "machine_rack ""7""; --" VALUES (%s, 3)', [busy])
        session.transact(lambda q: q.machine_add_provided(busy, "Equinix", "a"))
        fail(session, busy, "no\nanswer")
        lease = session.work("UnitTest2", lambda q: [busy])
        page = document("machines")
        assert page["next"] is None
        first, second = page["machines"]
        assert second["machine_id"] == str(idle)
        assert (second["tags"], second["work"], second["backoffs"]) == ([], [], [])
        assert first["machine_id"] == str(busy)
        assert first["tags"] == ["provided", 'rack "7"; --']
        (work,), (backoff,) = first["work"], first["backoffs"]
        assert datetime.fromisoformat(work.pop("work_started_at")).tzinfo is not None
        assert "pid" in work.pop("session_runtime_info")
        assert work == {
            "process": "UnitTest2",
            "session_id": str(session.uuid),
            "token": lease.token,
            "session_component_name": "test",
            "session_live": True,
        }
        until = sql.execute("SELECT until FROM work_backoff").fetchone()[0]
        assert datetime.fromisoformat(backoff.pop("until")) == until
        assert backoff == {"process": PROCESS, "cause": "no\nanswer", "last_interval_seconds": 600}
        lease.cancel()

    def test_as_a_table(self, session: bmdb.Session, machines: Any, bmdb_command: Answer) -> None:
        (machine,) = machines(1)
        session.transact(lambda q: q.machine_add_provided(machine, "Equinix", "a"))
        fail(session, machine, "Traceback (most recent call last):\n  …\nOSError: no answer\n")
        with session.work("UnitTest2", lambda q: [machine]):
            status, output, errors = bmdb_command("machines")
        assert (status, errors) == (0, "")
        header, row = output.splitlines()
        assert header.split() == ["MACHINE", "TAGS", "WORK", "HOLDS", "BACKOFFS"]
        assert row.startswith(
            f"{machine}  provided  UnitTest2 by test (session {session.uuid})  -      UnitTest1 until 20"
        )
        assert row.endswith(": OSError: no answer")

    def test_holds(self, connection: bmdb.Connection, machines: Any, bmdb_command: Answer, document: Documents) -> None:
        held, other = sorted(machines(2))
        connection.hold(held, owner="ada", reason=HOSTILE)
        connection.hold(held, "UnitTest2", owner="bob", reason="mine")
        first, second = document("machines")["machines"]
        assert [(hold["process"], hold["owner"]) for hold in first["holds"]] == [(None, "ada"), ("UnitTest2", "bob")]
        assert (second["machine_id"], second["holds"]) == (str(other), [])
        output = bmdb_command("machines")[1]
        assert r"all by ada: \x1b]0;owned\x07" in output
        assert "UnitTest2 by bob: mine" in output

    def test_a_backoff_that_has_passed_is_left_out(
        self, session: bmdb.Session, machines: Any, document: Documents, sql: Any
    ) -> None:
        (machine,) = machines(1)
        fail(session, machine, "passed")
        sql.execute("UPDATE work_backoff SET until = clock_timestamp() - interval '1 second'")
        assert document("machines")["machines"][0]["backoffs"] == []

    def test_a_lease_of_an_expired_session_says_so(
        self, machines: Any, document: Documents, bmdb_command: Answer, sql: Any
    ) -> None:
        (machine,) = machines(1)
        (session,) = sql.execute(
            "INSERT INTO sessions (session_component_name, session_runtime_info, session_interval_seconds,"
            " session_deadline) VALUES ('gone', '', 5, clock_timestamp() - interval '1 second') RETURNING session_id"
        ).fetchone()
        sql.execute(
            "INSERT INTO work (machine_id, process, session_id, token) VALUES (%s, 'P', %s, 1)", [machine, session]
        )
        assert document("machines")["machines"][0]["work"][0]["session_live"] is False
        assert f"P by gone (session {session}, expired)" in bmdb_command("machines")[1]
        (shown,) = document("sessions")["sessions"]
        assert (shown["session_id"], shown["session_live"], shown["session_leases"]) == (str(session), False, 1)
        assert "  expired  1  " in bmdb_command("sessions")[1]

    def test_pages_hold_each_machine_once(self, machines: Any, document: Documents, bmdb_command: Answer) -> None:
        ids = sorted(map(str, machines(5)))
        seen: list[str] = []
        after: list[str] = []
        for size in (2, 2, 1):
            page = document("machines", "--limit", 2, *after)
            assert len(page["machines"]) == size
            seen += [machine["machine_id"] for machine in page["machines"]]
            after = ["--after", page["next"]]
        assert seen == ids
        assert page["next"] is None
        status, output, errors = bmdb_command("machines", "--limit", 4)
        assert (status, len(output.splitlines())) == (0, 5)
        assert errors == f"bmdb: there are more: bmdb machines --after {ids[3]}\n"
        assert document("machines", "--limit", 5)["next"] is None

    def test_an_empty_fleet(self, document: Documents) -> None:
        assert document("machines") == {"machines": [], "next": None}


class TestSessions:
    def test_as_json(self, session: bmdb.Session, machines: Any, document: Documents) -> None:
        (machine,) = machines(1)
        with session.work(PROCESS, lambda q: [machine]):
            page = document("sessions")
        (shown,) = page["sessions"]
        assert list(shown) == [
            "session_id",
            "session_component_name",
            "session_runtime_info",
            "session_created_at",
            "session_interval_seconds",
            "session_deadline",
            "session_live",
            "session_leases",
        ]
        assert (shown["session_id"], shown["session_component_name"]) == (str(session.uuid), "test")
        assert (shown["session_live"], shown["session_leases"], shown["session_interval_seconds"]) == (True, 1, 5)

    def test_pages(self, connection: bmdb.Connection, document: Documents, bmdb_command: Answer) -> None:
        ids = sorted(str(connection.start_session().uuid) for _ in range(3))
        first = document("sessions", "--limit", 2)
        rest = document("sessions", "--limit", 2, "--after", first["next"])
        assert [shown["session_id"] for shown in first["sessions"] + rest["sessions"]] == ids
        assert (first["next"], rest["next"]) == (ids[1], None)
        assert bmdb_command("sessions", "--limit", 1)[2] == f"bmdb: there are more: bmdb sessions --after {ids[0]}\n"


class TestHistory:
    def test_the_latest_events_oldest_first(
        self, session: bmdb.Session, machines: Any, document: Documents, bmdb_command: Answer
    ) -> None:
        (machine,) = machines(1)
        for _ in range(2):
            session.work(PROCESS, lambda q: [machine]).cancel()
        fail(session, machine, "the last")
        everything = document("history", machine)
        assert everything["machine_id"] == str(machine)
        told = [(event["event"], event["token"]) for event in everything["events"]]
        assert told == [("Started", 1), ("Canceled", 1), ("Started", 2), ("Canceled", 2), ("Started", 3), ("Failed", 3)]
        assert document("history", machine, "--limit", 3)["events"] == everything["events"][3:]
        last = everything["events"][-1]
        assert datetime.fromisoformat(last.pop("timestamp")).tzinfo is not None
        assert last == {
            "process": PROCESS,
            "event": "Failed",
            "failed_cause": "the last",
            "session_id": str(session.uuid),
            "component": "test",
            "token": 3,
        }
        lines = bmdb_command("history", machine)[1].splitlines()
        assert [line.split()[2] for line in lines[1:]] == [event for event, _ in told]
        assert lines[-1].endswith("the last")

    def test_a_machine_without_history_has_none(self, machines: Any, document: Documents) -> None:
        (machine,) = machines(1)
        assert document("history", machine) == {"machine_id": str(machine), "events": []}

    def test_history_outlives_the_machine(
        self, session: bmdb.Session, machines: Any, document: Documents, sql: Any
    ) -> None:
        (machine,) = machines(1)
        session.work(PROCESS, lambda q: [machine]).cancel()
        sql.execute("DELETE FROM machines")
        assert len(document("history", machine)["events"]) == 2

    def test_an_unknown_machine_is_a_bad_answer(self, bmdb_command: Answer) -> None:
        status, output, errors = bmdb_command("history", unknown := uuid.uuid4())
        assert (status, output) == (1, "")
        assert errors.startswith(f"bmdb: there is no machine {unknown}")


class TestHostileText:
    @pytest.mark.parametrize("arguments", [["machines"], ["history"], ["history", "--full"], ["sessions"], ["stats"]])
    def test_it_reaches_neither_the_terminal_nor_its_layout(
        self, arguments: list[str], database: str, machines: Any, bmdb_command: Answer
    ) -> None:
        (machine,) = machines(1)
        with bmdb.connect(database, component=HOSTILE, runtime_info=HOSTILE) as hostile:
            session = hostile.start_session()
            fail(session, machine, HOSTILE * 200)
            with session.work(HOSTILE[:60], lambda q: [machine]):
                command, *options = arguments
                status, output, errors = bmdb_command(command, *([machine] if command == "history" else []), *options)
        assert (status, errors) == (0, "")
        unseen = {mark for mark in output if unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        assert unseen <= {"\n"}
        assert r"\x1b]0;owned\x07" in output
        assert r"\x1b[31m[bold]x[/] :smile:" in output
        expected = {"machines": 1, "history": 3, "sessions": 1, "stats": 13}[arguments[0]]
        assert len(output.splitlines()) == 1 + expected
        if "--full" not in arguments:
            assert max(map(len, output.splitlines())) < 800

    def test_json_gives_it_back_unchanged(
        self, session: bmdb.Session, machines: Any, document: Documents, sql: Any
    ) -> None:
        (machine,) = machines(1)
        fail(session, machine, HOSTILE * 200)
        (kept,) = sql.execute("SELECT cause FROM work_backoff").fetchone()
        assert 8000 < len(kept.encode()) <= 8192
        assert document("machines")["machines"][0]["backoffs"][0]["cause"] == kept
        assert document("history", machine)["events"][-1]["failed_cause"] == kept

    def test_full_shows_the_whole_cause(self, session: bmdb.Session, machines: Any, bmdb_command: Answer) -> None:
        (machine,) = machines(1)
        fail(session, machine, "a" * 4000 + "\nz")
        assert bmdb_command("history", machine, "--full")[1].rstrip().endswith("a" * 4000 + r"\nz")
        assert bmdb_command("history", machine)[1].rstrip().endswith("aaa…")


class TestStatistics:
    def test_as_json_and_as_a_table(
        self, session: bmdb.Session, machines: Any, document: Documents, bmdb_command: Answer
    ) -> None:
        (machine, *_) = machines(3)
        fail(session, machine, "no")
        with session.work("UnitTest2", lambda q: [machine]):
            numbers = document("stats")
            rows = [line.split() for line in bmdb_command("stats")[1].splitlines()]
        assert numbers["machines"] == 3
        assert (numbers["active_work"], numbers["active_backoffs"]) == ({"UnitTest2": 1}, {PROCESS: 1})
        assert ["machines", "3"] in rows
        assert ["active", "work", "UnitTest2", "1"] in rows


class TestMigrate:
    @pytest.fixture
    def latest(self) -> int:
        return _core.latest_schema_version()

    def test_up_and_again(
        self, empty_database: str, bmdb_command: Answer, latest: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("BMDB_CONNINFO")
        for command in ("machines", "sessions", "stats"):
            status, output, errors = bmdb_command(command, "-c", empty_database)
            assert (status, output) == (1, "")
            assert errors == "bmdb: this database has no schema of bmdb: run `bmdb migrate` first\n"
        assert bmdb_command("migrate", empty_database, "--to", 1) == (0, "schema version 1 (it was 0)\n", "")
        assert bmdb_command("migrate", empty_database) == (0, f"schema version {latest} (it was 1)\n", "")
        assert bmdb_command("migrate", "-c", empty_database) == (0, f"schema version {latest}, as before\n", "")
        status, output, _ = bmdb_command("migrate", "-c", empty_database, "--json")
        assert (status, json.loads(output)) == (0, {"version": latest, "before": latest})
        assert bmdb_command("machines", "-c", empty_database)[0] == 0

    def test_down_is_refused(self, bmdb_command: Answer, latest: int, sql: Any) -> None:
        status, output, errors = bmdb_command("migrate", "--to", 0)
        assert (status, output, errors.count("\n")) == (1, "", 1)
        assert "would drop data" in errors
        assert sql.execute("SELECT count(*) FROM machines").fetchone() == (0,)

    def test_an_error_of_the_database_is_one_line(self, database: str, bmdb_command: Answer, sql: Any) -> None:
        sql.execute("ALTER TABLE work RENAME COLUMN process TO procedure")
        status, output, errors = bmdb_command("machines")
        assert (status, output, errors.count("\n")) == (1, "", 1)
        assert errors.startswith("bmdb: ") and "process" in errors


ROWS: dict[str, type] = {
    "machine_by_id": model.Machine,
    "machine_list": model.Machine,
    "session_list": model.SessionUse,
    "work_list": model.ActiveWork,
    "work_backoff_list": model.WorkBackoff,
    "work_history_latest": model.HistoryEvent,
}


@pytest.mark.parametrize("name", ROWS)
def test_columns_are_the_attributes_of_the_row_in_order(name: str, sql: Any) -> None:
    sql.pgconn.prepare(b"", dict(_core.queries())[name].encode())
    described = sql.pgconn.describe_prepared(b"")
    columns = [described.fname(number).decode() for number in range(described.nfields)]
    assert columns == list(ROWS[name].__dataclass_fields__)


class TestTagsOf:
    def test_only_the_machines_asked_for_are_told(
        self, connection: bmdb.Connection, session: bmdb.Session, machines: Any
    ) -> None:
        tagged, other, bare = machines(3)

        def tag(q: bmdb.Queries) -> None:
            for number, machine in enumerate((tagged, other)):
                q.machine_add_provided(machine, "Equinix", str(number))
            q.machine_set_hardware_report(tagged, b"x")

        session.transact(tag)
        assert connection.tags_of([tagged, bare]) == {tagged: ["hardware_report", "provided"]}
        assert connection.tags_of([]) == {}
        with pytest.raises(TypeError, match="machine ids"):
            connection.tags_of([7])  # type: ignore[list-item]

    async def test_async(self, database: str, session: bmdb.Session, machines: Any) -> None:
        (machine,) = machines(1)
        session.transact(lambda q: q.machine_set_hardware_report(machine, b"x"))
        async with await bmdb.AsyncConnection.connect(database, component="test") as connection:
            assert await connection.tags_of([machine]) == {machine: ["hardware_report"]}
