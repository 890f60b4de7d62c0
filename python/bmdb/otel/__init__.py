"""Spans and metrics for OpenTelemetry. Needs the extra `otel`; nothing of it is imported before this module is."""

from __future__ import annotations

try:
    import opentelemetry.trace as _trace  # noqa: F401 - is it there?
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'bmdb.otel needs opentelemetry-api: pip install "pybmdb[otel]"', name=error.name
    ) from error

from bmdb.otel.identity import lease_context, trace_id
from bmdb.otel.instrument import instrument, uninstrument

__all__ = ["instrument", "lease_context", "trace_id", "uninstrument"]
