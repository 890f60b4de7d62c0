"""`bmdb doctor`: each finding made true on a real server, as far as one can be made to have it."""

from __future__ import annotations

import datetime as clock
import json
import socket
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql as texts
from psycopg.conninfo import make_conninfo
from tests.certificates import Authority
from tests.cli.conftest import Answer
from tests.database import EmbeddedServer, Server
from tests.tls_front import TlsFront

import bmdb
from bmdb import _core
from bmdb.cli import main
from bmdb.cli.doctor import Finding, Level, examination, examine, network, pulse, schema, tables

ROLE = "bmdb doctor's worker"
LATEST = _core.latest_schema_version()


def examined(conninfo: str) -> dict[str, list[Finding]]:
    """The findings by what they are on."""
    found: dict[str, list[Finding]] = {}
    for finding in examine(conninfo):
        found.setdefault(finding.check, []).append(finding)
    return found


def only(conninfo: str, check: str) -> Finding:
    """The only finding on one thing."""
    (finding,) = examined(conninfo)[check]
    return finding


@pytest.fixture
def worker(server: Server, database: str, sql: psycopg.Connection[Any]) -> Iterator[str]:
    """Connection string of a role that may do what a worker needs, and no more."""
    name = texts.Identifier(ROLE)

    def forget() -> None:
        if sql.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            sql.execute(texts.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
            sql.execute(texts.SQL("DROP OWNED BY {}").format(name))
            sql.execute(texts.SQL("DROP ROLE {}").format(name))

    forget()
    sql.execute(texts.SQL("CREATE ROLE {} LOGIN").format(name))
    for may in ("USAGE ON SCHEMA public", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"):
        sql.execute(texts.SQL(f"GRANT {may} TO {{}}").format(name))
    try:
        yield make_conninfo(database, user=ROLE)
    finally:
        forget()


@pytest.fixture
def set_role(sql: psycopg.Connection[Any]) -> Callable[[str], None]:
    """Changes the worker's role."""

    def change(how: str) -> None:
        sql.execute(texts.SQL(f"ALTER ROLE {{}} {how}").format(texts.Identifier(ROLE)))

    return change


@pytest.fixture(scope="module")
def sound_server() -> Iterator[EmbeddedServer]:
    """A server with PostgreSQL's own durability, as one for the tests has not."""
    settings = {"fsync": "on", "full_page_writes": "on", "max_prepared_transactions": "2"}
    with EmbeddedServer(settings) as running:
        yield running


@pytest.fixture
def sound(sound_server: EmbeddedServer) -> Iterator[str]:
    """Connection string of a migrated database on it."""
    with sound_server.temporary_database() as dsn:
        with bmdb.connect(dsn, component="test", migrate=True):
            pass
        yield dsn


class TestCommand:
    def test_a_sound_database_has_no_problems_and_nothing_changes(
        self, sound: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["doctor", sound, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        levels = {finding["check"]: finding["level"] for finding in document["findings"]}
        assert list(dict.fromkeys(levels)) == [name for name, _ in examination.CHECKS]
        assert set(levels.values()) == {"ok", "note"}
        assert (document["problems"], document["warnings"]) == (0, 0)
        for finding in document["findings"]:
            assert set(finding) == {"check", "level", "text", "advice", "facts"}
        assert main(["doctor", "-c", sound]) == 0
        *lines, _, summary = capsys.readouterr().out.splitlines()
        assert summary == "0 problems, 0 warnings"
        assert [line.split()[0] for line in lines] == [
            word for finding in document["findings"] for word in (finding["level"], "->")[: 1 + bool(finding["advice"])]
        ]
        with psycopg.connect(sound) as looking:
            for table in ("sessions", "work_history", "work_attention"):
                assert looking.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)

    def test_a_problem_is_status_1_and_says_what_to_do(self, bmdb_command: Answer) -> None:
        # The tests' server does without fsync.
        status, output, errors = bmdb_command("doctor")
        assert (status, errors) == (1, "")
        lines = output.splitlines()
        place = next(
            number for number, line in enumerate(lines) if line.startswith("problem  durability: fsync is off")
        )
        assert lines[place + 1].startswith("         -> set fsync = on")
        assert lines[-1] == "1 problem, 0 warnings"

    def test_no_server_is_a_problem_and_no_secret_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "host=127.0.0.1 port=1 password=canary", "--json"]) == 1
        captured = capsys.readouterr()
        (finding,) = json.loads(captured.out)["findings"]
        assert (finding["check"], finding["level"]) == ("connection", "problem")
        assert "canary" not in captured.out + captured.err
        assert "***" in json.loads(captured.out)["conninfo"]

    @pytest.mark.parametrize("arguments", [["x=1"], ["embedded:", "-c", "embedded:"], []])
    def test_a_line_that_cannot_be_used(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("BMDB_CONNINFO", raising=False)
        assert main(["doctor", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_a_database_without_a_schema(self, empty_database: str) -> None:
        found = examined(empty_database)
        (finding,) = found["schema"]
        assert (finding.level, finding.advice) == (Level.PROBLEM, "run `bmdb migrate`")
        for check in ("privileges", "indexes", "triggers", "vacuum", "heartbeat"):
            assert [finding.level for finding in found[check]] == [Level.NOTE]


class TestRole:
    def test_a_worker_needs_no_more(self, worker: str) -> None:
        found = examined(worker)
        assert [finding.level for finding in found["privileges"]] == [Level.OK]
        standing, signals = found["role"]
        assert standing.level is signals.level is Level.NOTE
        assert standing.facts["may_migrate"] is False
        assert "pg_signal_backend" in str(signals.advice)
        assert found["heartbeat"][0].level is Level.OK

    @pytest.mark.parametrize(
        ("table", "privilege"),
        [("work", "DELETE"), ("sessions", "INSERT"), ("work_history", "SELECT"), ("machine_provided", "SELECT")],
    )
    def test_a_privilege_that_is_missing(self, table: str, privilege: str, worker: str, sql: Any) -> None:
        sql.execute(texts.SQL(f"REVOKE {privilege} ON {table} FROM {{}}").format(texts.Identifier(ROLE)))
        finding = only(worker, "privileges")
        assert finding.level is Level.PROBLEM
        assert finding.facts == {"table": table, "missing": [privilege]}
        assert str(finding.advice).startswith(f"GRANT {privilege} ON {table} TO ")

    def test_a_role_that_may_do_nothing_is_told_all_that_it_lacks(self, worker: str, sql: Any) -> None:
        sql.execute(texts.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(texts.Identifier(ROLE)))
        found = examined(worker)
        lacking = {finding.facts["table"] for finding in found["privileges"]}
        assert {"bmdb_schema", "sessions", "work", "work_history"} <= lacking
        assert {finding.level for finding in found["privileges"]} == {Level.PROBLEM}
        for check in ("schema", "heartbeat"):
            assert found[check][0].level is Level.PROBLEM
            assert "what to GRANT" in str(found[check][0].advice)

    def test_the_heartbeat_of_a_role_that_only_reads_unless_asked(
        self, worker: str, set_role: Callable[[str], None]
    ) -> None:
        set_role("SET default_transaction_read_only = on")
        assert only(worker, "heartbeat").level is Level.OK

    def test_what_workers_do_not_do_is_not_asked_for(self, worker: str, sql: Any) -> None:
        for less in (
            "DELETE ON work_history",
            "INSERT ON machines",
            "UPDATE ON bmdb_schema",
            "INSERT ON machine_provided",
        ):
            sql.execute(texts.SQL(f"REVOKE {less} FROM {{}}").format(texts.Identifier(ROLE)))
        assert only(worker, "privileges").level is Level.OK

    def test_a_schema_that_may_not_be_used(self, worker: str, sql: Any) -> None:
        sql.execute(texts.SQL("REVOKE USAGE ON SCHEMA public FROM PUBLIC, {}").format(texts.Identifier(ROLE)))
        assert examined(worker)["role"][0].level is Level.PROBLEM

    def test_the_owner_may_migrate(self, sql: Any, worker: str) -> None:
        sql.execute(texts.SQL("GRANT CREATE ON SCHEMA public TO {}").format(texts.Identifier(ROLE)))
        assert examined(worker)["role"][0].facts["may_migrate"] is False
        sql.execute(texts.SQL("ALTER TABLE machines OWNER TO {}").format(texts.Identifier(ROLE)))
        assert examined(worker)["role"][0].level is Level.OK

    @pytest.mark.parametrize(
        ("setting", "value", "level"),
        [
            ("statement_timeout", "500ms", Level.PROBLEM),
            ("statement_timeout", "5s", Level.WARNING),
            ("statement_timeout", "10min", Level.NOTE),
            ("idle_in_transaction_session_timeout", "10s", Level.WARNING),
            ("idle_session_timeout", "1s", Level.PROBLEM),
            ("lock_timeout", "2s", Level.WARNING),
        ],
    )
    def test_a_limit_of_the_role(
        self, setting: str, value: str, level: Level, worker: str, set_role: Callable[[str], None]
    ) -> None:
        set_role(f"SET {setting} = '{value}'")
        finding = only(worker, "timeouts")
        assert (finding.level, finding.facts["setting"]) == (level, setting)

    def test_its_default_isolation(self, worker: str, set_role: Callable[[str], None]) -> None:
        set_role("SET default_transaction_isolation = 'serializable'")
        finding = only(worker, "isolation")
        assert (finding.level, finding.facts["isolation"]) == (Level.NOTE, "serializable")
        set_role("RESET default_transaction_isolation")
        set_role("SET default_transaction_read_only = on")
        found = examined(worker)
        assert [finding.level for finding in found["isolation"]] == [Level.WARNING]

    def test_what_it_may_not_see_is_said_and_stops_nothing(self, worker: str, sql: Any) -> None:
        sql.execute("REVOKE SELECT ON pg_prepared_xacts FROM PUBLIC")
        found = examined(worker)
        (finding,) = found["old transactions"]
        assert (finding.level, finding.facts["sqlstate"]) == (Level.NOTE, "42501")
        assert finding.text.startswith("cannot be told: permission denied")
        assert "pg_monitor" in str(finding.advice)
        assert list(found) == [name for name, _ in examination.CHECKS]

    def test_transactions_of_others_that_it_cannot_see_are_not_called_none(self, worker: str, sql: Any) -> None:
        assert only(worker, "old transactions").level is Level.NOTE
        sql.execute(texts.SQL("GRANT pg_read_all_stats TO {}").format(texts.Identifier(ROLE)))
        assert only(worker, "old transactions").level is Level.OK


class TestDurability:
    def test_commits_that_are_not_waited_for(self, worker: str, set_role: Callable[[str], None]) -> None:
        set_role("SET synchronous_commit = off")
        texts = [finding.text for finding in examined(worker)["durability"] if finding.level is Level.PROBLEM]
        assert any(text.startswith("synchronous_commit is off") for text in texts)

    def test_synchronous_standbys_that_are_not_there(self, sound: str, sound_server: EmbeddedServer) -> None:
        with psycopg.connect(sound_server.dsn(), autocommit=True) as admin:
            # Commits would wait for ever, those that change the settings back included.
            admin.execute("SET synchronous_commit = local")
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'a, b'")
            admin.execute("SELECT pg_reload_conf()")
            try:
                found = examined(make_conninfo(sound, options="-c synchronous_commit=local"))["replication"]
                assert [finding.level for finding in found] == [Level.WARNING]
            finally:
                admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                admin.execute("SELECT pg_reload_conf()")


class TestSchema:
    @pytest.mark.parametrize(
        ("version", "advice"), [(LATEST - 1, "run `bmdb migrate`"), (LATEST + 1, "upgrade pybmdb")]
    )
    def test_one_that_does_not_fit(self, version: int, advice: str, database: str, sql: Any) -> None:
        if version < LATEST:
            sql.execute("DELETE FROM bmdb_schema WHERE version > %s", [version])
        else:
            sql.execute("INSERT INTO bmdb_schema (version, name) VALUES (%s, 'of tomorrow')", [version])
        found = examined(database)
        (finding,) = found["schema"]
        assert (finding.level, finding.facts) == (Level.PROBLEM, {"version": version, "latest": LATEST})
        assert str(finding.advice).startswith(advice)
        assert found["indexes"][0].level is Level.NOTE

    def test_the_indexes_are_those_that_migrations_make(self, sql: Any) -> None:
        made = sql.execute(
            "SELECT t.relname, array_agg(i.relname::text ORDER BY i.relname) FROM pg_index AS x"
            " JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS t ON t.oid = x.indrelid"
            " WHERE t.relnamespace = 'public'::regnamespace AND NOT t.relispartition GROUP BY t.relname"
        ).fetchall()
        assert {table: tuple(sorted(names)) for table, names in schema.INDEXES.items()} == {
            table: tuple(names) for table, names in made
        }

    def test_every_table_is_asked_for_privileges(self, sql: Any) -> None:
        from bmdb.cli.doctor.role import NEEDED

        made = sql.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition AND relname NOT LIKE 'machine\\_%'"
        ).fetchall()
        assert set(NEEDED) == {name for (name,) in made}

    def test_an_index_that_is_gone(self, database: str, sql: Any) -> None:
        sql.execute("DROP INDEX work_attention_due_idx")
        finding = only(database, "indexes")
        assert finding.level is Level.PROBLEM
        assert finding.text == "index work_attention_due_idx of work_attention is missing"

    def test_an_index_that_is_invalid(self, database: str, sql: Any) -> None:
        sql.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'work_attention_due_idx'::regclass")
        finding = only(database, "indexes")
        assert finding.level is Level.PROBLEM
        assert finding.advice == "REINDEX INDEX CONCURRENTLY work_attention_due_idx"

    def test_a_trigger_that_does_not_fire(self, database: str, sql: Any) -> None:
        sql.execute("ALTER TABLE work DISABLE TRIGGER work_exclusion")
        sql.execute("DROP TRIGGER work_exclusion_moved ON work")
        disabled, missing = examined(database)["triggers"]
        assert disabled.level is missing.level is Level.PROBLEM
        assert "is disabled" in disabled.text and "is missing" in missing.text

    def test_a_tag_that_notes_no_changes(
        self, database: str, connection: bmdb.Connection, session: Any, sql: Any
    ) -> None:
        watching = bmdb.Process("Watching", eligible=bmdb.eligible(having=("provided",)))
        with pytest.raises(bmdb.NothingToDo):
            session.work_many(watching, 1)
        assert only(database, "triggers").level is Level.OK
        sql.execute("ALTER TABLE machine_provided DISABLE TRIGGER bmdb_attend_insert")
        finding = only(database, "triggers")
        assert (finding.level, finding.facts["table"]) == (Level.WARNING, "machine_provided")


class TestVacuum:
    def test_autovacuum_that_is_off_for_a_table(self, database: str, sql: Any) -> None:
        sql.execute("ALTER TABLE sessions SET (autovacuum_enabled = off)")
        finding = only(database, "vacuum")
        assert (finding.level, finding.facts["table"]) == (Level.WARNING, "sessions")

    def test_dead_rows(self, database: str, sql: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "MANY_DEAD", 50)
        sql.execute("ALTER TABLE work_attention SET (autovacuum_vacuum_threshold = 1000000)")
        sql.execute("INSERT INTO work_attention SELECT 'P', 'w', gen_random_uuid() FROM generate_series(1, 100)")
        sql.execute("DELETE FROM work_attention")
        sql.execute("SELECT pg_stat_force_next_flush()")
        finding = only(database, "vacuum")
        assert finding.level is Level.WARNING
        assert finding.text == "work_attention has 100 dead rows beside 0 live ones, and was last vacuumed never"

    def test_a_transaction_that_is_left_open(
        self, database: str, bmdb_command: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "LONG", 0.0)
        name = "\x1b[31mnightly\u202e"
        with psycopg.connect(database, application_name=name) as idle:
            idle.execute("SELECT count(*) FROM machines")
            pid = idle.info.backend_pid
            found = [finding for finding in examined(database)["old transactions"] if finding.facts["name"] == str(pid)]
            (finding,) = found
            assert (finding.level, finding.facts["kind"]) == (Level.WARNING, "transaction")
            assert f"pg_terminate_backend({pid})" in str(finding.advice)
            output = bmdb_command("doctor")[1]
            assert f"pid {pid}, idle in transaction" in output
            assert not {mark for mark in output if unicodedata.category(mark) in {"Cc", "Cf"}} - {"\n"}

    def test_a_prepared_transaction_that_nobody_ends(self, sound: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "LONG", 0.0)
        with psycopg.connect(sound) as preparing:
            preparing.tpc_begin(preparing.xid(1, "forgotten", "x"))
            preparing.execute("INSERT INTO machines DEFAULT VALUES")
            preparing.tpc_prepare()
            try:
                (finding,) = (
                    each for each in examined(sound)["old transactions"] if each.facts["kind"] == "prepared transaction"
                )
                assert finding.level is Level.WARNING
            finally:
                preparing.tpc_rollback()


class TestNetwork:
    def test_several_hosts(self, database: str, server: Server) -> None:
        host, port = server.address
        several = make_conninfo(database, host=f"{host},{host}", hostaddr="", port=f"{port},{port}")
        assert only(several, "hosts").level is Level.WARNING
        assert only(make_conninfo(several, target_session_attrs="read-write"), "hosts").level is Level.OK

    def test_no_room_for_more_connections(self, worker: str, set_role: Callable[[str], None]) -> None:
        set_role("CONNECTION LIMIT 1")
        finding = only(worker, "connections")
        assert finding.level is Level.WARNING
        assert finding.facts == {"used": 1, "most": 1, "limit": "this role's limit"}
        set_role("CONNECTION LIMIT 20")
        assert only(worker, "connections").level is Level.OK

    @pytest.mark.parametrize(("ahead", "level"), [(0, Level.OK), (-30, Level.NOTE), (3600, Level.WARNING)])
    def test_a_clock_that_is_apart(
        self, ahead: int, level: Level, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Shifted(clock.datetime):
            @classmethod
            def now(cls, tz: clock.tzinfo | None = None) -> clock.datetime:  # type: ignore[override]
                return clock.datetime.now(tz) - clock.timedelta(seconds=ahead)

        monkeypatch.setattr(network, "datetime", Shifted)
        finding = only(database, "clock")
        assert finding.level is level
        assert abs(finding.facts["offset_seconds"] - ahead) < 1
        assert ("behind" if ahead < 0 else "ahead of" if ahead else "clock is 0.") in finding.text

    def test_a_slow_connection(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network, "SLOW_CONNECT", 0.0)
        assert only(database, "connection").level is Level.WARNING

    def test_something_in_between_that_promises_another_backend(self, database: str, server: Server) -> None:
        with Renaming(server.address) as front:
            finding = only(
                make_conninfo(database, host="127.0.0.1", hostaddr="", port=front.port, sslmode="disable"), "pooler"
            )
        assert (finding.level, finding.facts["promised"]) == (Level.WARNING, Renaming.PID)

    def test_a_backend_for_each_transaction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Answered:
            pid = 0

        class Pooled:
            class info:
                backend_pid = 1

            def ask(self, name: str) -> list[type[Answered]]:
                assert name == "doctor_backend"
                Answered.pid += 1
                return [type("Row", (), {"pid": Answered.pid})]

        (finding,) = network.pooler(Pooled())  # type: ignore[arg-type]
        assert finding.level is Level.WARNING
        assert finding.text.startswith("5 backends served 5 transactions")
        assert "pooler=True" in str(finding.advice)

    def test_encryption(self, sound_server: EmbeddedServer, tmp_path: Path) -> None:
        authority = Authority("bmdb tests")
        (tmp_path / "root.crt").write_bytes(authority.certificate)
        front = TlsFront(str(sound_server.socket_directory / f".s.PGSQL.{sound_server.port}"))  # type: ignore[operator]
        front.show(authority.server("localhost"))
        there = {"host": "localhost", "hostaddr": "127.0.0.1", "port": str(front.port), "user": "postgres"}
        try:
            for mode, level in (("require", Level.WARNING), ("verify-ca", Level.NOTE), ("verify-full", Level.OK)):
                root = {} if mode == "require" else {"sslrootcert": str(tmp_path / "root.crt")}
                finding = only(make_conninfo("dbname=postgres", **there, sslmode=mode, **root), "tls")
                assert (finding.level, finding.facts["encrypted"]) == (level, True), mode
        finally:
            front.close()

    def test_no_encryption_is_fine_where_nobody_listens(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert only(database, "tls").level is Level.OK
        monkeypatch.setattr(network, "_loopback", lambda probe: False)
        assert only(database, "tls").level is Level.WARNING


class TestHeartbeat:
    def test_a_slow_one(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        finding = only(database, "heartbeat")
        assert finding.level is Level.OK
        assert 0 < finding.facts["p50_seconds"] <= finding.facts["p99_seconds"]
        monkeypatch.setattr(pulse, "SLOW", 0.0)
        assert only(database, "heartbeat").level is Level.WARNING
        monkeypatch.setattr(pulse, "TOO_SLOW", 0.0)
        assert only(database, "heartbeat").level is Level.PROBLEM

    def test_its_session_goes_even_if_a_beat_fails(
        self, database: str, sql: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> float:
            raise psycopg.errors.QueryCanceled("too slow")

        monkeypatch.setattr(pulse, "_beat", broken)
        assert only(database, "heartbeat").text == "cannot be told: too slow"
        assert sql.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


class Renaming:
    """Passes a connection on, and tells the client of a backend that is not there, as a pooler does."""

    PID = 77_777

    def __init__(self, backend: tuple[str, int]) -> None:
        self._backend = backend
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Renaming:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:
            return
        with client, socket.create_connection(self._backend) as server:
            back = threading.Thread(target=self._pass_back, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join(10)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        stream = server.makefile("rb")
        while head := stream.read(5):
            kind, length = struct.unpack("!ci", head)
            body = stream.read(length - 4)
            if kind == b"K":
                body = struct.pack("!i", self.PID) + body[4:]
            client.sendall(head + body)
