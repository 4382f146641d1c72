"""Traces reach a real OTLP endpoint, whole and in order; without one nothing is traced."""

import http.server
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.tracing import start_tracing
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
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
        while len(spans) < 8 and time.monotonic() < end:
            time.sleep(0.05)
    (request,) = [span for span in spans if span.name == "POST /v1/classify"]
    attributes = {item.key: item.value for item in request.attributes}
    assert request.trace_id.hex() == TRACE
    assert attributes["zooserve.request_id"].string_value == "seven"
    assert attributes["http.response.status_code"].int_value == 200
    stages = sorted(
        (span for span in spans if span.parent_span_id == request.span_id), key=lambda span: span.start_time_unix_nano
    )
    assert [span.name for span in stages] == ["read", "queue", "decode", "queue", "infer", "postprocess", "encode"]
    assert request.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 60


def test_without_an_endpoint_nothing_is_traced(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert start_tracing() is None
