"""What the tests of loops share: machines that need an agent, loops of either kind, and running them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

import bmdb
from tests.conftest import MakeMachines
from tests.processes import eventually

PROCESS = "ShepherdAgentStart"

# Makes a loop of a function that is given the work; what it returns is awaited where that makes sense.
MakeLoop = Callable[..., bmdb.Loop[Any]]
Start = Callable[..., bmdb.Runner]


def waiting(q: Any) -> Any:
    """The retrieval of the tests: machines that need an agent."""
    return q.machines_for_agent_start(16, "Equinix")


def agent_started(work: Any) -> Callable[[Any], Any]:
    """What finishes the work, so that the machine does not match any more."""
    return lambda q: q.machine_set_agent_started(work.machine, datetime.now(UTC), b"key")


@pytest.fixture
def provided(machines: MakeMachines, sql: psycopg.Connection[Any]) -> MakeMachines:
    """A function that makes so many machines that need an agent."""
    numbers = iter(range(1_000_000))

    def make(count: int) -> list[UUID]:
        made = machines(count)
        for machine in made:
            sql.execute(
                "INSERT INTO machine_provided (machine_id, provider, provider_id) VALUES (%s, 'Equinix', %s)",
                [machine, f"unit-{next(numbers)}"],
            )
        return made

    return make


@pytest.fixture(params=["threads", "tasks"])
def make_loop(request: pytest.FixtureRequest) -> MakeLoop:
    """A function that makes a loop of a plain function, or of an `async def` that does the same; without a pace."""

    def make(body: Callable[[Any], Any], process: str | bmdb.Process = PROCESS, **settings: Any) -> bmdb.Loop[Any]:
        decorate = bmdb.loop(process, **{"retrieve": waiting, "rate": 0.0, "max_idle": 0.5, **settings})
        if request.param == "threads":
            return decorate(body)

        @functools.wraps(body)
        async def fn(work: Any) -> Any:
            answer = body(work)
            return await answer if inspect.isawaitable(answer) else answer

        return decorate(fn)

    return make


@pytest.fixture
def start(database: str) -> Iterator[Start]:
    """A function that starts a runner on the database (or another conninfo=), ended with the test at once."""
    with ExitStack() as stack:

        def run(*loops: bmdb.Loop[Any], conninfo: str = database, **settings: Any) -> bmdb.Runner:
            runner = bmdb.Runner(loops, conninfo, **settings).start()

            def end() -> None:
                runner.stop(now=True)
                assert runner.wait(20.0)

            stack.callback(end)
            return runner

        yield run


@pytest.fixture
def events(sql: psycopg.Connection[Any]) -> Callable[[], list[tuple[str, str | None]]]:
    """A function that answers what history holds beside the starts: (event, cause), oldest first."""

    def read() -> list[tuple[str, str | None]]:
        return sql.execute(
            "SELECT event, failed_cause FROM work_history WHERE event <> 'Started' ORDER BY timestamp"
        ).fetchall()

    return read


@pytest.fixture
def has_leases(sql: psycopg.Connection[Any]) -> Callable[[int], bool]:
    """A function that waits until so many leases are held, and answers True."""

    def wait(count: int) -> bool:
        eventually(lambda: sql.execute("SELECT count(*) FROM work").fetchone() == (count,))
        return True

    return wait
