"""Begins and ends watching."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, SpanKind, TracerProvider

from bmdb import tracing
from bmdb._core import __version__
from bmdb.lifecycle import connections
from bmdb.otel import attributes as names
from bmdb.otel.identity import DerivedIds, derive, lease_context
from bmdb.otel.lease import LeaseSpan
from bmdb.otel.meter import Meter
from bmdb.otel.step import Step, mark_failed

__all__ = ["instrument", "uninstrument"]

# As many links as the SDK keeps by default.
_MOST_LINKS = 128


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    namespace: str = "",
) -> None:
    """From now on, spans and metrics of all connections of this process go to OpenTelemetry.

    By default to the providers that are set globally, so set those first. `namespace` keeps apart the leases of
    databases that are copies of one another: it has to be the same wherever one of them is used. Again, it replaces
    what was said before. Threads and tasks need not stop meanwhile: what has begun is told to whom it began with.
    """
    uninstrument()
    observer = _Observer(
        tracer_provider or trace.get_tracer_provider(), meter_provider or metrics.get_meter_provider(), namespace
    )
    for connection in connections():
        observer.opened(connection)
    tracing.observer = observer


def uninstrument() -> None:
    """Ends it. Leases that are held keep their spans to their ends."""
    observer, tracing.observer = tracing.observer, None
    if isinstance(observer, _Observer):
        observer.meter.stop()


class _Observer:
    """Who watches."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider, namespace: str) -> None:
        self._tracer = tracers.get_tracer("bmdb", __version__)
        self._ids = DerivedIds(self._tracer)
        self._namespace = namespace
        self._servers: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
        self.meter = Meter(meters.get_meter("bmdb", __version__))

    def opened(self, connection: Any) -> None:
        """A connection was made."""
        self.meter.add(connection._core)

    def step(self, act: str, source: Any, process: str | None = None) -> Step:
        """Something is about to be done."""
        attributes = self._about(source)
        if process is not None:
            attributes[names.PROCESS] = process
        return Step(self._tracer, act, attributes, lease=self._lease, measured=self.meter.measured, leased=self._leased)

    def ends(self, act: str, works: Sequence[Any]) -> Step:
        """These are about to be ended, together."""
        first = works[0]
        attributes = self._about(first.session) | {names.PROCESS: first.process}
        if len(works) == 1:
            attributes |= {names.MACHINE: str(first.machine), names.TOKEN: first.token}
        else:
            attributes[names.DB_BATCH] = len(works)
        spans = [work._span for work in works if isinstance(work._span, LeaseSpan)]
        # A lease from before `instrument` has no span, but its place.
        links = [Link(self._context_of(work), {names.LINK: "lease"}) for work in works[:_MOST_LINKS]]

        def settle() -> None:
            for span in spans:
                span.settle()

        return Step(
            self._tracer,
            act,
            attributes,
            links=links,
            parent=spans[0].span if len(works) == 1 and spans else None,
            lease=self._lease,
            measured=self.meter.measured,
            ended=settle,
        )

    def look(self, session: Any, process: str, limit: int) -> _Look:
        """A claim begins."""
        return _Look(self, self._about(session) | {names.PROCESS: process, names.DB_BATCH: limit})

    def collected(self, connection: Any, began: int, sessions: int, leases: int) -> None:
        """A collection freed so much."""
        with suppress(Exception):
            attributes = self._about(connection)
            attributes |= {names.DB_OPERATION: "collect", "bmdb.sessions": sessions, "bmdb.leases": leases}
            title = f"collect {attributes.get(names.DB_NAMESPACE, '')}".strip()
            # Begun before anybody watched, if there is no time.
            self._tracer.start_span(title, kind=SpanKind.CLIENT, start_time=began or None, attributes=attributes).end()

    def claim_span(self, attributes: Mapping[str, Any], began: int) -> trace.Span:
        """The span of a claim that has just ended."""
        return self._tracer.start_span(
            f"claim {attributes[names.PROCESS]}",
            kind=SpanKind.CLIENT,
            start_time=began,
            attributes={**attributes, names.DB_OPERATION: "claim"},
        )

    def _leased(self, works: Iterable[Any], claim: trace.Span) -> None:
        with suppress(Exception):
            for work in works:
                self._begin(work, claim)

    def _begin(self, work: Any, claim: trace.Span) -> None:
        links = [Link(claim.get_span_context(), {names.LINK: "claim"})]
        if work.token > 1:
            # How it went the last time, whoever had it.
            before = self._lease(work.machine, work.process, work.token - 1)
            links.append(Link(before, {names.LINK: "previous lease"}))
        with self._ids.using(derive(work.machine, work.process, work.token, self._namespace)):
            span = self._tracer.start_span(
                f"work {work.process}",
                context=Context(),
                kind=SpanKind.INTERNAL,
                attributes={
                    names.PROCESS: work.process,
                    names.MACHINE: str(work.machine),
                    names.TOKEN: work.token,
                    names.SESSION: str(work.session.uuid),
                    names.COMPONENT: work.session.connection._core.component,
                },
                links=links,
            )
        work._span = LeaseSpan(work._core, span)
        # A claim with a callback has ended by now: there the lease alone leads to the claim.
        if claim.is_recording():
            claim.add_link(span.get_span_context(), {names.LINK: "lease"})

    def _context_of(self, work: Any) -> trace.SpanContext:
        if isinstance(work._span, LeaseSpan):
            return work._span.context
        return self._lease(work.machine, work.process, work.token)

    def _lease(self, machine: UUID, process: str, token: int) -> trace.SpanContext:
        return lease_context(machine, process, token, namespace=self._namespace)

    def _about(self, source: Any) -> dict[str, Any]:
        """Attributes of a connection, or of a session and its connection."""
        if source is None:
            return {names.DB_SYSTEM: "postgresql"}
        session = source if hasattr(source, "trusted_for") else None
        connection = source if session is None else source.connection
        if (known := self._servers.get(connection)) is None:
            try:
                known = names.of_server(connection)
            except Exception:
                known = {names.DB_SYSTEM: "postgresql"}
            self._servers[connection] = known
        return {**known, names.SESSION: str(session.uuid)} if session is not None else dict(known)


class _Look:
    """A claim without a callback, which leaves a span only if it leases something, or fails."""

    def __init__(self, observer: _Observer, attributes: Mapping[str, Any]) -> None:
        self._observer = observer
        self._attributes = attributes
        self._began = time.time_ns()

    def leased(self, works: Iterable[Any]) -> None:
        """It has leased these."""
        with suppress(Exception):
            claim = self._observer.claim_span(self._attributes, self._began)
            leased = list(works)
            claim.set_attributes({names.OUTCOME: "committed", "bmdb.leased": len(leased)})
            self._observer._leased(leased, claim)
            self._measured(claim, {})

    def failed(self, error: BaseException) -> None:
        """It failed."""
        with suppress(Exception):
            claim = self._observer.claim_span(self._attributes, self._began)
            self._measured(claim, mark_failed(claim, error))

    def _measured(self, claim: trace.Span, told: Mapping[str, Any]) -> None:
        claim.end()
        seconds = (time.time_ns() - self._began) / 1e9
        self._observer.meter.measured(seconds, {**self._attributes, names.DB_OPERATION: "claim", **told})
