"""The span of a lease: from its claim to its end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from opentelemetry import context as _context
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from bmdb.otel.attributes import OUTCOME

__all__ = ["LeaseSpan"]

# The cause of a failure is in history, and not told here: it may hold anything.
_WHY = {"failed": "the work failed", "lost": "the lease was lost"}
_ENDED = ("finished", "failed", "canceled", "lost")


class LeaseSpan:
    """Kept by the work, and ended with it, or when the work is forgotten."""

    __slots__ = ("_entered", "_work", "span")

    def __init__(self, work: Any, span: trace.Span) -> None:
        self._work = work
        self._entered: list[Any] = []
        self.span = span

    @property
    def context(self) -> trace.SpanContext:
        """For links to it, also after its end."""
        return self.span.get_span_context()

    def enter(self) -> None:
        """Inside the block it is the current span."""
        self._entered.append(_context.get_current())
        _context.attach(trace.set_span_in_context(self.span))

    def leave(self) -> None:
        """Outside it is not. In another context, as at the end of a generator, there is nothing to take back."""
        before = self._entered.pop() if self._entered else None
        if before is not None and trace.get_current_span() is self.span:
            # Not detached: that is refused, with noise, in a copy of the context.
            _context.attach(before)

    def settle(self) -> None:
        """Ends the span if the work has ended."""
        if (state := self._work.state) in _ENDED:
            self._end(state)

    def _end(self, outcome: str) -> None:
        span = self.span
        if not span.is_recording():
            return
        span.set_attribute(OUTCOME, outcome)
        if outcome in _WHY:
            span.set_status(Status(StatusCode.ERROR, _WHY[outcome]))
        span.end()

    def __del__(self) -> None:
        with suppress(Exception):
            state = self._work.state
            self._end(state if state in _ENDED else "abandoned")
