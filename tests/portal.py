"""The async API with the methods of the sync one: so that one test of a fault serves both twins.

An event loop runs in a thread of its own; each call is a task of it, for which its caller waits. A callback runs
in a thread, too, and what it asks of its queries is awaited by the task that the transaction belongs to.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Self, cast

import bmdb

# Runs a call on the loop, and answers what it answers, awaited.
Submit = Callable[[Callable[[], Any]], Any]

# The methods that take callbacks which may use the database; what others take is called as it is.
TRANSACTIONAL = {"transact", "work", "finish", "fail", "cancel"}
OURS = (bmdb.AsyncConnection, bmdb.AsyncSession, bmdb.AsyncWork, bmdb.AsyncQueries)


async def awaited(call: Callable[[], Any]) -> Any:
    """What the call answers, which may be awaitable or not."""
    answer = call()
    return await answer if inspect.isawaitable(answer) else answer


class Portal:
    """The event loop, in a thread until the interpreter ends; and threads for callbacks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._callbacks = ThreadPoolExecutor(64, "callback")
        self._inside = threading.local()
        threading.Thread(target=self._loop.run_forever, name="portal", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Any:
        """Run the call in a task of its own, or, if a callback makes it, in that of its transaction."""
        inside: Submit | None = getattr(self._inside, "submit", None)
        try:
            if inside is not None:
                return inside(call)
            return asyncio.run_coroutine_threadsafe(awaited(call), self._loop).result()
        except bmdb.AmbiguousCommitError as error:
            ask = error.aresolve
            vars(error)["resolve"] = lambda timeout=30.0: self.submit(lambda: ask(timeout))
            raise

    async def carry(self, fn: Callable[[Any], Any], q: Any) -> Any:
        """Run a callback in a thread, and what it asks for in this task. Cancelled, it leaves the thread to itself."""
        asked: asyncio.Queue[tuple[Callable[[], Any], Future[Any]] | None] = asyncio.Queue()

        def submit(call: Callable[[], Any]) -> Any:
            answer: Future[Any] = Future()
            self._loop.call_soon_threadsafe(asked.put_nowait, (call, answer))
            return answer.result()

        def run() -> Any:
            self._inside.submit = submit
            try:
                return fn(Facade(q))
            finally:
                self._inside.submit = None

        running = self._loop.run_in_executor(self._callbacks, run)
        running.add_done_callback(lambda _: asked.put_nowait(None))
        while (request := await asked.get()) is not None:
            call, answer = request
            try:
                answer.set_result(await awaited(call))
            except asyncio.CancelledError as error:
                answer.set_exception(error)
                raise
            except BaseException as error:
                answer.set_exception(error)
        return await running


@cache
def portal() -> Portal:
    """The one of this process."""
    return Portal()


class Facade:
    """A connection, session, work or queries of the async API, whose methods block."""

    def __init__(self, subject: Any) -> None:
        vars(self).update(_subject=subject)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._subject, name)
        if not callable(found):
            return self._shown(found)

        def call(*arguments: Any, **named: Any) -> Any:
            given = [self._given(name, each) for each in arguments]
            also = {key: self._given(name, each) for key, each in named.items()}
            return self._shown(portal().submit(lambda: found(*given, **also)))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._subject, name, value)

    def __enter__(self) -> Self:
        portal().submit(self._subject.__aenter__)
        return self

    def __exit__(self, *raised: Any) -> Any:
        return portal().submit(lambda: self._subject.__aexit__(*raised))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._subject)

    def __eq__(self, other: object) -> bool:
        return bool(self._subject == (other._subject if isinstance(other, Facade) else other))

    def __hash__(self) -> int:
        return hash(self._subject)

    def __repr__(self) -> str:
        return repr(self._subject)

    def _shown(self, answer: Any) -> Any:
        if isinstance(answer, OURS):
            return Facade(answer)
        if type(answer) is list:
            return [self._shown(each) for each in answer]
        return answer

    def _given(self, method: str, argument: Any) -> Any:
        if isinstance(argument, Facade):
            return argument._subject
        if type(argument) in (list, tuple):
            return type(argument)(self._given(method, each) for each in argument)
        if method == "on_expired":
            return lambda session: argument(self._shown(session))
        if method in TRANSACTIONAL and callable(argument):
            return partial(portal().carry, argument)
        return argument


def connect(conninfo: str, **settings: Any) -> bmdb.Connection:
    """As bmdb.connect, by AsyncConnection.connect."""
    opened = portal().submit(lambda: bmdb.AsyncConnection.connect(conninfo, **settings))
    return cast(bmdb.Connection, Facade(opened))
