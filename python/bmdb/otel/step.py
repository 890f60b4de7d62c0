"""Spans of what is done in the database: transactions, claims, ends, collections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from opentelemetry import context as _context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from bmdb.otel import attributes as names
from bmdb.tracing import Attempts

__all__ = ["Step"]


class Step:
    """One operation on the database. The span begins and ends with the block, inside of which it is the current one."""

    def __init__(
        self,
        tracer: trace.Tracer,
        act: str,
        attributes: Mapping[str, Any],
        *,
        links: Sequence[Link] = (),
        parent: trace.Span | None = None,
        lease: Callable[[UUID, str, int], trace.SpanContext],
        measured: Callable[[float, Mapping[str, Any]], None],
        ended: Callable[[], None] = lambda: None,
        leased: Callable[[Iterable[Any], trace.Span], None] = lambda works, span: None,
    ) -> None:
        """`parent`: of a step that nothing else is around. `lease` makes the context of a lease, `measured` is told
        the duration in seconds, `ended` that the span has ended, `leased` what works there are."""
        self._tracer = tracer
        self._act = act
        self._attributes = dict(attributes)
        self._links = list(links)
        self._parent = parent
        self._lease = lease
        self._measured = measured
        self._ended = ended
        self._leased = leased
        self._span: trace.Span = trace.INVALID_SPAN
        self._tx: Attempts | None = None
        self._began = 0
        self._before: Context = _context.get_current()

    def __enter__(self) -> Self:
        self._before = around = _context.get_current()
        if self._parent is not None and not trace.get_current_span(around).get_span_context().is_valid:
            around = trace.set_span_in_context(self._parent, around)
        target = self._attributes.get(names.PROCESS) or self._attributes.get(names.DB_NAMESPACE, "")
        self._began = time.perf_counter_ns()
        # What a sampler or a processor of the user's raises is not the transaction's business.
        with suppress(Exception):
            self._span = self._tracer.start_span(
                f"{self._act} {target}".strip(),
                context=around,
                kind=SpanKind.CLIENT,
                attributes={**self._attributes, names.DB_OPERATION: self._act},
                links=self._links,
            )
        _context.attach(trace.set_span_in_context(self._span, self._before))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if trace.get_current_span() is self._span:
            _context.attach(self._before)
        with suppress(Exception):
            self._finish(error)
        with suppress(Exception):
            self._ended()

    def _finish(self, error: BaseException | None) -> None:
        seconds = (time.perf_counter_ns() - self._began) / 1e9
        told = {names.DB_OPERATION: self._act}
        if (tx := self._tx) is not None:
            self._span.set_attribute(names.ATTEMPTS, tx.attempts)
            if tx.isolation:
                self._span.set_attribute(names.ISOLATION, tx.isolation)
        if error is None:
            self._span.set_attribute(names.OUTCOME, "committed")
        else:
            told |= mark_failed(self._span, error)
        self._span.end()
        self._measured(seconds, {**self._attributes, **told})

    def runs(self, tx: Attempts) -> None:
        """It is this transaction, which is about to begin."""
        self._tx = tx

    def again(self, error: BaseException | None) -> None:
        """An attempt came to nothing, and another one follows."""
        if not self._span.is_recording() or self._tx is None:
            return
        told: dict[str, Any] = {names.ATTEMPT: self._tx.attempts}
        code = names.sqlstate_of(error) or self._tx.last_sqlstate
        if code:
            told[names.DB_STATUS] = code
        if code or error is not None:
            told[names.ERROR_TYPE] = code or names.type_of(error)  # type: ignore[arg-type]
        self._span.add_event("bmdb.retry", told)

    def concerns(self, machine: UUID, process: str, token: int) -> None:
        """It is about this lease, of whoever."""
        self._span.set_attributes({names.MACHINE: str(machine), names.PROCESS: process, names.TOKEN: token})
        self._span.add_link(self._lease(machine, process, token), {names.LINK: "lease"})

    def leased(self, works: Iterable[Any]) -> None:
        """It has leased these."""
        self._leased(works, self._span)


def mark_failed(span: trace.Span, error: BaseException) -> dict[str, Any]:
    """Says on the span how it ended by the exception; answers what is to be measured by."""
    outcome, bad = names.outcome_of(error)
    span.set_attribute(names.OUTCOME, outcome)
    if not bad:
        return {}
    told: dict[str, Any] = {names.ERROR_TYPE: names.type_of(error)}
    if code := names.sqlstate_of(error):
        told[names.DB_STATUS] = code
    span.set_attributes(told)
    span.set_status(Status(StatusCode.ERROR, names.description_of(error)))
    return told
