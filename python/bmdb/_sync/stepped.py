# Generated from python/bmdb/_async/stepped.py by tools/generate_sync.py: do not edit.
"""What `run` and the queries need of a transaction, whoever carries it out."""

from __future__ import annotations

from typing import Literal, Protocol

from bmdb._core import Row
from bmdb.tracing import Attempts


class Statements(Protocol):
    """Runs statements inside an open transaction: bmdb's own by name, the callback's by text."""

    def call(self, name: str, params: tuple[object, ...]) -> list[Row]: ...

    def call_count(self, name: str, params: tuple[object, ...]) -> int: ...

    def fetch(self, sql: str, params: tuple[object, ...]) -> list[Row]: ...

    def execute(self, sql: str, params: tuple[object, ...]) -> int: ...


class Stepped(Statements, Attempts, Protocol):
    """A transaction over all its attempts: begin, the callback, conclude, and again if it says so."""

    def begin(self) -> None: ...

    def conclude(self, exception: BaseException | None = None) -> Literal["committed", "again", "raise"]: ...
