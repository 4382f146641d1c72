"""Requests as OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them. Off, it costs nothing.

A request is a span with a child per stage. A batch is a span with links to the requests whose pictures it held, in the
trace of the first of them, so that it is sampled with it; each of them links to the batch. Spans are made after the
answer, from the times that were taken anyway. The usual variables hold (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`,
...), and a client's `traceparent` is continued.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from time import perf_counter, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.extras import install

if TYPE_CHECKING:
    from service.http.exchange import Exchange

logger = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PATIENCE = 5.0  # seconds after a run in which its requests are awaited: some failed, or their clients hung up


class _Batch(NamedTuple):
    """What tells one run of the engine from another; times are `time.perf_counter()`."""

    model: str
    start: float
    end: float
    size: int


class _OpenBatch:
    """The span of a batch some of whose requests are still to come."""

    def __init__(self, span: Any, left: int) -> None:
        self.span = span
        self.left = left


class Tracing:
    """A tracer of its own, beside whatever else the process traces."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only where tracing is on
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer("zooserve")
        self._server = trace.SpanKind.SERVER
        self._error = trace.StatusCode.ERROR
        self._within = trace.set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract
        self._open: dict[_Batch, _OpenBatch] = {}
        self._offset = time_ns() - perf_counter_ns()

    def record(self, exchange: "Exchange") -> None:
        """Send a request's span, with a child per stage, and the batches that are complete with it."""
        carrier = {
            name: exchange.request_headers.get(name.encode(), b"").decode("latin-1") for name in ("traceparent",)
        }
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": exchange.route,
            "http.response.status_code": exchange.status,
            "zooserve.model": exchange.model,
            "zooserve.batch_size": exchange.batch_size,
            "zooserve.request_id": exchange.request_id.decode("latin-1"),
        }
        if exchange.refusal is not None:
            attributes["error.type"] = exchange.refusal.value
        request = self._tracer.start_span(
            f"POST {exchange.route}",
            self._extract(carrier),
            self._server,
            attributes,
            start_time=self._at(exchange.start),
        )
        if exchange.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            request.set_status(self._error)
        if request.is_recording():
            within = self._within(request)
            self._record_batches(exchange, request, within)
            for stage, start, end in exchange.spans:
                self._tracer.start_span(stage, within, start_time=self._at(start)).end(self._at(end))
        request.end(self._at(exchange.mark))

    def _record_batches(self, exchange: "Exchange", request: Any, within: Any) -> None:
        """Link the request and the batches that its pictures were in."""
        for batch, pictures in Counter(
            _Batch(exchange.model, job.run, job.ran, job.batch_size) for job in exchange.jobs
        ).items():
            known = self._open.get(batch)
            if known is None:
                attributes: Mapping[str, str | int] = {
                    "zooserve.model": batch.model,
                    "zooserve.batch_size": batch.size,
                }
                span = self._tracer.start_span("batch", within, attributes=attributes, start_time=self._at(batch.start))
                known = self._open[batch] = _OpenBatch(span, batch.size)
            known.span.add_link(request.get_span_context())
            request.add_link(known.span.get_span_context())
            known.left -= pictures
        now = perf_counter()
        for batch in [b for b, known in self._open.items() if known.left <= 0 or b.end < now - _PATIENCE]:
            self._open.pop(batch).span.end(self._at(batch.end))

    def stop(self) -> None:
        """Send what is left."""
        for batch, known in self._open.items():
            known.span.end(self._at(batch.end))
        self._open.clear()
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
        logger.warning("traces are not sent: %s", install("tracing"))
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "zooserve")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
