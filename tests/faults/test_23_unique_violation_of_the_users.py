"""Row 23: a unique violation happens in a table of the user's own.

Promised: it surfaces untouched, and is no `WorkConflictError`.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines

PROCESS = "UnitTest1"


@pytest.fixture(autouse=True)
def inventory(sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE inventory (serial text CONSTRAINT inventory_serial_once UNIQUE)")
    sql.execute("CREATE TABLE slot (number int CONSTRAINT slot_number_once UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    sql.execute("INSERT INTO inventory VALUES ('A1')")
    sql.execute("INSERT INTO slot VALUES (1)")


class Inserting:
    """A callback that inserts what is there already, and answers with machines."""

    def __init__(self, statement: str, answer: object = None) -> None:
        self.statement, self.answer = statement, answer
        self.runs = 0

    def __call__(self, q: bmdb.Queries) -> Any:
        self.runs += 1
        q.execute(self.statement)
        return self.answer


AT_ONCE = ("INSERT INTO inventory VALUES ('A1')", "inventory", "inventory_serial_once", "A1")
AT_COMMIT = ("INSERT INTO slot VALUES (1)", "slot", "slot_number_once", "1")


def check(error: bmdb.DatabaseError, case: tuple[str, str, str, str]) -> None:
    assert type(error) is bmdb.DatabaseError
    assert (error.sqlstate, error.table, error.constraint) == ("23505", case[1], case[2])
    assert error.detail is not None and f"({case[3]})" in error.detail


@pytest.mark.parametrize("case", [AT_ONCE, AT_COMMIT], ids=["at once", "at commit"])
def test_in_a_transaction(session: bmdb.Session, case: tuple[str, str, str, str]) -> None:
    fn = Inserting(case[0])
    with pytest.raises(bmdb.DatabaseError) as caught:
        session.transact(fn)
    check(caught.value, case)
    assert fn.runs == 1


@pytest.mark.parametrize("case", [AT_ONCE, AT_COMMIT], ids=["at once", "at commit"])
def test_in_a_retrieval(
    session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines, case: tuple[str, str, str, str]
) -> None:
    fn = Inserting(case[0], machines(1))
    with pytest.raises(bmdb.DatabaseError) as caught:
        session.work(PROCESS, fn)
    check(caught.value, case)
    assert fn.runs == 1
    # Neither lease nor history nor token of a claim that never was.
    assert sql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM work_history").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM work_token").fetchone() == (0,)


@pytest.mark.parametrize("case", [AT_ONCE, AT_COMMIT], ids=["at once", "at commit"])
def test_in_a_finish(
    session: bmdb.Session, sql: psycopg.Connection[Any], machines: MakeMachines, case: tuple[str, str, str, str]
) -> None:
    (machine,) = machines(1)
    work = session.work(PROCESS, lambda _: [machine])
    fn = Inserting(case[0])
    with pytest.raises(bmdb.DatabaseError) as caught:
        work.finish(fn)
    check(caught.value, case)
    assert fn.runs == 1
    assert sql.execute("SELECT token FROM work").fetchall() == [(work.token,)]
    assert work.state == "active"
    work.finish()


def test_an_exception_of_the_callbacks_own_is_not_touched(session: bmdb.Session, machines: MakeMachines) -> None:
    offered = machines(1)
    own = LookupError("the user's")

    def retrieve(q: bmdb.Queries) -> Any:
        try:
            q.execute(AT_ONCE[0])
        except bmdb.DatabaseError as error:
            raise own from error
        return offered

    with pytest.raises(LookupError) as caught:
        session.work(PROCESS, retrieve)
    assert caught.value is own
    assert isinstance(own.__cause__, bmdb.DatabaseError)


def test_all_machines_taken_is_the_work_conflict(session: bmdb.Session, machines: MakeMachines) -> None:
    offered = machines(2)
    held = [session.work(PROCESS, lambda _: offered) for _ in range(2)]
    assert {work.machine for work in held} == set(offered)
    with pytest.raises(bmdb.WorkConflictError):
        session.work(PROCESS, lambda _: offered)
