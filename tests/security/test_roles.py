"""What owner, worker, operator and viewer may do, and may not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bmdb
from tests.conftest import MakeMachines
from tests.security.conftest import ROLES, Fleet

DENIED = psycopg.errors.InsufficientPrivilege
HISTORY = "work_history"

# Beyond SELECT, which all three have on all tables. History is apart: its columns are.
RIGHTS: dict[str, dict[str, str]] = {
    "worker": {
        "machines": "INSERT UPDATE",
        "process_eligibility": "DELETE INSERT UPDATE",
        "process_exclusion": "DELETE INSERT",
        "process_watch": "DELETE INSERT UPDATE",
        "processes": "INSERT UPDATE",
        "sessions": "DELETE INSERT UPDATE",
        "transaction_key": "DELETE INSERT UPDATE",
        "work": "DELETE INSERT UPDATE",
        "work_attention": "DELETE INSERT UPDATE",
        "work_backoff": "DELETE INSERT UPDATE",
        "work_loss": "DELETE INSERT UPDATE",
        "work_token": "INSERT UPDATE",
    },
    "operator": {
        "work": "DELETE",
        "work_attention": "INSERT",
        "work_backoff": "DELETE",
        "work_hold": "DELETE INSERT UPDATE",
        "work_loss": "DELETE",
    },
    "viewer": {},
}


def connected(fleet: Fleet, kind: str) -> psycopg.Connection[Any]:
    return psycopg.connect(fleet.conninfo(kind), autocommit=True)


@pytest.mark.parametrize("kind", RIGHTS)
def test_a_role_has_these_rights_and_no_other(kind: str, fleet: Fleet, sql: psycopg.Connection[Any]) -> None:
    statement = """
        SELECT c.relname, string_agg(v.verb, ' ' ORDER BY v.verb)
        FROM pg_class AS c,
            unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS v (verb)
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
            AND has_table_privilege(%s, c.oid, v.verb)
        GROUP BY c.relname
    """
    found = {table: set(verbs.split()) for table, verbs in sql.execute(statement, [fleet.role(kind)])}
    tables = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    """
    expected = {table: {"SELECT", *RIGHTS[kind].get(table, "").split()} for (table,) in sql.execute(tables)}
    if kind == "worker":
        for table in expected:
            if table.startswith("machine_"):
                expected[table] = {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert found == expected
    columns = """
        SELECT a.attname FROM pg_attribute AS a
        WHERE a.attrelid = 'work_history'::regclass AND a.attnum > 0
            AND has_column_privilege(%s, a.attrelid, a.attnum, 'INSERT')
    """
    written = {column for (column,) in sql.execute(columns, [fleet.role(kind)])}
    assert ("cause" in str(written)) is (kind != "viewer")
    assert "timestamp" not in written


def test_a_worker_works(fleet: Fleet, machines: MakeMachines) -> None:
    offered = machines(3)
    process = bmdb.Process("build", crash_backoff=bmdb.Backoff(1), quarantine_after=3)
    wanted = bmdb.eligible(lacking=("hardware_report",))
    with (
        bmdb.connect(fleet.conninfo("worker"), component="test", migrate=True) as connection,
        connection.start_session() as session,
    ):
        session.work(process, lambda q: offered[:1]).finish(lambda q: q.machine_set_hardware_report(offered[0], b"x"))
        session.work(process, lambda q: offered[1:2]).fail("broken", bmdb.Backoff(1))
        session.work(process, wanted).cancel()
        assert session.transact(lambda q: q.new_machine()) not in offered
        assert connection.collect() == (0, 0)
        assert [event.event for event in connection.history_of(offered[0])] == ["Started", "Finished"]


FORBIDDEN = [
    "UPDATE work_history SET event = 'Finished'",
    "DELETE FROM work_history",
    "TRUNCATE work_history",
    "DELETE FROM work_history_other",
    "INSERT INTO work_history_other (machine_id, process, event) VALUES (gen_random_uuid(), 'p', 'Finished')",
    "INSERT INTO work_history (machine_id, process, event, timestamp) SELECT machine_id, 'p', 'x', now() FROM work",
    "DROP TABLE work_history_other",
    "ALTER TABLE work_history ALTER timestamp SET DEFAULT now()",
    "ALTER TABLE work DISABLE TRIGGER ALL",
    "CREATE TRIGGER t AFTER INSERT ON work FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON INSERT TO work_history DO INSTEAD NOTHING",
    "CREATE TABLE machine_mine (machine_id uuid PRIMARY KEY REFERENCES machines)",
    "CREATE OR REPLACE FUNCTION work_exclude() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "INSERT INTO bmdb_schema (version, name) VALUES (99, 'x')",
    "INSERT INTO work_hold (machine_id, process, owner, reason) SELECT machine_id, '', 'x', 'y' FROM machines",
    "DELETE FROM work_hold",
    "DELETE FROM work_token",
    "DELETE FROM machines",
    "SET session_replication_role = replica",
]


@pytest.mark.parametrize("kind", ["worker", "operator", "viewer"])
def test_nobody_but_the_owner_rewrites_what_happened(kind: str, fleet: Fleet) -> None:
    allowed: list[str] = []
    with connected(fleet, kind) as connection:
        for statement in FORBIDDEN:
            try:
                connection.execute(statement)  # type: ignore[arg-type]
            except DENIED:
                continue
            allowed.append(statement)
    holds = [statement for statement in FORBIDDEN if "work_hold" in statement] if kind == "operator" else []
    assert [statement for statement in allowed if statement not in holds] == []


def test_a_worker_prunes_no_history(fleet: Fleet) -> None:
    with (
        bmdb.connect(fleet.conninfo("worker"), component="test") as connection,
        pytest.raises(bmdb.DatabaseError, match="permission denied"),
    ):
        connection.prune_history(timedelta(days=1))


def test_the_owner_prunes_history(fleet: Fleet, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "INSERT INTO work_history (machine_id, process, event, timestamp)"
        " VALUES (gen_random_uuid(), 'p', 'Finished', now() - interval '2 hours')"
    )
    with bmdb.connect(fleet.conninfo("owner"), component="test", migrate=True) as connection:
        assert connection.prune_history(timedelta(hours=1)).rows == 1


def test_an_operator_intervenes(fleet: Fleet, machines: MakeMachines) -> None:
    offered = machines(2)
    who = {"owner": "ann", "reason": "bad disk"}
    with (
        bmdb.connect(fleet.conninfo("worker"), component="test") as workers,
        workers.start_session() as session,
        bmdb.connect(fleet.conninfo("operator"), component="desk") as desk,
    ):
        lease = session.work("build", lambda q: offered[:1])
        session.work("build", lambda q: offered[1:]).fail("broken", bmdb.Backoff(60))
        desk.hold(offered[0], **who)
        assert [hold.machine_id for hold in desk.holds()] == offered[:1]
        assert desk.release(offered[0], **who)
        freed = desk.force_release(offered[0], "build", **who)
        assert freed is not None
        assert lease.token == freed.token
        assert desk.clear_backoff(offered[1], "build", **who) is not None
        assert not desk.release_quarantine(offered[1], "build", **who)
        with pytest.raises(bmdb.LeaseLostError):
            lease.finish()
        assert [event.event for event in desk.history_of(offered[0])] == ["Started", "Held", "Released", "Released"]


def test_an_operator_does_not_work(fleet: Fleet) -> None:
    with bmdb.connect(fleet.conninfo("operator"), component="desk") as desk:
        with pytest.raises(bmdb.DatabaseError, match="permission denied"):
            desk.start_session()
        with pytest.raises(bmdb.DatabaseError, match="permission denied"):
            desk.prune_history(timedelta(days=1))


def test_what_runs_with_its_owner_s_rights_is_nobody_s_lever(fleet: Fleet, sql: psycopg.Connection[Any]) -> None:
    """The owner is no superuser, the function looks for names in the catalogue alone, and only workers may call it."""
    statement = """
        SELECT p.proname, pg_get_userbyid(p.proowner), r.rolsuper, array_to_string(p.proconfig, ' '),
            has_function_privilege(%s, p.oid, 'EXECUTE'), has_function_privilege(%s, p.oid, 'EXECUTE')
        FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner
        WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
    """
    rows = sql.execute(statement, [fleet.role("worker"), fleet.role("viewer")]).fetchall()
    assert {row[0] for row in rows} == {"work_attend", "work_watch", "work_history_ahead"}
    for _, owner, superuser, settings, worker, viewer in rows:
        assert (owner, superuser, worker, viewer) == (fleet.role("owner"), False, True, False)
        assert "search_path=pg_catalog, pg_temp" in settings


def test_no_role_is_more_than_a_group(fleet: Fleet, sql: psycopg.Connection[Any]) -> None:
    statement = """
        SELECT bool_or(rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin),
            count(*)
        FROM pg_roles WHERE rolname = ANY (%s)
    """
    assert sql.execute(statement, [[fleet.role(kind) for kind in ROLES]]).fetchone() == (False, 4)


def test_once_more_takes_back_what_is_too_much_and_covers_new_tags(fleet: Fleet, sql: psycopg.Connection[Any]) -> None:
    viewer, worker = fleet.role("viewer"), fleet.role("worker")
    sql.execute(f"GRANT DELETE ON work_history TO {worker}; GRANT UPDATE ON work TO {viewer}")  # type: ignore[arg-type]
    sql.execute("CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines, rack int)")
    assert fleet.make_roles() == [fleet.role(kind) for kind in ROLES]
    with connected(fleet, "worker") as connection:
        connection.execute("INSERT INTO machine_rack SELECT machine_id FROM machines")
        with pytest.raises(DENIED):
            connection.execute("DELETE FROM work_history")
    with connected(fleet, "viewer") as connection, pytest.raises(DENIED):
        connection.execute("UPDATE work SET token = 0")


def test_a_new_tag_is_watched_with_the_owner_s_right_to_make_triggers(
    fleet: Fleet, sql: psycopg.Connection[Any], machines: MakeMachines
) -> None:
    sql.execute("CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines, rack int)")
    fleet.make_roles()
    (machine,) = machines(1)
    process = bmdb.Process("build", eligible=bmdb.eligible(having=("rack",)))
    with bmdb.connect(fleet.conninfo("worker"), component="test") as connection:
        connection.register(process)
        sql.execute("INSERT INTO machine_rack VALUES (%s, 1)", [machine])
        assert sql.execute("SELECT machine_id FROM work_attention").fetchall() == [(machine,)]


def test_who_was_granted_by_hand_goes_on(
    fleet: Fleet, sql: psycopg.Connection[Any], machines: MakeMachines, drop_roles: Callable[[str], None]
) -> None:
    name = f"hand_{uuid.uuid4().hex[:12]}"
    drop_roles(name)
    sql.execute(f"CREATE ROLE {name}_login LOGIN")  # type: ignore[arg-type]
    sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}_login")  # type: ignore[arg-type]
    fleet.make_roles()
    (machine,) = machines(1)
    with (
        bmdb.connect(make_conninfo(fleet.database, user=f"{name}_login"), component="test") as connection,
        connection.start_session() as session,
    ):
        connection.register(bmdb.Process("build", eligible=bmdb.eligible(lacking=("hardware_report",))))
        session.work("build", lambda q: [machine]).finish()
        assert connection.collect() == (0, 0)


def test_whoever_may_make_roles_needs_to_be_no_superuser(
    empty_database: str, sql: psycopg.Connection[Any], drop_roles: Callable[[str], None]
) -> None:
    prefix = f"fleet_{uuid.uuid4().hex[:12]}"
    admin = f"{prefix}_admin"
    drop_roles(prefix)
    sql.execute(f"CREATE ROLE {admin} LOGIN CREATEROLE")  # type: ignore[arg-type]
    with psycopg.connect(empty_database, autocommit=True) as owner:
        owner.execute(f"GRANT ALL ON SCHEMA public TO {admin} WITH GRANT OPTION")  # type: ignore[arg-type]
        try:
            with bmdb.connect(make_conninfo(empty_database, user=admin), component="test", migrate=True) as connection:
                assert len(connection._core.create_roles(prefix)) == 4
                assert len(connection._core.create_roles(prefix)) == 4
                assert connection.migrate() == connection.schema_version()
        finally:
            made = owner.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"{prefix}\\_%"]).fetchall()
            for (name,) in made:
                owner.execute(f"DROP OWNED BY {name} CASCADE")  # type: ignore[arg-type]


def test_a_role_that_may_not_is_told_who_may(fleet: Fleet) -> None:
    with (
        bmdb.connect(fleet.conninfo("worker"), component="test") as connection,
        pytest.raises(bmdb.MigrationError, match="superuser"),
    ):
        connection._core.create_roles(fleet.prefix)


def test_a_role_of_that_name_that_may_more_is_left_alone(
    database: str, sql: psycopg.Connection[Any], drop_roles: Callable[[str], None]
) -> None:
    prefix = f"fleet_{uuid.uuid4().hex[:12]}"
    drop_roles(prefix)
    sql.execute(f"CREATE ROLE {prefix}_viewer SUPERUSER")  # type: ignore[arg-type]
    with bmdb.connect(database, component="test") as connection:
        with pytest.raises(bmdb.MigrationError, match="may do more"):
            connection._core.create_roles(prefix)
        assert sql.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [f"{prefix}_worker"]).fetchone() == (0,)


@pytest.mark.parametrize("prefix", ["", "a b", 'a"; DROP TABLE work; --', "Fleet", "pg_fleet", "x" * 55])
def test_a_prefix_is_a_plain_name(prefix: str, connection: bmdb.Connection) -> None:
    with pytest.raises(bmdb.MigrationError, match="prefix"):
        connection._core.create_roles(prefix)


def test_roles_need_the_newest_schema(empty_database: str) -> None:
    with (
        bmdb.connect(empty_database, component="test") as connection,
        pytest.raises(bmdb.MigrationError, match="migrate"),
    ):
        connection._core.create_roles("fleet")
