"""Traces and metrics: OpenTelemetry, set up once, carried from the client's call to the last handler.

A trace goes on over three borders: gRPC metadata (the interceptors), the headers of events (``emit`` notes the present
span, the inbox continues it) and NATS messages (callers put ``current_traceparent()`` in). All use W3C's traceparent.
Without an OTLP address spans are only ids, so that log lines carry them and traces go on elsewhere; nothing is recorded
and nothing leaves the process, and neither spans nor metrics cost more than that.
"""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

TRACE_HEADER: Final = "traceparent"
METRIC_INTERVAL_MS: Final = 10_000
SHUTDOWN_TIMEOUT_MS: Final = 5_000
_SCOPE: Final = "fallow"
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)


class Telemetry:
    """The process's providers of traces and metrics; ``start`` sets them up, ``close`` sends what is left."""

    is_recording = False
    """Whether spans of this process go anywhere."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider | None) -> None:
        """Keep the providers; use ``start``."""
        self._tracers = tracers
        self._meters = meters

    @classmethod
    def start(cls, service: str, otlp_endpoint: str = "") -> "Telemetry":
        """Set the process's providers; traces and metrics go to ``otlp_endpoint`` (``host:port``) unless it is empty."""
        resource = Resource.create({"service.name": service, "service.namespace": _SCOPE})
        # With an address we record whatever comes, also in a trace that began where nothing is recorded.
        tracers = TracerProvider(ALWAYS_ON if otlp_endpoint else ALWAYS_OFF, resource=resource, shutdown_on_exit=False)
        meters: MeterProvider | None = None
        if otlp_endpoint:
            cls.is_recording = True
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)))
            exporter = OTLPMetricExporter(endpoint=otlp_endpoint, insecure=True)
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=METRIC_INTERVAL_MS)
            meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
            metrics.set_meter_provider(meters)
        trace.set_tracer_provider(tracers)
        return cls(tracers, meters)

    def close(self) -> None:
        """Send what is left and stop; blocks for a few seconds at most."""
        self._tracers.force_flush(SHUTDOWN_TIMEOUT_MS)
        self._tracers.shutdown()
        if self._meters is not None:
            self._meters.shutdown(SHUTDOWN_TIMEOUT_MS)


_tracer: Final = trace.get_tracer(_SCOPE)


def tracer() -> Tracer:
    """The tracer of this process."""
    return _tracer


def meter() -> Meter:
    """The meter of this process; name metrics in domain words with the unit last."""
    return metrics.get_meter(_SCOPE)


def current_traceparent() -> str:
    """The present span as a W3C traceparent, or empty outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_trace_id() -> str:
    """The present trace's id, 32 hexadecimal digits, or empty outside a span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def span_from(
    traceparent: str,
    name: str,
    *,
    kind: SpanKind = SpanKind.CONSUMER,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> AbstractContextManager[Span]:
    """A span that continues the trace of ``traceparent`` (a new trace where that is empty or malformed)."""
    if Telemetry.is_recording:
        return _recorded_span(traceparent, name, kind, attributes)
    return _BareSpan(traceparent)


@contextmanager
def _recorded_span(
    traceparent: str, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue] | None
) -> Iterator[Span]:
    """A span that is sent to the collector."""
    parent = otel_context.Context()
    if traceparent:
        parent = _PROPAGATOR.extract({TRACE_HEADER: traceparent}, context=parent)
    with tracer().start_as_current_span(name, context=parent, kind=kind, attributes=attributes) as span:
        yield span


class _BareSpan:
    """Ids without a record, as the present span while it is entered."""

    __slots__ = ("_span", "_token")

    def __init__(self, traceparent: str) -> None:
        found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        trace_id = int(found[1], 16) if found else random.getrandbits(128) or 1
        span_id = random.getrandbits(64) or 1
        self._span = NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=False, trace_flags=_UNSAMPLED))
        self._token: Token[otel_context.Context] | None = None

    def __enter__(self) -> Span:
        self._token = otel_context.attach(trace.set_span_in_context(self._span, otel_context.Context()))
        return self._span

    def __exit__(self, *_: object) -> None:
        assert self._token is not None, "a span ends after it began"
        otel_context.detach(self._token)


def mark_failed(span: Span, reason: str) -> None:
    """Say on a span that its work failed, and the reason's word."""
    span.set_status(Status(StatusCode.ERROR, reason))
    span.set_attribute("fallow.error_reason", reason)
