"""Traces reach a real OTLP endpoint, whole and in order; without one nothing is traced."""

import asyncio
import http.server
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.job import Input, Job
from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.keys import Guard
from service.request import Lifecycle, RequestContext
from service.settings import Settings
from service.telemetry.tracing import Tracing, start_tracing
from tests.conftest import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector():
    """An OTLP endpoint that keeps the spans it is sent."""
    spans = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()


def test_a_request_is_a_span_with_its_stages(collector, models, photo, tmp_path):
    address, spans = collector
    environment = {
        "ZOOSERVE_MODELS": str(models),
        "ZOOSERVE_LOAD": "lenet5",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with serving(tmp_path / "log", **environment) as server:
        server.wait(200)
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "seven"}
        assert server.client.post("/v1/classify", content=photo("digit_7"), headers=headers).status_code == 200
        end = time.monotonic() + 10
        while len(spans) < 9 and time.monotonic() < end:
            time.sleep(0.05)
    (request,) = [span for span in spans if span.name == "POST /v1/classify"]
    attributes = {item.key: item.value for item in request.attributes}
    assert request.trace_id.hex() == TRACE
    assert attributes["zooserve.request_id"].string_value == "seven"
    assert attributes["http.response.status_code"].int_value == 200
    children = [span for span in spans if span.parent_span_id == request.span_id]
    (batch,) = [span for span in children if span.name == "batch"]
    assert [link.span_id for link in batch.links] == [request.span_id]
    assert [link.span_id for link in request.links] == [batch.span_id]
    stages = sorted((span for span in children if span is not batch), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == ["read", "queue", "decode", "queue", "infer", "postprocess", "encode"]
    assert request.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 60


def test_without_an_endpoint_nothing_is_traced(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert start_tracing() is None


class Traced:
    """A `Tracing` whose spans are kept, and requests as their endpoints leave them."""

    def __init__(self, **provider) -> None:
        self._spans = InMemorySpanExporter()
        self._provider = TracerProvider(**provider)
        self._provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracing = Tracing(self._provider)

    def record(self, *jobs: Job, refusal: Reason | None = None) -> None:
        runtime = SimpleNamespace(settings=Settings(), metrics=None, tracing=None, on_demand=None, pipelines=None)
        context = RequestContext(Lifecycle(runtime, Guard("", "")), {}, "/v1/classify")
        context.model = "lenet5"
        if jobs:
            context.answered(jobs)
        if refusal:
            context.fail(RequestError(refusal, "It failed."))
        self.tracing.record(context)

    def named(self, name: str) -> list:
        return [span for span in self._spans.get_finished_spans() if span.name == name]


class Ones(Input[int]):
    def write(self, out, *, jpegs=False):
        out[:] = 1
        return 0

    def answer(self, outputs, row):
        return int(outputs["sums"][row])


def run_together(images: int) -> list[Job]:
    """Bring images through a real queue in one run."""

    async def main() -> list[Job]:
        workers, begun, held = Workers(4), threading.Event(), threading.Event()

        def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            begun.set()
            held.wait(5)
            return {"sums": inputs["images"].sum((1, 2, 3))}

        rows = ImageRows(ImageBuffer(16, 16, (1, 1, 3)))
        batcher = Batcher(run, workers, rows, max_batch=8, max_runs=1, max_queue=9, cost=0.001)
        jobs = [Job(Ones(), time.perf_counter() + 60)]
        batcher.submit(jobs[0])  # runs alone, and holds the place until all others are ready
        assert begun.wait(5)
        for _ in range(images):
            job = Job(Ones(), time.perf_counter() + 60)
            jobs.append(job)
            batcher.submit(job)
        while not all(job.prepared for job in jobs):
            await asyncio.sleep(0.001)
        held.set()
        await asyncio.gather(*(job.future for job in jobs))
        workers.close()
        return jobs[1:]

    jobs = asyncio.run(main())
    assert {job.batch_size for job in jobs} == {images}
    return jobs


def test_a_batch_is_a_span_with_links_to_its_requests():
    traced = Traced()
    first, second, third = run_together(3)
    traced.record(first)
    assert not traced.named("batch")
    traced.record(second, third)
    (batch,) = traced.named("batch")
    one, other = traced.named("POST /v1/classify")
    assert [link.context for link in batch.links] == [one.context, other.context]
    assert [link.context for span in (one, other) for link in span.links] == [batch.context] * 2
    assert batch.parent == one.context
    assert batch.attributes == {"zooserve.model": "lenet5", "zooserve.batch_size": 3}
    (infer, _) = traced.named("infer")
    assert (batch.start_time, batch.end_time) == (infer.start_time, infer.end_time)


def test_a_batch_does_not_wait_for_a_request_that_never_comes(monkeypatch):
    monkeypatch.setattr("service.telemetry.tracing._MAX_WAIT_S", 0.0)
    traced = Traced()
    traced.record(run_together(2)[0])
    (batch,) = traced.named("batch")
    assert len(batch.links) == 1


def test_what_is_left_is_sent_at_the_end():
    traced = Traced()
    traced.record(run_together(2)[0])
    traced.tracing.stop()
    assert len(traced.named("batch")) == 1


def test_a_request_that_is_not_sampled_opens_no_batch():
    traced = Traced(sampler=ALWAYS_OFF)
    traced.record(run_together(2)[0])
    assert not traced.tracing._open


@pytest.mark.parametrize(("refusal", "failed"), [(Reason.INTERNAL, True), (Reason.BAD_OPTION, False)])
def test_only_a_failure_of_the_server_is_an_error(refusal, failed):
    traced = Traced()
    traced.record(refusal=refusal)
    (request,) = traced.named("POST /v1/classify")
    assert request.status.is_ok is not failed
    assert request.attributes["error.type"] == refusal.value
