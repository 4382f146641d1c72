"""Requests as OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them. Off, it costs nothing.

A request's spans are made after it was answered, from the times that were taken anyway. The usual variables hold
(`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, ...), and a client's `traceparent` is continued.
"""

import logging
import os
from collections.abc import Mapping
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.http.exchange import Exchange

logger = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracing:
    """A tracer of its own, beside whatever else the process traces."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only where tracing is on
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer("zooserve")
        self._server = trace.SpanKind.SERVER
        self._within = trace.set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract
        self._offset = time_ns() - perf_counter_ns()

    def record(self, task: str, exchange: "Exchange") -> None:
        """Send a request's span, with a child per stage."""
        carrier = {
            name: exchange.request_headers.get(name.encode(), b"").decode("latin-1") for name in ("traceparent",)
        }
        attributes: Mapping[str, str | int] = {
            "http.request.method": "POST",
            "http.route": f"/v1/{task}",
            "http.response.status_code": exchange.status,
            "zooserve.model": exchange.model,
            "zooserve.batch_size": exchange.batch_size,
            "zooserve.request_id": exchange.request_id.decode("latin-1"),
        }
        request = self._tracer.start_span(
            f"POST /v1/{task}", self._extract(carrier), self._server, attributes, start_time=self._at(exchange.start)
        )
        within = self._within(request)
        for stage, start, end in exchange.spans:
            self._tracer.start_span(stage, within, start_time=self._at(start)).end(self._at(end))
        request.end(self._at(exchange.mark))

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _at(self, seconds: float) -> int:
        """A `time.perf_counter()` as nanoseconds since the epoch."""
        return int(seconds * 1e9) + self._offset


def start_tracing() -> Tracing | None:
    """Start tracing if the environment asks for it, and say why not where it cannot be had."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        logger.warning("traces are not sent: pip install 'zooserve[tracing]'")
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "zooserve")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
