"""The user's own exceptions are never lost, and never taken for something else."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
from typing import Any

import psycopg
import pytest
from tests.conftest import MakeMachines
from tests.drivers import Driver
from tests.proxy import Proxy

import bmdb


async def test_leaving_a_session_by_an_exception_keeps_it_although_closing_fails(
    proxy: Proxy, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    mine = RuntimeError("mine")
    refusing = contextlib.ExitStack()
    async with await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection:
        with refusing:

            async def leave_by_it() -> None:
                async with await connection.start_session() as session:
                    assert await session.transact(lambda q: q.count_machines()) == 0
                    refusing.enter_context(proxy.refusing())
                    proxy.reset()
                    raise mine

            with pytest.raises(RuntimeError) as caught:
                await leave_by_it()
    assert caught.value is mine
    assert any("could not close session" in r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)


async def test_another_connections_failure_is_an_exception_like_any_other(
    session: bmdb.AsyncSession, driver: Driver
) -> None:
    runs: list[int] = []
    theirs = bmdb.ConnectionFailedError("some other server")

    def fn(q: bmdb.AsyncQueries) -> None:
        runs.append(1)
        raise theirs

    with pytest.raises(bmdb.ConnectionFailedError) as caught:
        await session.transact(fn, **driver)
    assert caught.value is theirs
    assert runs == [1]


async def test_exhausted_retries_name_the_callbacks_own_exception(session: bmdb.AsyncSession, driver: Driver) -> None:
    theirs = psycopg.errors.SerializationFailure("of another database")

    def fn(q: bmdb.AsyncQueries) -> None:
        raise theirs

    with pytest.raises(bmdb.RetriesExhaustedError) as caught:
        await session.transact(fn, max_retries=2, **driver)
    assert caught.value.attempts == 3
    assert caught.value.__cause__ is theirs


async def test_an_error_of_the_end_keeps_the_callbacks_exception_in_its_chain(
    proxy: Proxy, database: str, machines: MakeMachines
) -> None:
    mine = LookupError("mine")
    async with (
        await bmdb.AsyncConnection.connect(proxy.conninfo(database), component="test") as connection,
        await connection.start_session() as session,
    ):

        async def fn(q: bmdb.AsyncQueries) -> None:
            await q.count_machines()
            try:
                raise mine
            except LookupError:
                await q.execute("INSERT INTO machines (machine_id) VALUES (NULL)")

        with pytest.raises(bmdb.DatabaseError) as caught:
            await session.transact(fn)
    assert caught.value.__context__ is mine


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.migrate(),
        lambda c: c.schema_version(),
        lambda c: c.start_session(),
        lambda c: c.collect(),
        lambda c: c.tags(),
        lambda c: c.history_of("00000000-0000-0000-0000-000000000000"),
    ],
    ids=["migrate", "schema_version", "start_session", "collect", "tags", "history_of"],
)
@pytest.mark.timeout(20)
async def test_the_connection_is_not_for_use_inside_a_callback(database: str, call: Any) -> None:
    async with (
        await bmdb.AsyncConnection.connect(database, component="test", pool_size=1) as connection,
        await connection.start_session() as session,
    ):
        with pytest.raises(bmdb.WorkStateError, match="inside another one's callback"):
            await session.transact(lambda q: call(connection))


async def test_what_stands_for_something_is_not_copied(session: bmdb.AsyncSession, machines: MakeMachines) -> None:
    offered = machines(1)
    work = await session.work("UnitTest1", lambda q: offered)
    for thing in (session.connection, session, work):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied"):
                duplicate(thing)
    await work.finish()


async def test_an_absurd_pool_is_refused(database: str) -> None:
    with pytest.raises(bmdb.ConfigError, match="pool_size"):
        await bmdb.AsyncConnection.connect(database, component="test", pool_size=2**62)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_amid_a_conflict_is_no_conflict(
    kind: type[BaseException], session: bmdb.AsyncSession, driver: Driver
) -> None:
    """It has the conflict in its context; taken for one, the callback would run again and the program go on."""
    runs: list[int] = []

    async def fn(q: bmdb.AsyncQueries) -> None:
        runs.append(1)
        try:
            raise bmdb.DatabaseError("again", "40001")
        except bmdb.DatabaseError:
            raise kind  # noqa: B904 - the point of the test

    with pytest.raises(kind):
        await session.transact(fn, max_retries=1, **driver)
    assert runs == [1]
