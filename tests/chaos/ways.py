"""Two ways to drive a generator that yields acts: calling them, and awaiting what they return."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import psycopg

import bmdb

RESOLVE_SECONDS = 5.0
Act = Callable[[], Any]
Acts = Generator[Act, Any, Any]


class Way(Protocol):
    """What differs between the two worlds. Everything but `run` and `callback` is called within an act."""

    def run(self, acts: Acts) -> Any:
        """Drive a generator to its end."""

    def callback(self, acts: Callable[[Any], Acts]) -> Callable[[Any], Any]:
        """A callback for the library that drives the generator made for its argument."""

    def hurried(self, act: Act, seconds: float | None) -> Act:
        """The same act, cancelled after so many seconds where that is possible."""

    def together(self, lives: Sequence[Acts]) -> Any:
        """Drive them side by side to their ends."""

    def sleep(self, seconds: float) -> Any: ...

    def connect(self, conninfo: str, component: str) -> Any: ...

    def psycopg(self, conninfo: str, name: str) -> Any: ...

    def resolve(self, error: bmdb.AmbiguousCommitError) -> Any: ...


class Synchronous:
    """Calls, in threads."""

    def run(self, acts: Acts) -> Any:
        resume: Callable[[], Act] = lambda: next(acts)  # noqa: E731
        while True:
            try:
                act = resume()
            except StopIteration as end:
                return end.value
            try:
                value = act()
            except Exception as error:
                resume = lambda error=error: acts.throw(error)  # noqa: E731
            else:
                resume = lambda value=value: acts.send(value)  # noqa: E731

    def callback(self, acts: Callable[[Any], Acts]) -> Callable[[Any], Any]:
        return lambda q: self.run(acts(q))

    def hurried(self, act: Act, seconds: float | None) -> Act:
        return act

    def together(self, lives: Sequence[Acts]) -> None:
        broken: list[BaseException] = []

        def live(life: Acts) -> None:
            try:
                self.run(life)
            except BaseException as error:
                broken.append(error)

        threads = [threading.Thread(target=live, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise broken[0]

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def connect(self, conninfo: str, component: str) -> bmdb.Connection:
        return bmdb.connect(conninfo, component=component)

    def psycopg(self, conninfo: str, name: str) -> Any:
        return psycopg.connect(conninfo, application_name=name, connect_timeout=2)

    def resolve(self, error: bmdb.AmbiguousCommitError) -> bool:
        return error.resolve(RESOLVE_SECONDS)


class Asynchronous:
    """Awaits, in tasks."""

    def run(self, acts: Acts) -> Any:
        return asyncio.run(self._drive(acts))

    async def _drive(self, acts: Acts) -> Any:
        resume: Callable[[], Act] = lambda: next(acts)  # noqa: E731
        while True:
            try:
                act = resume()
            except StopIteration as end:
                return end.value
            try:
                value = await act()
            except (Exception, asyncio.CancelledError) as error:
                resume = lambda error=error: acts.throw(error)  # noqa: E731
            else:
                resume = lambda value=value: acts.send(value)  # noqa: E731

    def callback(self, acts: Callable[[Any], Acts]) -> Callable[[Any], Any]:
        async def call(q: Any) -> Any:
            return await self._drive(acts(q))

        return call

    def hurried(self, act: Act, seconds: float | None) -> Act:
        if seconds is None:
            return act

        async def hurry() -> Any:
            async with asyncio.timeout(seconds):
                return await act()

        return hurry

    async def together(self, lives: Sequence[Acts]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for life in lives:
                tasks.create_task(self._drive(life))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def connect(self, conninfo: str, component: str) -> bmdb.AsyncConnection:
        return await bmdb.AsyncConnection.connect(conninfo, component=component)

    async def psycopg(self, conninfo: str, name: str) -> Any:
        return await psycopg.AsyncConnection.connect(conninfo, application_name=name, connect_timeout=2)

    async def resolve(self, error: bmdb.AmbiguousCommitError) -> bool:
        return await error.aresolve(RESOLVE_SECONDS)
