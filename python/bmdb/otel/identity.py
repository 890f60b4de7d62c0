"""The ids of a lease's trace and span, which anybody can work out who knows the lease."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from opentelemetry.trace import SpanContext, TraceFlags, Tracer

__all__ = ["DerivedIds", "derive", "lease_context", "trace_id"]


def derive(machine: UUID, process: str, token: int, namespace: str = "") -> tuple[int, int]:
    """The ids of trace and span of that lease: the same in every process, and evenly spread, as samplers need them.

    The first 16 and the next 8 bytes of the SHA-256 of "bmdb lease", the namespace, the machine as 16 bytes, the
    process, and the token in decimal, each behind its length in 4 bytes, big-endian.
    """
    digest = hashlib.sha256()
    parts = (b"bmdb lease", namespace.encode(), machine.bytes, process.encode(errors="replace"), str(token).encode())
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    found = digest.digest()
    # Neither may be 0, which the format has for none.
    return int.from_bytes(found[:16], "big") or 1, int.from_bytes(found[16:24], "big") or 1


def lease_context(machine: UUID, process: str, token: int, *, namespace: str = "") -> SpanContext:
    """The context of the span of a lease, to link to it from anywhere: `trace.Link(lease_context(…))`.

    The three name a lease for good, and history has them. `namespace` is that of `instrument`.
    """
    trace, span = derive(machine, process, token, namespace)
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def trace_id(machine: UUID, process: str, token: int, *, namespace: str = "") -> str:
    """The id of the trace of a lease, as tracing systems show and look it up: 32 hexadecimal digits."""
    return f"{derive(machine, process, token, namespace)[0]:032x}"


class DerivedIds:
    """In the place of the SDK's id generator in one tracer: gives the ids that were asked for, else the SDK's own."""

    def __init__(self, tracer: Tracer) -> None:
        self._inner: Any = getattr(tracer, "id_generator", None)
        self._wanted = threading.local()
        if self._inner is not None:
            # A plain attribute of the SDK's tracers; our tracer is nobody else's. Other implementations have none:
            # their spans get ids of their own, and links that were worked out lead nowhere.
            tracer.id_generator = self  # type: ignore[attr-defined]

    @contextmanager
    def using(self, ids: tuple[int, int]) -> Iterator[None]:
        """The span that is started in the block, on this thread, gets these ids."""
        self._wanted.ids = ids
        try:
            yield
        finally:
            self._wanted.ids = None

    def generate_trace_id(self) -> int:
        """For the SDK."""
        ids = getattr(self._wanted, "ids", None)
        return int(ids[0] if ids else self._inner.generate_trace_id())

    def generate_span_id(self) -> int:
        """For the SDK."""
        ids = getattr(self._wanted, "ids", None)
        return int(ids[1] if ids else self._inner.generate_span_id())

    def is_trace_id_random(self) -> bool:
        """For the SDK: a hash is as evenly spread."""
        asked = getattr(self._inner, "is_trace_id_random", None)
        return bool(asked()) if asked is not None else False
