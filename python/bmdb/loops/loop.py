"""The definition of a loop: which machines it looks for, what it does with one, and how many at once."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from bmdb._async.queries import AsyncQueries
from bmdb._async.work import AsyncWork
from bmdb._core import Change, Eligibility
from bmdb._sync.queries import Queries
from bmdb._sync.work import Work
from bmdb.callbacks import check_callback
from bmdb.process import Process

__all__ = ["Loop", "loop"]

# What a function may return: what finishes its work, or several parts of it.
Finish = Callable[[Queries], object] | Change | tuple[Callable[[Queries], object] | Change, ...]
AsyncFinish = Callable[[AsyncQueries], object] | Change | tuple[Callable[[AsyncQueries], object] | Change, ...]
Executor = Literal["threads", "tasks", "process"]

F = TypeVar("F", bound=Callable[..., Any])
SyncF = TypeVar("SyncF", bound=Callable[[Work], Finish | None])
AsyncF = TypeVar("AsyncF", bound=Callable[[AsyncWork], Awaitable[AsyncFinish | None]])

_ISOLATIONS = ("serializable", "repeatable read", "read committed")


@dataclass(frozen=True, eq=False)
class Loop(Generic[F]):
    """Work for `bmdb.run` and `bmdb run`, made by the decorator `bmdb.loop`, which explains the settings.

    Frozen. The function stays callable, as `.fn`.
    """

    process: Process
    fn: F = field(repr=False)
    retrieve: Callable[[Any], Any] | Eligibility | None = field(repr=False, default=None)
    parallelism: int = 1
    interval: float = 5.0
    executor: Executor = "threads"
    processes: int = 1
    rate: float = 0.25
    burst: int = 8
    max_idle: float = 5.0
    isolation: str | None = None
    processor: str = "unknown"

    @property
    def name(self) -> str:
        """The function's name, for logs, health and the component that history shows."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    @property
    def asynchronous(self) -> bool:
        """Whether the function is an `async def`."""
        return _is_async(self.fn)

    @property
    def reference(self) -> str:
        """Where another process can import this loop, as `module:name`."""
        return f"{self.fn.__module__}:{getattr(self.fn, '__qualname__', self.name)}"

    def __reduce__(self) -> tuple[object, ...]:
        return (imported, (self.reference,))


def imported(reference: str) -> Loop[Any]:
    """The loop of that reference; ValueError when something else, or nothing, is there."""
    module, _, path = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Loop):
        raise ValueError(
            f"{reference} is no loop: one that runs in processes of its own must be found there by its function's name"
        )
    return found


class _Decorator:
    """Makes a Loop of a function."""

    def __init__(self, settings: dict[str, Any], executor: Executor | None) -> None:
        self._settings = settings
        self._executor = executor

    @overload
    def __call__(self, fn: AsyncF, /) -> Loop[AsyncF]: ...
    @overload
    def __call__(self, fn: SyncF, /) -> Loop[SyncF]: ...
    def __call__(self, fn: Any, /) -> Loop[Any]:
        asynchronous = _is_async(fn)
        check_callback(fn, asynchronous=True)
        retrieve = self._settings["retrieve"]
        if retrieve is not None and not isinstance(retrieve, Eligibility):
            check_callback(retrieve, asynchronous=asynchronous)
        if self._executor == ("threads" if asynchronous else "tasks"):
            kind = "an async def" if asynchronous else "a plain function"
            raise ValueError(f"executor={self._executor!r} cannot run {kind}: leave the executor out")
        executor = self._executor or ("tasks" if asynchronous else "threads")
        return Loop(fn=fn, executor=executor, **self._settings)


def loop(
    process: str | Process,
    *,
    retrieve: Callable[[Any], Iterable[Any] | Awaitable[Iterable[Any] | None] | None] | Eligibility | None = None,
    parallelism: int = 1,
    interval: float | timedelta = 5.0,
    executor: Executor | None = None,
    processes: int = 1,
    rate: float | timedelta | None = None,
    burst: int = 8,
    max_idle: float | timedelta = 5.0,
    isolation: str | None = None,
    processor: str | None = None,
) -> _Decorator:
    """Makes a loop of a function that works on one machine: `def` or `async def`, called with the leased work.

    What the function returns finishes the work: `bmdb.set_tag(…)`, `bmdb.clear_tag(…)`, a callback that is called with
    the queries of that transaction, maybe many times, or a tuple of these; with None it is just finished.
    `raise bmdb.Retry(after=…)` fails the work for that time, `raise bmdb.Cancel` gives the machine back, any other
    exception fails the work with "TypeName: text" as the cause and `work.backoff`, which is the process's unless the
    function has replaced it. A function that has ended the work itself is left its way.

    * `process`: a Process, or the name of one with default settings.
    * `retrieve`: which machines need the process, unless the Process says it by `eligible`: `bmdb.eligible(…)`, or a
      callback, called with queries, which returns machine ids or rows that have one, as for `Session.work`. It may run
      many times and should only read. For an `async def` it gets AsyncQueries, and may be one itself.
    * `parallelism`: how many machines to work on at once, in each OS process.
    * `interval`: of the session that they share, in seconds: see `start_session`.
    * `executor`: None runs a plain function on threads and an `async def` as tasks of one event loop. "process": the
      same, in `processes` OS processes of its own, started by spawn, so that the module must be importable.
    * `rate`, `burst`: one retrieval each `rate` seconds, after `burst` at once, for all instances of an OS process; by
      default 0.25 for a callback, and no such limit where instances that look at the same time share one claim.
    * `max_idle`: the longest pause between two looks, in seconds, while there is nothing to do.
    * `isolation`: of claims by a callback: "repeatable read" wastes less where it looks at machines and tags only.
    * `processor`: the label of its metrics; by default the process's name.

    Raises TypeError or ValueError, naming the setting, for what makes no sense.
    """
    if not isinstance(process, Process):
        process = Process(process)
    if executor not in (None, "threads", "tasks", "process"):
        raise ValueError(f"executor must be None, 'threads', 'tasks' or 'process', not {executor!r}")
    if isolation is not None and isolation not in _ISOLATIONS:
        raise ValueError(f"isolation must be one of {', '.join(map(repr, _ISOLATIONS))}, not {isolation!r}")
    eligibility = retrieve if isinstance(retrieve, Eligibility) else process.eligible if retrieve is None else None
    if retrieve is None and eligibility is None:
        raise TypeError("which machines? Give the Process eligible=, or the loop retrieve=")
    if eligibility is not None and isolation is not None:
        raise ValueError("isolation is for a callback: what is declared by bmdb.eligible is claimed at read committed")
    if rate is None:
        rate = 0.25 if eligibility is None else 0.0
    if processes != 1 and executor != "process":
        raise ValueError("processes needs executor='process'")
    settings = {
        "process": process,
        "retrieve": retrieve,
        "parallelism": _count("parallelism", parallelism),
        "interval": _seconds("interval", interval, least=1.0),
        "processes": _count("processes", processes),
        "rate": _seconds("rate", rate, least=0.0),
        "burst": _count("burst", burst),
        "max_idle": _seconds("max_idle", max_idle, least=0.01),
        "isolation": isolation,
        "processor": process.name if processor is None else str(processor),
    }
    return _Decorator(settings, executor)


def _is_async(fn: Any) -> bool:
    called = fn if inspect.isroutine(fn) else getattr(fn, "func", None) or getattr(fn, "__call__", fn)  # noqa: B004
    return inspect.iscoroutinefunction(called)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 1 <= value <= 10_000:
        raise ValueError(f"{name} must lie between 1 and 10000, not {value}")
    return value


def _seconds(name: str, value: object, *, least: float) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be {least:g} seconds or more, not {value}")
    return float(value)
