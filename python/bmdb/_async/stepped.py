"""What `run` and the queries need of a transaction, whoever carries it out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal, Protocol

from bmdb._core import Row
from bmdb.tracing import Attempts


class AsyncStatements(Protocol):
    """Runs statements inside an open transaction: bmdb's own by name, the callback's by text."""

    def call_async(self, name: str, params: tuple[object, ...]) -> Awaitable[list[Row]]: ...

    def call_count_async(self, name: str, params: tuple[object, ...]) -> Awaitable[int]: ...

    def fetch_async(self, sql: str, params: tuple[object, ...]) -> Awaitable[list[Row]]: ...

    def execute_async(self, sql: str, params: tuple[object, ...]) -> Awaitable[int]: ...


class AsyncStepped(AsyncStatements, Attempts, Protocol):
    """A transaction over all its attempts: begin, the callback, conclude, and again if it says so."""

    def begin_async(self) -> Awaitable[None]: ...

    def conclude_async(
        self, exception: BaseException | None = None
    ) -> Awaitable[Literal["committed", "again", "raise"]]: ...
