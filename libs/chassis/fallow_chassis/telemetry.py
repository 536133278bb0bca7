"""Traces and metrics: OpenTelemetry, set up once, carried from the client's call to the last handler.

A trace goes on over three borders: gRPC metadata (the interceptors), the headers of events (``emit`` notes the present
span, the inbox continues it) and NATS messages (callers put ``current_traceparent()`` in). All use W3C's traceparent.
Without an OTLP address spans are only ids, so that log lines carry them and traces go on elsewhere; nothing is recorded
and nothing leaves the process.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

TRACE_HEADER: Final = "traceparent"
METRIC_INTERVAL_MS: Final = 10_000
SHUTDOWN_TIMEOUT_MS: Final = 5_000
_SCOPE: Final = "fallow"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Telemetry:
    """The process's providers of traces and metrics; ``start`` sets them up, ``close`` sends what is left."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        """Keep the providers; use ``start``."""
        self._tracers = tracers
        self._meters = meters

    @classmethod
    def start(cls, service: str, otlp_endpoint: str = "") -> "Telemetry":
        """Set the process's providers; traces and metrics go to ``otlp_endpoint`` (``host:port``) unless it is empty."""
        resource = Resource.create({"service.name": service, "service.namespace": _SCOPE})
        # With an address we record whatever comes, also in a trace that began where nothing is recorded.
        tracers = TracerProvider(ALWAYS_ON if otlp_endpoint else ALWAYS_OFF, resource=resource, shutdown_on_exit=False)
        readers: list[MetricReader] = []
        if otlp_endpoint:
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)))
            exporter = OTLPMetricExporter(endpoint=otlp_endpoint, insecure=True)
            readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=METRIC_INTERVAL_MS))
        meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(meters)
        return cls(tracers, meters)

    def close(self) -> None:
        """Send what is left and stop; blocks for a few seconds at most."""
        self._tracers.force_flush(SHUTDOWN_TIMEOUT_MS)
        self._tracers.shutdown()
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
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACE_HEADER, "")


def current_trace_id() -> str:
    """The present trace's id, 32 hexadecimal digits, or empty outside a span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


@contextmanager
def span_from(
    traceparent: str,
    name: str,
    *,
    kind: SpanKind = SpanKind.CONSUMER,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span]:
    """A span that continues the trace of ``traceparent`` (a new trace where that is empty or malformed)."""
    parent = otel_context.Context()
    if traceparent:
        parent = _PROPAGATOR.extract({TRACE_HEADER: traceparent}, context=parent)
    with tracer().start_as_current_span(name, context=parent, kind=kind, attributes=attributes) as span:
        yield span


def mark_failed(span: Span, reason: str) -> None:
    """Say on a span that its work failed, and the reason's word."""
    span.set_status(Status(StatusCode.ERROR, reason))
    span.set_attribute("fallow.error_reason", reason)
