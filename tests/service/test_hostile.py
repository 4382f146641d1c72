"""Hostile requests by the thousand: every one is answered as it should be, and so is everybody else meanwhile.

`HOSTILE_REQUESTS=10000 pytest -s tests/service/test_hostile.py` is the whole run.
"""

import base64
import collections
import contextlib
import gzip
import http.client
import io
import json
import os
import re
import socket
import threading
import time

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.images import seeds
from tests.conftest import serving

REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "1000"))
MODELS = ("lenet5", "mobilenet_v2", "yolov4_tiny", "u2netp")
IMAGES = dict(seeds())
PROBLEM = {"title", "status", "reason", "detail", "type"}
EXPECTED_ERRORS = {(503, "too_many_connections"), (503, "not_ready"), (504, "deadline")}
GROWTH = 32e6  # bytes by which memory may differ after a fifth of the same requests came once more

ODD = """0 -1 nan inf 1e300 1e-300 true null [] ../../etc/passwd %00 %0d%0a %ff%fe %F0%9F%98%80 ${jndi:ldap://x}
<script> 'OR+1=1 rle png polygon lenet5 mobilenet_v2 yolov4_tiny u2netp"""
OPTIONS = "model version top_k localize heatmap score_threshold iou_threshold max_detections mask x __class__"
OTHER_PATHS = """/v1 /v1/ /v1/models /v1/models/ /v1/models/reload /v1/models/lenet5/load //v1/classify /livez /readyz
/metrics /v1/classify/ /v1/CLASSIFY /v1/../v1/classify * /%2e%2e/ /classify /detect / /docs.json /healthz
http://other/v1/classify"""

odd = st.sampled_from(["", "9" * 30, "a" * 2000, *ODD.split()])
names = st.sampled_from(OPTIONS.split())
tasks = st.sampled_from(["/v1/classify", "/v1/detect", "/v1/segment"])
paths = st.one_of(
    tasks, tasks, tasks, tasks, st.sampled_from(OTHER_PATHS.split()), odd.map(lambda word: f"/v1/models/{word}")
)
headers = st.lists(
    st.one_of(
        st.tuples(st.just("x-request-id"), odd | st.text(st.characters(max_codepoint=255), max_size=20)),
        st.tuples(st.just("x-request-timeout-ms"), odd),
        st.tuples(st.just("x-request-priority"), odd | st.just("high")),
        st.tuples(st.sampled_from(["authorization", "x-api-key", "traceparent", "cookie", "host", "accept"]), odd),
        st.tuples(st.sampled_from(["content-encoding", "expect", "upgrade", "connection", "range", "te"]), odd),
        st.tuples(st.from_regex("x-[a-z]{1,9}", fullmatch=True), st.text(max_size=20)),
    ),
    max_size=2,
)


@st.composite
def images(draw) -> bytes:
    """A real image, whole or with bytes flipped, cut, doubled, or put together with another."""
    data = bytearray(IMAGES[draw(st.sampled_from(sorted(IMAGES)))])
    for kind in draw(st.lists(st.sampled_from(["flip", "header", "cut", "insert", "splice", "double"]), max_size=3)):
        place = draw(st.integers(0, len(data)))
        if kind in ("flip", "header") and data:
            data[place % min(len(data), 64 if kind == "header" else len(data))] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=32))
        elif kind == "splice":
            data[place:] = IMAGES[draw(st.sampled_from(sorted(IMAGES)))][place:]
        elif kind == "double":
            data += data[place:]
    return bytes(data)


def multipart(parts: list[bytes], name: str, end: bool) -> bytes:
    head = f'content-disposition: form-data; name="{name}"; filename="a"'.encode()
    body = b"".join(b"--x\r\n" + head + b"\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--x--\r\n" if end else body


@st.composite
def bodies(draw) -> tuple[str, bytes]:
    """A content type and a body."""
    image = draw(images())
    match draw(st.sampled_from(["raw", "raw", "raw", "type", "multipart", "json", "deep", "gzip", "bytes"])):
        case "raw":
            return "image/jpeg", image
        case "type":
            return draw(
                st.sampled_from(["", "image/svg+xml", "text/html", "multipart/form-data", "application/json"])
            ), image
        case "multipart":
            several = [image, *draw(st.lists(images(), max_size=3))]
            name = draw(st.sampled_from(["image", "image", "file", "\xff", "a" * 5000]))
            return "multipart/form-data; boundary=x", multipart(several, name, draw(st.booleans()))
        case "json":
            texts = [base64.b64encode(image).decode(), *draw(st.lists(st.text(max_size=20), max_size=40))]
            return "application/json", json.dumps({"images": texts} | draw(st.just({}) | st.just({"x": 1}))).encode()
        case "deep":
            depth = draw(st.sampled_from([10, 1000, 100_000]))
            return "application/json", b'{"x":' * depth + b"[" * depth + draw(st.binary(max_size=8))
        case "gzip":
            return "image/jpeg", gzip.compress(image)
        case _:
            return "image/png", draw(st.binary(max_size=200))


@st.composite
def requests(draw) -> bytes:
    """A request as it goes over the wire: well framed, and otherwise anything."""
    method = draw(st.sampled_from(["POST"] * 30 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"]))
    query = "&".join(f"{name}={word}" for name, word in draw(st.lists(st.tuples(names, odd), max_size=1)))
    kind, body = draw(bodies())
    lines = [f"{method} {draw(paths)}{'?' + query if query else ''} HTTP/1.1", "host: x", f"content-type: {kind}"]
    lines += [f"{name}: {value}" for name, value in draw(headers)]
    if draw(st.integers(0, 9)) == 0:
        lines.append("transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n" % (len(body), body) * bool(body) + b"0\r\n\r\n"
    else:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1", "replace") + body


def exchange(address: tuple[str, int], request: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request and read its answer, which must be one whole answer and nothing behind it."""
    with socket.create_connection(address, timeout=30) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered before all was sent
            connection.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received += data
    stream = io.BytesIO(received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    stream.makefile = lambda *_: stream  # what http.client asks of a socket
    stream.close = lambda: None
    no_body = request.startswith(b"HEAD ") and not received.startswith(b"HTTP/1.1 400 ")  # no HTTP, so no HEAD either
    answer = http.client.HTTPResponse(stream, method="HEAD" if no_body else "")
    answer.begin()
    body = answer.read()
    assert stream.read() == b"", "something came behind the answer"
    return answer.status, answer.headers, body


def judge(request: bytes, status: int, headers: http.client.HTTPMessage, body: bytes) -> str:
    """Assert that an answer is one that the service means; say which."""
    method, path, *_ = request.split(b" ", 2)
    reason = ""
    if headers["content-type"] == "application/problem+json" and body:
        problem = json.loads(body)
        assert problem.keys() == PROBLEM
        assert problem["status"] == status >= 400
        assert len(body) < 2000, "an answer repeats what was sent"
        reason = problem["reason"]
    elif path.startswith(b"/v1/") and method != b"HEAD" and status != 403:  # 403: of a WebSocket
        assert status == 200, body
        if method == b"POST":
            assert json.loads(body).keys() in ({"model", "version", "task", "image", "predictions"}, {"results"}), body
    assert status < 500 or (status, reason) in EXPECTED_ERRORS, body
    return f"{status} {reason}".strip()


class Neighbour(threading.Thread):
    """Somebody who asks decent questions all the time, and knows the answers."""

    def __init__(self, url: str, questions: dict[str, bytes]) -> None:
        super().__init__(daemon=True)
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.questions = questions
        self.answers = {path: self.ask(path) for path in questions}
        self.asked = 0
        self.slowest = 0.0
        self.wrong: list[str] = []
        self.stop = threading.Event()

    def ask(self, path: str) -> str:
        response = self.client.post(path, content=self.questions[path], headers={"content-type": "image/png"})
        answer = response.json()
        return f"{response.status_code} {answer.get('predictions', answer)}"

    def run(self) -> None:
        while not self.stop.wait(0.02):
            for path, answer in self.answers.items():
                start = time.monotonic()
                got = self.ask(path)
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.asked += 1
                if got != answer:
                    self.wrong.append(f"{path}: {got[:500]}, not {answer[:500]}")


@pytest.mark.timeout(120 + REQUESTS)
def test_hostile_requests(models, tmp_path):
    environment = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": ",".join(MODELS), "ZOOSERVE_RECEIVE_S": "5"}
    with serving(tmp_path / "log", **environment) as server:
        server.wait(200)
        host, port = server.url.removeprefix("http://").split(":")
        process = psutil.Process(server.process.pid)
        golden = {name: next((models / name / "1" / "golden").iterdir()).read_bytes() for name in MODELS[:2]}
        neighbour = Neighbour(server.url, {f"/v1/classify?model={name}": photo for name, photo in golden.items()})
        neighbour.start()
        outcomes: collections.Counter[str] = collections.Counter()
        sent: list[bytes] = []

        @settings(
            max_examples=REQUESTS,
            deadline=None,
            database=None,
            derandomize="HOSTILE_REQUESTS" not in os.environ,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(request=requests())
        def attack(request):
            try:
                outcomes[judge(request, *exchange((host, int(port)), request))] += 1
            except Exception as error:
                error.add_note(repr(request[:2000]))
                raise
            sent.append(request)

        start = time.monotonic()
        attack()
        seconds = time.monotonic() - start
        neighbour.stop.set()
        neighbour.join()
        assert neighbour.wrong == []
        assert neighbour.asked > 20
        assert process.is_running()
        assert server.client.get("/livez").status_code == 200
        assert server.wait(200)["ready"]
        # The largest images set how much memory allocators keep; whoever sends them again must find it there.
        before = server.resident()
        for request in sent[: len(sent) // 5]:
            judge(request, *exchange((host, int(port)), request))
        after = server.resident()
        text = server.client.get("/metrics").text
        assert set(re.findall(r'model="(.*?)"', text)) <= {"", *MODELS}, "what a client types became a label"
        print(
            f"\n{outcomes.total()} hostile requests in {seconds:.0f} s: {dict(outcomes.most_common())}\n"
            f"meanwhile {neighbour.asked} decent ones, all answered rightly, the slowest in {neighbour.slowest:.2f} s\n"
            f"memory {before / 1e6:.0f} MB, {after / 1e6:.0f} MB after a fifth of them once more; "
            f"{len(text.splitlines())} lines of metrics"
        )
        assert after - before < GROWTH
