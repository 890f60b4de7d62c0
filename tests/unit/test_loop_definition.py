"""What `bmdb.loop` makes of a function, and what it refuses."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import timedelta
from typing import Any

import pytest

import bmdb


def retrieve(q: Any) -> list[Any]:
    return []


@bmdb.loop("UnitTest1", retrieve=retrieve)
def plain(work: bmdb.Work) -> None:
    """A loop that can be imported."""


@bmdb.loop("UnitTest1", retrieve=retrieve)
async def asynchronous(work: bmdb.AsyncWork) -> None:
    """The same, async."""


def renamed(work: bmdb.Work) -> None:
    """Not to be found by its name."""


def test_defaults() -> None:
    assert (plain.process, plain.name, plain.processor) == (bmdb.Process("UnitTest1"), "plain", "UnitTest1")
    assert (plain.parallelism, plain.interval, plain.rate, plain.burst, plain.max_idle) == (1, 5.0, 0.25, 8, 5.0)
    assert (plain.executor, plain.asynchronous) == ("threads", False)
    assert (asynchronous.executor, asynchronous.asynchronous) == ("tasks", True)


def test_the_function_stays_callable() -> None:
    @bmdb.loop("UnitTest1", retrieve=retrieve)
    def echo(work: Any) -> Any:
        return work

    assert echo.fn(7) == 7


def test_a_loop_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.parallelism = 2  # type: ignore[misc]


def test_durations_may_be_timedeltas() -> None:
    made = bmdb.loop(
        "UnitTest1", retrieve=retrieve, interval=timedelta(seconds=7), rate=timedelta(milliseconds=1), max_idle=60
    )(renamed)
    assert (made.interval, made.rate, made.max_idle) == (7.0, 0.001, 60.0)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"parallelism": 0}, ValueError, "parallelism must lie between 1 and 10000, not 0"),
        ({"parallelism": 2.0}, TypeError, "parallelism must be an int"),
        ({"interval": 0.5}, ValueError, "interval must be 1 seconds or more, not 0.5"),
        ({"interval": "5"}, TypeError, "interval must be seconds or a timedelta"),
        ({"rate": -1}, ValueError, "rate must be 0 seconds or more"),
        ({"rate": float("nan")}, ValueError, "rate must be"),
        ({"burst": 0}, ValueError, "burst must lie"),
        ({"max_idle": 0}, ValueError, "max_idle must be"),
        ({"executor": "fork"}, ValueError, "executor must be None"),
        ({"executor": "tasks"}, ValueError, "cannot run a plain function"),
        ({"processes": 2}, ValueError, "processes needs executor='process'"),
        ({"isolation": "chaos"}, ValueError, "isolation must be one of"),
        ({"retrieve": 7}, TypeError, "callback must be callable"),
        ({"process": ""}, ValueError, "process"),
        ({"process": 7}, TypeError, "name must be a str"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    given = {"process": "UnitTest1", "retrieve": retrieve, **settings}
    with pytest.raises(error, match=text):
        bmdb.loop(given.pop("process"), **given)(renamed)


def test_functions_that_nothing_would_run_are_refused() -> None:
    def generates(work: Any) -> Any:
        yield work

    async def looks(q: Any) -> list[Any]:
        return []

    with pytest.raises(TypeError, match="generator function"):
        bmdb.loop("UnitTest1", retrieve=retrieve)(generates)
    with pytest.raises(TypeError, match="async def"):
        bmdb.loop("UnitTest1", retrieve=looks)(renamed)
    with pytest.raises(ValueError, match="cannot run an async def"):
        bmdb.loop("UnitTest1", retrieve=looks, executor="threads")(asynchronous.fn)


def test_a_loop_goes_to_another_process_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(plain)) is plain
    hidden = bmdb.loop("UnitTest1", retrieve=retrieve)(renamed)
    with pytest.raises(ValueError, match="is no loop"):
        pickle.loads(pickle.dumps(hidden))


@pytest.mark.parametrize(
    ("loops", "error", "text"),
    [([], ValueError, "no loop"), ([renamed], TypeError, "made by the decorator"), (plain, ValueError, "grace")],
)
def test_a_runner_refuses_what_it_cannot_run(loops: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        bmdb.Runner(loops, "embedded:", grace=-1.0)


ELIGIBLE = bmdb.eligible(lacking=("done",))


@pytest.mark.parametrize(
    ("process", "given"), [(bmdb.Process("UnitTest1", eligible=ELIGIBLE), None), ("UnitTest1", ELIGIBLE)]
)
def test_what_is_declared_needs_no_callback_and_no_pace(process: Any, given: Any) -> None:
    for fn in (renamed, asynchronous.fn):
        made = bmdb.loop(process, retrieve=given)(fn)
        assert (made.retrieve, made.rate) == (given, 0.0)
    assert bmdb.loop(process, retrieve=given, rate=2)(renamed).rate == 2.0
    assert bmdb.loop(process, retrieve=retrieve)(renamed).rate == 0.25
    with pytest.raises(ValueError, match="isolation is for a callback"):
        bmdb.loop(process, retrieve=given, isolation="serializable")


def test_one_of_both_is_needed() -> None:
    with pytest.raises(TypeError, match="which machines"):
        bmdb.loop("UnitTest1")
    with pytest.raises(TypeError, match="which machines"):
        bmdb.loop(bmdb.Process("UnitTest1"))
