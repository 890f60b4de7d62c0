"""The recipe for Django: the ORM's rows and a lease's end land together, and on_commit hooks run when they should."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import bmdb

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "examples" / "django_together.py").read_text()

django = pytest.importorskip("django")


@pytest.fixture(scope="session")
def project() -> Any:
    """A minimal project: one model."""
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "replaced"}},
        INSTALLED_APPS=[],
        USE_TZ=True,
    )
    django.setup()
    from django.db import models

    class Agent(models.Model):
        name = models.CharField(max_length=100, unique=True)
        starts = models.IntegerField(default=0)

        class Meta:
            app_label = "fleet"

    return Agent


@pytest.fixture
def agents(project: Any, database: str) -> Iterator[Any]:
    """The model, with its table in this test's database."""
    from django.db import connection

    parts = conninfo_to_dict(database)
    connection.settings_dict.update(
        NAME=parts["dbname"], USER=parts["user"], HOST=parts["host"], PORT=parts["port"], CONN_MAX_AGE=None
    )
    with connection.schema_editor() as editor:
        editor.create_model(project)
    yield project
    connection.close()
    assert connection.run_on_commit == []


@pytest.fixture
def together(agents: Any) -> Callable[..., Any]:
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(EXAMPLE, "examples/django_together.py", "exec"), names)  # noqa: S102
    return names["together"]  # type: ignore[no-any-return]


@pytest.fixture
def work(session: bmdb.Session, machines: Callable[[int], list[UUID]]) -> bmdb.Work:
    offered = machines(1)
    return session.work("UnitTest1", lambda q: offered)


def test_the_page_shows_the_example() -> None:
    assert f"```python\n{EXAMPLE}```\n" in (ROOT / "docs" / "django.md").read_text()


def test_rows_and_the_end_of_work_land_together(
    agents: Any, together: Callable[..., Any], work: bmdb.Work, sql: psycopg.Connection[Any]
) -> None:
    from django.db import connection, transaction

    hooks: list[str] = []

    def commit(q: Any) -> None:
        agents.objects.create(name="a1")
        with transaction.atomic():
            agents.objects.filter(name="a1").update(starts=7)
        transaction.on_commit(lambda: hooks.append(work.state))
        assert sql.execute("SELECT count(*) FROM fleet_agent").fetchone() == (0,)

    together(work.finish, commit)
    assert work.state == "finished"
    assert sql.execute("SELECT name, starts FROM fleet_agent").fetchall() == [("a1", 7)]
    assert hooks == ["finished"]
    assert connection.get_autocommit() and not connection.in_atomic_block


def test_an_exception_rolls_back_both_and_no_hook_runs(
    agents: Any, together: Callable[..., Any], work: bmdb.Work, sql: psycopg.Connection[Any]
) -> None:
    from django.db import connection, transaction

    hooks: list[int] = []

    def commit(q: Any) -> None:
        agents.objects.create(name="a1")
        transaction.on_commit(lambda: hooks.append(1))
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        together(work.finish, commit)
    assert work.state == "active"
    assert hooks == []
    assert not agents.objects.exists()
    assert connection.get_autocommit()
    together(
        lambda commit, connection: work.fail("x", bmdb.Backoff(60), commit=commit, connection=connection), lambda q: 1
    )
    assert work.state == "failed"


def test_a_lease_that_is_gone_leaves_no_rows(
    agents: Any, together: Callable[..., Any], work: bmdb.Work, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("DELETE FROM work")
    with pytest.raises(bmdb.LeaseLostError):
        together(work.finish, lambda q: agents.objects.create(name="a1"))
    assert not agents.objects.exists()


def test_a_conflict_is_run_again_and_only_the_last_runs_hooks(
    agents: Any, together: Callable[..., Any], session: bmdb.Session, sql: psycopg.Connection[Any], database: str
) -> None:
    """Met in a statement, then at COMMIT, when the callback's own atomic() has ended well."""
    from django.db import transaction

    agents.objects.create(name="a1")
    hooks: list[int] = []
    runs: list[int] = []

    def add(q: Any) -> int:
        runs.append(len(runs) + 1)
        run = len(runs)
        transaction.on_commit(lambda: hooks.append(run))
        agent = agents.objects.get(name="a1")
        if run == 1:
            sql.execute("UPDATE fleet_agent SET starts = starts + 1")
        agent.starts += 1000
        agent.save()
        if run == 2:
            with psycopg.connect(database) as rival:
                rival.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                rival.execute("SELECT sum(starts) FROM fleet_agent")
                rival.execute("INSERT INTO fleet_agent (name, starts) VALUES ('a2', 1)")
                agents.objects.filter(name="a2").count()
        return run

    assert together(session.transact, add) == 3
    assert runs == [1, 2, 3]
    assert hooks == [3]
    assert sql.execute("SELECT starts FROM fleet_agent ORDER BY name").fetchall() == [(1001,), (1,)]


def test_a_swallowed_error_is_no_silent_success(
    agents: Any, together: Callable[..., Any], session: bmdb.Session
) -> None:
    from django.db import IntegrityError, transaction

    agents.objects.create(name="a1")

    def recovers(q: Any) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            agents.objects.create(name="a1")
        agents.objects.create(name="a2")

    together(session.transact, recovers)
    assert agents.objects.count() == 2

    def swallows(q: Any) -> None:
        with pytest.raises(IntegrityError):
            agents.objects.create(name="a1")

    with pytest.raises(bmdb.DatabaseError):
        together(session.transact, swallows)

    def asks(q: Any) -> None:
        agents.objects.create(name="a3")
        transaction.set_rollback(True)

    with pytest.raises(transaction.TransactionManagementError, match="asked for a rollback"):
        together(session.transact, asks)
    assert agents.objects.count() == 2


def test_a_swallowed_conflict_is_run_again(
    agents: Any, together: Callable[..., Any], session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    from django.db import DatabaseError

    agents.objects.create(name="a1")
    runs: list[int] = []

    def add(q: Any) -> None:
        runs.append(1)
        agent = agents.objects.get(name="a1")
        if len(runs) == 1:
            sql.execute("UPDATE fleet_agent SET starts = starts + 1")
        agent.starts += 1000
        with contextlib.suppress(DatabaseError):
            agent.save()

    together(session.transact, add)
    assert len(runs) == 2
    assert agents.objects.get(name="a1").starts == 1001


def test_inside_an_atomic_block_it_is_refused(agents: Any, together: Callable[..., Any], session: bmdb.Session) -> None:
    from django.db import transaction

    with transaction.atomic(), pytest.raises(transaction.TransactionManagementError):
        together(session.transact, lambda q: None)
    together(session.transact, lambda q: agents.objects.create(name="a1"))
    assert agents.objects.count() == 1


def test_a_connection_that_breaks_is_replaced_by_django(
    agents: Any, together: Callable[..., Any], session: bmdb.Session, sql: psycopg.Connection[Any]
) -> None:
    from django.db import OperationalError

    def cut_off(q: Any) -> None:
        agents.objects.create(name="a1")
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [q.connection.info.backend_pid])
        agents.objects.create(name="a2")

    with pytest.raises((bmdb.ConnectionFailedError, OperationalError)):
        together(session.transact, cut_off)
    assert agents.objects.count() == 0
    together(session.transact, lambda q: agents.objects.create(name="a1"))
    assert agents.objects.count() == 1
