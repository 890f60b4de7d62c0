"""Which session, machine, process and token log records are about."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import structlog

import bmdb
from bmdb import logs
from tests.conftest import MakeMachines
from tests.processes import eventually

NAMES = ("bmdb_session", "bmdb_machine", "bmdb_process", "bmdb_token")
NEEDS = bmdb.eligible(lacking=["agent_started"])
NOTHING = (None, None, None, None)


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self, *filters: logging.Filter) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        for each in filters:
            self.addFilter(each)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self) -> list[tuple[Any, ...]]:
        """The fields of each; AttributeError for one that lacks any."""
        return [tuple(getattr(record, name) for name in NAMES) for record in self.records]


@pytest.fixture
def own() -> Iterator[tuple[logging.Logger, Kept]]:
    """A logger of the user's, whose handler gives the fields."""
    logger, kept = logging.getLogger("fleet"), Kept(logs.Fields())
    logger.addHandler(kept)
    yield logger, kept
    logger.removeHandler(kept)


@pytest.fixture
def ours() -> Iterator[Kept]:
    """A handler of bmdb's records, without a filter."""
    logger, kept = logging.getLogger("bmdb"), Kept()
    before = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(before)


def about(work: bmdb.Work | bmdb.AsyncWork) -> tuple[Any, ...]:
    return (str(work.session.uuid), str(work.machine), work.process, work.token)


def test_in_a_work_block_the_users_records_say_so(
    own: tuple[logging.Logger, Kept], session: bmdb.Session, machines: MakeMachines
) -> None:
    logger, kept = own
    machines(2)
    logger.warning("before")
    with session.work("Fix", NEEDS) as first:
        logger.warning("in it")
        with session.work("Fix", NEEDS) as second:
            logger.warning("deeper")
            with second:
                logger.warning("again")
        logger.warning("back")
    logger.warning("after")
    assert kept.fields() == [NOTHING, about(first), about(second), about(second), about(first), NOTHING]
    assert all(isinstance(record.process, int) for record in kept.records)


def test_an_error_in_the_block_ends_it_too(
    own: tuple[logging.Logger, Kept], session: bmdb.Session, machines: MakeMachines
) -> None:
    logger, kept = own
    machines(1)
    with pytest.raises(LookupError), session.work("Fix", NEEDS):
        raise LookupError
    logger.warning("after")
    assert kept.fields() == [NOTHING]


async def test_tasks_do_not_mix_theirs_up(
    own: tuple[logging.Logger, Kept], database: str, machines: MakeMachines
) -> None:
    logger, kept = own
    machines(3)
    expected = set()
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session() as session,
    ):

        async def one() -> None:
            async with session.work("Fix", NEEDS) as work:
                await asyncio.sleep(0.05)
                logger.warning("in a task")
                await asyncio.to_thread(logger.warning, "in a thread of it")
                expected.add(about(work))
                await work.finish()
            logger.warning("after")

        await asyncio.gather(one(), one(), one())
    assert len(expected) == 3
    assert {fields: kept.fields().count(fields) for fields in {*expected, NOTHING}} == {
        **dict.fromkeys(expected, 2),
        NOTHING: 3,
    }


async def test_a_block_that_is_left_in_another_context_disturbs_nothing(
    own: tuple[logging.Logger, Kept], database: str, machines: MakeMachines
) -> None:
    logger, kept = own
    machines(1)
    async with (
        await bmdb.AsyncConnection.connect(database, component="test") as connection,
        await connection.start_session() as session,
    ):

        async def generates() -> AsyncIterator[int]:
            work = await session.work("Fix", NEEDS)
            before = logs.enter(work)
            try:
                yield 1
            finally:
                logs.leave(work, before)

        generator = generates()
        task = asyncio.create_task(anext(generator), context=contextvars.copy_context())  # type: ignore[arg-type]
        await task
        await generator.aclose()
    logger.warning("after")
    assert kept.fields() == [NOTHING]


def test_fields_that_a_record_has_already_stay(own: tuple[logging.Logger, Kept]) -> None:
    logger, kept = own
    logger.warning("mine", extra={"bmdb_machine": "seven"})
    assert kept.fields() == [(None, "seven", None, None)]


def test_every_record_of_bmdbs_own_has_them(
    ours: Kept, connection: bmdb.Connection, machines: MakeMachines, sql: psycopg.Connection[Any]
) -> None:
    machines(1)
    session = connection.start_session(interval=1)
    work = session.work("Fix", NEEDS)
    work.fail("no")
    sql.execute("DELETE FROM work_backoff")
    overdue = session.work("Fix", NEEDS, max_hold=0.05)
    eventually(lambda: overdue.lost)
    sql.execute("DELETE FROM sessions")
    eventually(lambda: session.expired)
    eventually(lambda: any("is gone" in record.getMessage() for record in ours.records))
    told = dict(zip([record.getMessage() for record in ours.records], ours.fields(), strict=True))
    without = next(fields for message, fields in told.items() if "without a backoff" in message)
    assert without == about(work)
    late = next(fields for message, fields in told.items() if "is lost" in message and "token" in message)
    assert late == about(overdue)
    gone = next(fields for message, fields in told.items() if "is gone" in message)
    assert gone == (str(session.uuid), None, None, None)


def test_each_logger_of_bmdbs_gives_them() -> None:
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "bmdb"]
    used = [name for name in names if isinstance(logging.root.manager.loggerDict[name], logging.Logger)]
    assert {"bmdb", "bmdb.work", "bmdb.session", "bmdb.loops", "bmdb.foreign"} <= set(used)
    for name in used:
        assert any(isinstance(each, logs.Fields) for each in logging.getLogger(name).filters), name


def test_a_loops_function_is_inside(
    own: tuple[logging.Logger, Kept], ours: Kept, database: str, machines: MakeMachines
) -> None:
    logger, kept = own
    (machine,) = machines(1)

    @bmdb.loop(bmdb.Process("Fix", eligible=NEEDS, backoff=bmdb.Backoff(600)))
    def fix(work: bmdb.Work) -> None:
        logger.warning("working")
        raise LookupError

    with bmdb.Runner(fix, database):
        eventually(lambda: any("failed on machine" in record.getMessage() for record in ours.records))
    ((_, where, process, token),) = kept.fields()
    assert (where, process, token) == (str(machine), "Fix", 1)
    failed = [fields for record, fields in zip(ours.records, ours.fields(), strict=True) if "failed on" in record.msg]
    assert failed == kept.fields()


def test_structlog_gets_plain_names(session: bmdb.Session, machines: MakeMachines) -> None:
    machines(1)
    with structlog.testing.capture_logs(processors=[logs.add_fields]) as captured:
        logger = structlog.get_logger()
        logger.info("before")
        with session.work("Fix", NEEDS) as work:
            logger.info("in it", machine="mine")
    names = ("session", "machine", "process", "token")
    assert [tuple(event[name] for name in names) for event in captured] == [
        NOTHING,
        (str(session.uuid), "mine", "Fix", work.token),
    ]


def test_structlog_gets_those_of_the_record() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    renderer = structlog.processors.KeyValueRenderer(key_order=["session", "machine", "process", "token", "event"])
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[logs.add_fields, structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logger = logs.logger("bmdb.test")
    logger.addHandler(handler)
    try:
        logger.warning("gone", extra=logs.About("s", "m", "p", 7).extra)
    finally:
        logger.removeHandler(handler)
    assert out.getvalue() == "session='s' machine='m' process='p' token=7 event='gone'\n"
