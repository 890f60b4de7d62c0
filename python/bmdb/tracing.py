"""Where somebody may watch what connections do: `bmdb.otel` is who does. Nobody watches unless it was asked for.

Wherever there is something to see, `observer` is looked at once; while it is None that is all that it costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self
from uuid import UUID


class Attempts(Protocol):
    """A transaction over all its attempts, as far as it is watched."""

    @property
    def attempts(self) -> int: ...
    @property
    def last_sqlstate(self) -> str | None: ...
    @property
    def isolation(self) -> str: ...


class Step(Protocol):
    """Something with a beginning and an end, of which the block is the inside."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def runs(self, tx: Attempts) -> None:
        """It is this transaction, which is about to begin."""

    def again(self, error: BaseException | None) -> None:
        """An attempt came to nothing, and another one follows; `error` is what the callback raised, if it did."""

    def concerns(self, machine: UUID, process: str, token: int) -> None:
        """It is about this lease, of whoever."""

    def leased(self, works: Iterable[Any]) -> None:
        """It has leased these."""


class Look(Protocol):
    """A claim without a callback. Told nothing, it leaves nothing: most looks find nothing to do."""

    def leased(self, works: Iterable[Any]) -> None:
        """It has leased these."""

    def failed(self, error: BaseException) -> None:
        """It failed."""


class Span(Protocol):
    """A lease, from its claim to its end."""

    def enter(self) -> None:
        """The block of the work begins, in this context."""

    def leave(self) -> None:
        """It ends."""

    def settle(self) -> None:
        """The work may have ended."""


class Observer(Protocol):
    """Who watches. `source` is the connection, session or work that something is done on, and None where there is none.

    No method may raise.
    """

    def opened(self, connection: Any) -> None:
        """A connection was made."""

    def step(self, act: str, source: Any, process: str | None = None) -> Step:
        """Something is about to be done: transact, claim, finish, fail, cancel, read, collect and so on."""

    def ends(self, act: str, works: Sequence[Any]) -> Step:
        """These are about to be ended, together."""

    def look(self, session: Any, process: str, limit: int) -> Look:
        """A claim begins."""

    def collected(self, connection: Any, began: int, sessions: int, leases: int) -> None:
        """A collection that began then, in nanoseconds since 1970, freed so much."""


observer: Observer | None = None
