"""OpenTelemetry traces of requests. Off, and without cost, unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

A request is a span with one child per stage. A batch is a span in the trace of the first request with an image in it,
so that both are sampled together. Batches and their requests link to each other. Spans are created after the answer,
from times that are measured anyway. OpenTelemetry's variables (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, ...) apply,
and a client's `traceparent` is continued.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from time import perf_counter, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol

from zoo.extras import install

if TYPE_CHECKING:  # the library is an extra
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_MAX_WAIT_S = 5.0  # seconds after a run in which its requests are awaited; failed ones never come


class _Job(Protocol):
    """One answered image or tensor: its batch's start and end in seconds, and its size."""

    run: float
    ran: float
    batch_size: int


class Traced(Protocol):
    """The fields of a request that are traced; `request.RequestContext` documents them."""

    headers: Mapping[bytes, bytes]
    route: str
    model: str
    status: int
    batch_size: int
    request_id: bytes
    start: float
    mark: float

    @property
    def error_type(self) -> str:
        """The reason of the error; empty if there is none."""

    @property
    def spans(self) -> Sequence[tuple[str, float, float]]:
        """Stages with their starts and ends, in seconds of `perf_counter()`."""

    @property
    def jobs(self) -> Sequence[_Job]:
        """The answered jobs."""


class _Batch(NamedTuple):
    """Identifies one run of the engine; times are `time.perf_counter()` in seconds."""

    model: str
    start: float
    end: float
    size: int


class _OpenBatch:
    """The span of a batch, and how many of its images belong to requests that were not recorded yet."""

    def __init__(self, span: "Span", left: int) -> None:
        self.span = span
        self.left = left


class Tracing:
    """Our own tracer, independent of others in the process."""

    def __init__(self, provider: "TracerProvider") -> None:
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

    def record(self, request: Traced) -> None:
        """Send a request's span, with a child per stage, and the spans of batches that are now complete."""
        carrier = {"traceparent": request.headers.get(b"traceparent", b"").decode("latin-1")}
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": request.route,
            "http.response.status_code": request.status,
            "zooserve.model": request.model,
            "zooserve.batch_size": request.batch_size,
            "zooserve.request_id": request.request_id.decode("latin-1"),
        }
        if request.error_type:
            attributes["error.type"] = request.error_type
        name, start, parent = f"POST {request.route}", self._at(request.start), self._extract(carrier)
        span = self._tracer.start_span(name, parent, self._server, attributes, start_time=start)
        if request.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(self._error)
        if span.is_recording():
            within = self._within(span)
            self._record_batches(request, span, within)
            for stage, begin, end in request.spans:
                self._tracer.start_span(stage, within, start_time=self._at(begin)).end(self._at(end))
        span.end(self._at(request.mark))

    def _record_batches(self, request: Traced, own: "Span", within: "Context") -> None:
        """Link the request's span and the spans of its images' batches."""
        for batch, images in Counter(
            _Batch(request.model, job.run, job.ran, job.batch_size) for job in request.jobs
        ).items():
            known = self._open.get(batch)
            if known is None:
                attributes: Mapping[str, str | int] = {
                    "zooserve.model": batch.model,
                    "zooserve.batch_size": batch.size,
                }
                span = self._tracer.start_span("batch", within, attributes=attributes, start_time=self._at(batch.start))
                known = self._open[batch] = _OpenBatch(span, batch.size)
            known.span.add_link(own.get_span_context())
            own.add_link(known.span.get_span_context())
            known.left -= images
        now = perf_counter()
        for batch in [b for b, known in self._open.items() if known.left <= 0 or b.end < now - _MAX_WAIT_S]:
            self._open.pop(batch).span.end(self._at(batch.end))

    def stop(self) -> None:
        """Send all remaining spans."""
        for batch, known in self._open.items():
            known.span.end(self._at(batch.end))
        self._open.clear()
        self._provider.shutdown()

    def _at(self, seconds: float) -> int:
        """Convert a time of `time.perf_counter()` to nanoseconds since the epoch."""
        return int(seconds * 1e9) + self._offset


def start_tracing() -> Tracing | None:
    """Start tracing if the environment asks for it; log a warning if its packages are not installed."""
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
