"""Whether a callback may run twice: it does here, as after a conflict, and the runs are compared."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from datetime import date, time
from typing import Any, TypeVar, cast, overload

import bmdb
from bmdb._core import Row
from bmdb.testing.hand import STATEMENTS
from bmdb.testing.image import Image, captured, difference, image, learn

__all__ = ["assert_async_callback_is_repeatable", "assert_callback_is_repeatable"]

T = TypeVar("T")

# Values of these kinds differ from run to run where nothing is wrong.
_CLOCKS: tuple[type, ...] = (date, time)
_RETRYABLE = {"40001", "40P01"}


def assert_callback_is_repeatable(
    session: bmdb.Session, fn: Callable[[bmdb.Queries], T], *, ignore: tuple[type, ...] = _CLOCKS, commit: bool = False
) -> T:
    """Run a callback of `transact` twice, the first time into a conflict, and compare what the runs did.

    Both begin on the same state of the database, as the first is rolled back by a serialization failure from the
    server. Compared are the statements (their texts and parameters), what was returned, what was raised, and what is
    left in the Python objects that the callback can reach: its closure, globals that it names, the object that it is
    a method of. Ids that the server made count as equal where each run used its own. A callback that appends to a
    list, takes from a queue, counts, or calls a mock is caught; what it does outside Python objects (files, requests)
    is not seen: give it a mock.

    `ignore` are types whose values may differ: dates and times unless said otherwise, since a clock goes on. Without
    `commit` the second run is rolled back, too. Returns what the second run returned.

    Raises AssertionError that says what differed; what the first run raised, unchanged; and what `Session.transact`
    raises.
    """
    trial = _Trial(fn, ignore)

    def twice(q: bmdb.Queries) -> T:
        recorder = _Recorder(q._core)
        try:
            result = fn(bmdb.Queries(cast(Any, recorder)))
        except Exception as error:
            trial.raised(error)
            raise
        if trial.ran(recorder, result):
            q.execute(STATEMENTS["conflict"])
        if not commit:
            raise _Enough
        return result

    with contextlib.suppress(_Enough):
        session.transact(twice, max_retries=50)
    return cast(T, trial.outcome())


@overload
async def assert_async_callback_is_repeatable(
    session: bmdb.AsyncSession,
    fn: Callable[[bmdb.AsyncQueries], Awaitable[T]],
    *,
    ignore: tuple[type, ...] = ...,
    commit: bool = False,
) -> T: ...


@overload
async def assert_async_callback_is_repeatable(
    session: bmdb.AsyncSession,
    fn: Callable[[bmdb.AsyncQueries], T],
    *,
    ignore: tuple[type, ...] = ...,
    commit: bool = False,
) -> T: ...


async def assert_async_callback_is_repeatable(
    session: bmdb.AsyncSession,
    fn: Callable[[bmdb.AsyncQueries], Any],
    *,
    ignore: tuple[type, ...] = _CLOCKS,
    commit: bool = False,
) -> Any:
    """`assert_callback_is_repeatable` for a callback of `AsyncSession.transact`, an `async def` or a plain function."""
    trial = _Trial(fn, ignore)

    async def twice(q: bmdb.AsyncQueries) -> Any:
        recorder = _AsyncRecorder(q._core)
        try:
            returned = fn(bmdb.AsyncQueries(cast(Any, recorder)))
            result = await returned if inspect.isawaitable(returned) else returned
        except Exception as error:
            trial.raised(error)
            raise
        if trial.ran(recorder, result):
            await q.execute(STATEMENTS["conflict"])
        if not commit:
            raise _Enough
        return result

    with contextlib.suppress(_Enough):
        await session.transact(twice, max_retries=50)
    return trial.outcome()


class _Enough(Exception):
    """Rolls the second run back."""


class _Recorder:
    """Runs statements and keeps them, with what the server answered."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.sent: list[tuple[str, tuple[object, ...], Any]] = []

    def _kept(self, what: str, params: tuple[object, ...], answer: Any) -> Any:
        self.sent.append((what, params, answer))
        return answer

    def call(self, name: str, params: tuple[object, ...]) -> list[Row]:
        return cast(list[Row], self._kept(name, params, self._core.call(name, params)))

    def call_count(self, name: str, params: tuple[object, ...]) -> int:
        return cast(int, self._kept(name, params, self._core.call_count(name, params)))

    def fetch(self, sql: str, params: tuple[object, ...]) -> list[Row]:
        return cast(list[Row], self._kept(sql, params, self._core.fetch(sql, params)))

    def execute(self, sql: str, params: tuple[object, ...]) -> int:
        return cast(int, self._kept(sql, params, self._core.execute(sql, params)))


class _AsyncRecorder(_Recorder):
    """The same for async callbacks."""

    async def call_async(self, name: str, params: tuple[object, ...]) -> list[Row]:
        return cast(list[Row], self._kept(name, params, await self._core.call_async(name, params)))

    async def call_count_async(self, name: str, params: tuple[object, ...]) -> int:
        return cast(int, self._kept(name, params, await self._core.call_count_async(name, params)))

    async def fetch_async(self, sql: str, params: tuple[object, ...]) -> list[Row]:
        return cast(list[Row], self._kept(sql, params, await self._core.fetch_async(sql, params)))

    async def execute_async(self, sql: str, params: tuple[object, ...]) -> int:
        return cast(int, self._kept(sql, params, await self._core.execute_async(sql, params)))


class _Trial:
    """Two runs of one callback, and what differed between them."""

    def __init__(self, fn: Callable[..., Any], ignore: tuple[type, ...]) -> None:
        self._fn = fn
        self._ignore = ignore
        self._runs: list[tuple[_Recorder, Image, Image]] = []
        self._result: object = None

    def ran(self, recorder: _Recorder, result: object) -> bool:
        """Note a run that returned; True if it was the first, and must run again."""
        left = captured(self._fn, self._ignore)
        self._runs.append((recorder, image(result, self._ignore), left))
        self._result = result
        return len(self._runs) == 1

    def raised(self, error: Exception) -> None:
        """Judge a run that raised: after one that did not, only a conflict with others may."""
        conflict = isinstance(error, bmdb.DatabaseError) and error.sqlstate in _RETRYABLE
        if self._runs and not conflict and not isinstance(error, bmdb.ConnectionFailedError):
            raise AssertionError(
                f"the callback is not repeatable: run again, it raised {type(error).__name__}: {error}"
            ) from error

    def outcome(self) -> object:
        """What the second run returned. Raises AssertionError if it did anything else than the first."""
        assert len(self._runs) == 2, f"the callback ran {len(self._runs)} times"
        (first, returned, left), (second, returned_again, left_again) = self._runs
        found = self._statements(first, second)
        if found is None and (where := difference(returned, returned_again, self._same)) is not None:
            found = f"it returned something else{where}"
        if found is None and (where := difference(left, left_again, self._same)) is not None:
            found = f"it left a trace outside the database{where}"
        if found is not None:
            raise AssertionError(f"the callback is not repeatable: run again after a conflict, {found}")
        return self._result

    def _statements(self, first: _Recorder, second: _Recorder) -> str | None:
        self._same: dict[Image, Image] = {}
        for number, (one, other) in enumerate(zip(first.sent, second.sent, strict=False), 1):
            if one[0] != other[0]:
                return f"its statement {number} was {other[0]!r} instead of {one[0]!r}"
            where = difference(image(one[1], self._ignore), image(other[1], self._ignore), self._same)
            if where is not None:
                return f"statement {number} ({one[0]!r}) had other parameters{where}"
            learn(image(one[2], self._ignore), image(other[2], self._ignore), self._same)
        if len(first.sent) != len(second.sent):
            return f"it sent {len(second.sent)} statements instead of {len(first.sent)}"
        return None
