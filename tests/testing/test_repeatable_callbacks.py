"""`assert_callback_is_repeatable` catches callbacks that may not run twice, and no others."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from uuid import UUID

import pytest

import bmdb
from bmdb import testing
from bmdb.testing import assert_async_callback_is_repeatable, assert_callback_is_repeatable

sent: list[str] = []


def machines(session: bmdb.Session) -> int:
    count: int = session.transact(lambda q: q.count_machines())
    return count


def harmless(q: bmdb.Queries) -> Any:
    """The server's ids, the clock, and what the callback makes anew each time may all differ."""
    machine = q.new_machine()
    q.machine_add_provided(machine.machine_id, "Equinix", "x")
    q.machine_set_agent_started(machine.machine_id, datetime.now(UTC), b"key")
    found = [row.machine_id for row in q.fetch("SELECT machine_id FROM machine_provided")]
    return {"machine": machine.machine_id, "found": found, "at": datetime.now(UTC)}


def test_a_callback_without_traces_passes_and_nothing_of_it_lands(bmdb_session: bmdb.Session) -> None:
    answer = assert_callback_is_repeatable(bmdb_session, harmless)
    assert isinstance(answer["machine"], UUID) and answer["found"] == [answer["machine"]]
    assert machines(bmdb_session) == 0


def test_it_is_committed_once_if_asked(bmdb_session: bmdb.Session) -> None:
    answer = assert_callback_is_repeatable(bmdb_session, harmless, commit=True)
    assert machines(bmdb_session) == 1
    assert bmdb_session.transact(lambda q: q.machine(answer["machine"])) is not None


def test_a_result_kept_outside_is_no_trace_if_the_next_run_replaces_it(bmdb_session: bmdb.Session) -> None:
    kept: dict[str, object] = {}

    def keep(q: bmdb.Queries) -> None:
        kept["machine"] = q.new_machine().machine_id

    assert_callback_is_repeatable(bmdb_session, keep)


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def method(self, q: bmdb.Queries) -> None:
        self.calls += 1

    def __call__(self, q: bmdb.Queries) -> None:
        self.calls += 1


def appends() -> Callable[[bmdb.Queries], Any]:
    mails: list[str] = []
    return lambda q: mails.append("sent")


def takes() -> Callable[[bmdb.Queries], Any]:
    names = deque(["a", "b", "c"])

    def take(q: bmdb.Queries) -> None:
        q.machine_add_provided(q.new_machine().machine_id, "Equinix", names.popleft())

    return take


def counts() -> Callable[[bmdb.Queries], Any]:
    number = 0

    def count(q: bmdb.Queries) -> None:
        nonlocal number
        number += 1

    return count


def draws() -> Callable[[bmdb.Queries], Any]:
    numbers = iter(["a", "b", "c"])
    return lambda q: q.fetch_value("SELECT $1::text", next(numbers))


def returns_more() -> Callable[[bmdb.Queries], Any]:
    numbers = itertools.count()
    return lambda q: next(numbers)


def runs_out() -> Callable[[bmdb.Queries], Any]:
    once = ["a"]
    return lambda q: once.pop()


def calls_a_mock() -> Callable[[bmdb.Queries], Any]:
    post = mock.Mock()
    return lambda q: post("https://example.org") and None


def writes_less() -> Callable[[bmdb.Queries], Any]:
    done: set[int] = set()

    def write(q: bmdb.Queries) -> None:
        if not done:
            q.new_machine()
        done.add(1)

    return write


def names_a_global(q: bmdb.Queries) -> None:
    sent.append("x")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (appends, "trace outside the database in mails"),
        (takes, "other parameters"),
        (counts, "trace outside the database in number: 2 instead of 1"),
        (draws, "other parameters"),
        (returns_more, "returned something else: 1 instead of 0"),
        (runs_out, "it raised IndexError"),
        (calls_a_mock, "trace outside the database in post"),
        (writes_less, "0 statements instead of 1"),
        (lambda: names_a_global, "trace outside the database in sent"),
        (lambda: Counting().method, r"trace outside the database in self\.calls"),
        (Counting, r"trace outside the database in self\.calls|in the callable\.calls"),
        (lambda: lambda q: uuid.uuid4(), "returned something else"),
    ],
    ids=[
        "appends", "takes from a queue", "counts", "draws", "returns more", "runs out", "calls a mock", "writes less",
        "a global", "its object", "itself", "makes an id",
    ],
)  # fmt: skip
def test_a_callback_that_may_not_run_twice_is_caught(
    bmdb_session: bmdb.Session, make: Callable[[], Callable[[bmdb.Queries], Any]], told: str
) -> None:
    with pytest.raises(AssertionError, match=f"not repeatable.*(?:{told})"):
        assert_callback_is_repeatable(bmdb_session, make())
    assert machines(bmdb_session) == 0


def test_a_type_may_be_ignored(bmdb_session: bmdb.Session) -> None:
    assert_callback_is_repeatable(bmdb_session, lambda q: uuid.uuid4(), ignore=(UUID,))
    with pytest.raises(AssertionError, match="returned something else"):
        assert_callback_is_repeatable(bmdb_session, lambda q: datetime.now(UTC), ignore=())


def test_what_the_first_run_raises_is_raised(bmdb_session: bmdb.Session) -> None:
    with pytest.raises(bmdb.NothingToDo):
        assert_callback_is_repeatable(bmdb_session, nothing)


def nothing(q: bmdb.Queries) -> None:
    raise bmdb.NothingToDo


def test_conflicts_of_its_own_do_no_harm(bmdb_faults: testing.Faults, bmdb_session: bmdb.Session) -> None:
    with bmdb_faults.conflicts(2, at="INSERT INTO machines") as conflict:
        assert_callback_is_repeatable(bmdb_session, harmless)
    assert conflict.hits == 2


async def test_the_async_twin(bmdb_async_connect: Any) -> None:
    async with bmdb_async_connect() as connection, await connection.start_session() as session:
        mails: list[str] = []

        async def write(q: bmdb.AsyncQueries) -> UUID:
            return (await q.new_machine()).machine_id

        async def mail(q: bmdb.AsyncQueries) -> None:
            await q.new_machine()
            mails.append("sent")

        assert isinstance(await assert_async_callback_is_repeatable(session, write, commit=True), UUID)
        with pytest.raises(AssertionError, match="trace outside the database in mails"):
            await assert_async_callback_is_repeatable(session, mail)
        with pytest.raises(AssertionError, match="trace outside the database in mails"):
            await assert_async_callback_is_repeatable(session, lambda q: mails.append("sent"))
        assert await session.transact(lambda q: q.count_machines()) == 1
