"""What may be given as a callback, and what it may return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any, cast

from bmdb._core import Change
from bmdb.errors import NothingToDo

# What the flags of a function's code say if calling it runs nothing of it.
_RUNS_LATER = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


def check_callback(fn: Any, *, asynchronous: bool) -> None:
    """Refuses, before anything begins, what cannot serve as a callback.

    Raises TypeError for what is not callable, for a generator function (nothing in it would run), and for an
    `async def` given to a sync method.
    """
    # Nearly all are plain functions, and this is asked at every call. What was noted on one is for inspect to judge.
    if type(fn) is FunctionType and not fn.__code__.co_flags & _RUNS_LATER and not fn.__dict__:
        return
    if not callable(fn):
        raise TypeError(f"the callback must be callable, not {type(fn).__name__}")
    called = fn if inspect.isroutine(fn) else getattr(fn, "func", None) or getattr(fn, "__call__", fn)  # noqa: B004
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError("the callback is a generator function, so calling it runs nothing: return a list instead")
    if not asynchronous and inspect.iscoroutinefunction(called):
        raise TypeError("the callback is an async def, which this sync method cannot await: use the Async classes")


def ending_parts(parts: tuple[object, ...], *, asynchronous: bool) -> tuple[Callable[[Any], Any] | None, list[Change]]:
    """What an end is to write: the callback, if there is one, and the changes of tags.

    Raises TypeError for anything else, and for a second callback.
    """
    callback: Callable[[Any], Any] | None = None
    changes: list[Change] = []
    for part in parts:
        if isinstance(part, Change):
            changes.append(part)
        elif callback is not None:
            raise TypeError("an end has one callback: do both in it")
        else:
            check_callback(part, asynchronous=asynchronous)
            callback = cast(Callable[[Any], Any], part)
    return callback, changes


def check_result(result: object) -> None:
    """Refuses a result that would only come after the transaction, which then rolls back.

    Raises TypeError for generators and for a coroutine that nobody has awaited.
    """
    if not isinstance(result, (CoroutineType, GeneratorType, AsyncGeneratorType)):
        return
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError("the callback returned a coroutine, which nobody would await")
    if isinstance(result, GeneratorType):
        result.close()
    raise TypeError("the callback returned a generator, which would run after its transaction: return a list")


def offered(machines: Any) -> list[Any]:
    """The machines that a retrieval function returned, as a list.

    Raises NothingToDo when there are none, TypeError for what is no collection of machine ids.
    """
    if inspect.iscoroutine(machines):
        machines.close()
    if machines is None:
        raise NothingToDo("retrieve returned no machines")
    if isinstance(machines, str | bytes | dict) or not hasattr(machines, "__iter__"):
        raise TypeError(
            f"retrieve must return machine ids (UUIDs), or rows that have a machine_id, not {type(machines).__name__}"
        )
    listed = list(machines)
    if not listed:
        raise NothingToDo("retrieve returned no machines")
    return listed
